/**
 * @file The service worker: requests of the site's pages for `v1/…`, `health` and `metrics`, relative to its scope, are
 * answered by the router of a page that offers it (client/serve.js); where the worker's URL says `?isolate=…`, documents
 * and workers get the headers that threads need, and with `?policy=…` a Content-Security-Policy, on hosts that send none.
 * What is built keeps files as well: offline.js, before this.
 *
 * One file that exports nothing, so that it is a worker by itself, for `importScripts` (a browser may have no modules in
 * service workers) and for `import` in a worker that a site already has, which stays in charge of its own requests. What
 * it knows does not outlive it: a browser stops it whenever nothing is asked. Who offers a router is asked again then, and
 * the options are in its URL.
 *
 * With a page it speaks by a port for each request. To the page: {inpage: "request", path, method, headers, body}, "pong",
 * "cancel"; to the worker: {taken}, {head: {status, headers}}, {chunk: bytes}…, {end}, or {error}, and "ping".
 */

/**
 * @typedef {(event: FetchEvent) => Promise<Response> | null} Kept null for a request that it does not answer
 * @typedef {{own: Kept, page: Kept}} InPageOffline own: files of inpage; page: of the site
 */
(() => {
  const scope = /** @type {ServiceWorkerGlobalScope & {inpageOffline?: InPageOffline}} */ (/** @type {unknown} */ (self));
  const options = new URL(scope.location.href).searchParams;
  const isolate = options.get("isolate");
  const policy = options.get("policy");
  const BASE = new URL(scope.registration.scope);
  const ENDPOINT = /^(?:v1\/.+|health|metrics)$/;
  /** How long to wait for pages to say that they have a router, and for one to take a request: a frozen one never does. */
  const OFFER_MS = 1000;
  const TAKEN_MS = 5000;
  /** How often to see whether the page that answers is there. */
  const WATCH_MS = 5000;
  /** Pages that offer a router, by client id. @type {Set<string>} */
  const hosts = new Set();

  scope.addEventListener("message", (event) => {
    const source = /** @type {WindowClient | null} */ (event.source);
    if (!source) return;
    if (event.data?.inpage === "hosts") hosts.add(source.id);
    else if (event.data?.inpage === "gone") hosts.delete(source.id);
    else if (event.data?.inpage === "claim") event.waitUntil(scope.clients.claim());
  });

  scope.addEventListener("fetch", (event) => {
    const { request } = event;
    const url = new URL(request.url);
    if (url.origin !== BASE.origin) return;
    const below = url.pathname.startsWith(BASE.pathname);
    const path = url.pathname.slice(BASE.pathname.length).replace(/\/$/, "");
    if (below && ENDPOINT.test(path)) {
      event.respondWith(answer(event, path));
      return;
    }
    if (needsHeaders(request, below)) {
      const respondWith = event.respondWith.bind(event);
      event.respondWith = (answer) => respondWith(withHeaders(answer));
    }
    const own = scope.inpageOffline?.own(event);
    if (own) event.respondWith(own);
  });

  // What a site's own worker, which has taken this one in, leaves to others: its listeners come first.
  queueMicrotask(() => {
    scope.addEventListener("fetch", (event) => {
      const url = new URL(event.request.url);
      if (url.origin !== BASE.origin) return;
      const page = scope.inpageOffline?.page(event);
      if (page) event.respondWith(page);
      else if (needsHeaders(event.request, url.pathname.startsWith(BASE.pathname))) event.respondWith(fetch(event.request));
    });
  });

  /** @param {Request} request @param {boolean} below the scope */
  function needsHeaders(request, below) {
    return Boolean(isolate || policy) && below && (request.mode === "navigate" || ["worker", "sharedworker"].includes(request.destination));
  }

  /** @param {FetchEvent} event @param {string} path @returns {Promise<Response>} */
  async function answer({ request, clientId }, path) {
    const origin = request.headers.get("origin");
    const site = request.headers.get("sec-fetch-site");
    // What a page of another site can start here is a navigation, which sends a form at most.
    if ((request.mode === "navigate" && request.method !== "GET") || (origin && origin !== BASE.origin) || (site && !["same-origin", "none"].includes(site))) {
      return failed(403, "invalid_request_error", "only pages of this origin are answered");
    }
    const body = ["GET", "HEAD"].includes(request.method) ? null : await request.arrayBuffer();
    /** @type {Set<string>} */
    const tried = new Set();
    for (;;) {
      const host = await findHost(clientId, tried);
      if (!host) return failed(503, "service_unavailable_error", "no page of this site runs a model: open one that does (`inpage.serve()`)");
      const response = await ask(host, { inpage: "request", path, method: request.method, headers: [...request.headers], body }, request.signal);
      if (response) return response;
      if (request.signal.aborted) return Response.error();
      hosts.delete(host.id);
      tried.add(host.id);
    }
  }

  /** @param {string} clientId who asks: its own router is the nearest @param {Set<string>} tried @returns {Promise<Client | null>} */
  async function findHost(clientId, tried) {
    for (const id of new Set([clientId, ...hosts])) {
      if (!hosts.has(id) || tried.has(id)) continue;
      const client = await scope.clients.get(id);
      if (client) return client;
      hosts.delete(id);
    }
    const clients = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
    /** @type {Promise<Client>[]} */
    const offers = clients.filter(({ id }) => !tried.has(id)).map((client) => offered(client));
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const nobody = new Promise((resolve) => (timer = setTimeout(() => resolve(null), OFFER_MS)));
    const found = /** @type {Client | null} */ (await Promise.race([...offers, nobody]));
    clearTimeout(timer);
    return found;
  }

  /** @param {Client} client @returns {Promise<Client>} settled when it says that it has a router */
  function offered(client) {
    const { port1, port2 } = new MessageChannel();
    return new Promise((resolve) => {
      port1.onmessage = () => {
        hosts.add(client.id);
        port1.close();
        resolve(client);
      };
      client.postMessage({ inpage: "hosts?" }, [port2]);
    });
  }

  /**
   * @param {Client} client
   * @param {object} message
   * @param {AbortSignal} signal of who asks
   * @returns {Promise<Response | null>} null where it did not take the request, or went before it answered
   */
  function ask(client, message, signal) {
    const { port1: port, port2 } = new MessageChannel();
    return new Promise((resolve) => {
      /** @type {ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>} */
      let controller;
      let ended = false;
      const end = () => {
        ended = true;
        clearTimeout(taken);
        clearInterval(watch);
        signal.removeEventListener("abort", leave);
        port.close();
        resolve(null); // where nothing was answered yet
      };
      const leave = () => {
        if (ended) return;
        port.postMessage("cancel");
        end();
      };
      const lost = () => {
        if (ended) return;
        controller.error(new TypeError("the page that answered is gone"));
        leave();
      };
      const taken = setTimeout(lost, TAKEN_MS);
      const watch = setInterval(async () => {
        if (!(await scope.clients.get(client.id))) lost();
      }, WATCH_MS);
      const body = new ReadableStream({ start: (its) => void (controller = its), cancel: leave });
      /** @param {any} data */
      const hear = (data) => {
        if (data === "ping") port.postMessage("pong");
        else if (data.taken) clearTimeout(taken);
        else if (data.head) resolve(new Response(body, headOf(data.head)));
        else if (data.chunk) controller.enqueue(data.chunk);
        else {
          if (data.end) controller.close();
          else controller.error(new TypeError(typeof data.error === "string" ? data.error : "the page that answered failed"));
          end();
        }
      };
      port.onmessage = ({ data }) => {
        if (ended) return;
        try {
          hear(data);
        } catch {
          lost(); // no answer that a page of this version gives
        }
      };
      port.addEventListener("close", lost);
      signal.addEventListener("abort", leave);
      client.postMessage(message, [port2]);
    });
  }

  /**
   * Of any other shape, a list nested in itself above all, `Headers` would make texts without an end.
   *
   * @param {any} head
   * @returns {ResponseInit}
   * @throws {TypeError}
   */
  function headOf({ status, headers }) {
    const isPair = (/** @type {any} */ pair) => Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string" && typeof pair[1] === "string";
    if (!Number.isInteger(status) || !Array.isArray(headers)) throw new TypeError("no head of a response");
    // Not `every`: it passes over holes, and takes minutes where there are billions.
    for (let i = 0; i < headers.length; i++) if (!isPair(headers[i])) throw new TypeError("no head of a response");
    return { status, headers };
  }

  /** @param {number} status @param {string} type @param {string} message @returns {Response} */
  function failed(status, type, message) {
    return Response.json({ error: { message, type, param: null, code: null } }, { status });
  }

  /** @param {Response | PromiseLike<Response>} answer @returns {Promise<Response>} */
  async function withHeaders(answer) {
    const response = await answer;
    if (response.status === 0) return response; // of a redirect, which the browser follows by itself
    const headers = new Headers(response.headers);
    /** @param {string} name @param {string | null} value */
    const add = (name, value) => value && !headers.has(name) && headers.set(name, value);
    add("Cross-Origin-Embedder-Policy", isolate);
    add("Cross-Origin-Opener-Policy", isolate && "same-origin");
    add("Content-Security-Policy", policy);
    const bare = [204, 205, 304].includes(response.status);
    return new Response(bare ? null : response.body, { status: response.status, statusText: response.statusText, headers });
  }
})();
