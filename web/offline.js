/**
 * @file The part of the service worker that makes a site work offline. What is built has it before sw.js, and before both
 * a line that sets `inpageFiles`: each file of inpage with its SHA-256 (py/inpage/cli/service_worker.py), so that a new
 * version is a new worker for the browser.
 *
 * - `?files=FOLDER` in the worker's URL, where inpage's files lie: they are kept all together, each with the hash of the
 *   list, and answered from there. Until the last has come, none is. A later version is fetched while it is installed, and
 *   used once no page of the earlier one is open: versions never mix. What not every page needs (`late`) is kept when it is
 *   first asked for. Models' manifest.json is fetched, and kept for when there is no network; what a manifest names is kept
 *   by the engine.
 * - `?pages`: whatever else pages of the site load is kept as well, for when there is no network.
 */
(() => {
  const scope = /** @type {ServiceWorkerGlobalScope & {inpageFiles: {revision: string, files: Record<string, string>, late: string[]}, inpageOffline: InPageOffline}} */ (
    /** @type {unknown} */ (self)
  );
  const { revision, files, late } = scope.inpageFiles;
  const options = new URL(scope.location.href).searchParams;
  const pages = options.has("pages");
  const folder = options.has("files") ? new URL(options.get("files") ?? "", scope.location.href) : null;
  /** Caches belong to the origin: another folder of it may hold another site. A URL has no spaces. */
  const PREFIX = `inpage ${scope.registration.scope} `;
  const FILES = PREFIX + revision;
  const PAGES = `${PREFIX}pages`;
  /** In a cache of files, when all are there: what they are. */
  const LIST = new URL("inpage-files.json", scope.registration.scope).href;
  /** How many are fetched at once. */
  const PARALLEL = 4;
  /** Of the site's own files so many at most; the oldest go. */
  const MOST_PAGES = 300;
  /** What a page's scripts fetch and the engine does not store by itself. */
  const FETCHED = /\.(json|wasm|zip|wgsl)$/;
  const COMPILED = /\.wasm$/;
  const MANIFEST = /(^|\/)manifest\.json$/;
  /** @type {Promise<void> | null} */
  let filling = null;
  let whole = false;

  scope.addEventListener("install", (event) => {
    // The first one waits for nothing: its page is open already, and asks for it to be filled.
    if (scope.registration.active) event.waitUntil(fill());
  });

  scope.addEventListener("activate", (event) => event.waitUntil(tidy()));

  scope.addEventListener("message", (event) => {
    if (event.data?.inpage === "keep") {
      const kept = Promise.all([fill(), pages && keepPages(event.data.urls)]);
      event.waitUntil(kept.catch((error) => console.warn(`inpage: this site does not work offline yet: ${error.message}`)));
    } else if (event.data?.inpage === "update") event.waitUntil(takeOver(event.ports[0]));
  });

  /** @param {FetchEvent} event @returns {URL | null} of a request for what may be kept */
  function keepable({ request }) {
    return request.method !== "GET" || request.headers.has("range") || request.cache === "only-if-cached" ? null : new URL(request.url);
  }

  scope.inpageOffline = {
    own(event) {
      const url = keepable(event);
      if (!url) return null;
      const name = listed(url, event.request.mode === "navigate");
      if (name) return ofVersion(name, event.request);
      return event.request.destination === "" && MANIFEST.test(url.pathname) && (folder || pages) ? newest(event) : null;
    },
    page(event) {
      const url = keepable(event);
      return url && pages && (event.request.destination !== "" || FETCHED.test(url.pathname)) ? newest(event) : null;
    },
  };

  /** @param {URL} url @param {boolean} document @returns {string | null} as the list names it */
  function listed(url, document) {
    if (!folder || url.origin !== folder.origin || !url.pathname.startsWith(folder.pathname)) return null;
    let name;
    try {
      name = decodeURIComponent(url.pathname.slice(folder.pathname.length));
    } catch {
      return null; // a lone "%", which no name of the list has
    }
    if (document && /(^|\/)$/.test(name)) name += "index.html";
    return Object.hasOwn(files, name) && (document || !url.search) ? name : null;
  }

  /** @param {string} name @param {Request} request @returns {Promise<Response>} */
  async function ofVersion(name, request) {
    const cache = await caches.open(FILES).catch(() => null);
    whole ||= Boolean(await cache?.match(LIST));
    if (!cache || !whole) return fetch(request);
    const url = place(name);
    const kept = await cache.match(url);
    if (kept) return (COMPILED.test(name) && (await browsers(url, kept))) || kept;
    const response = await fetched(url, files[name]);
    await cache.put(url, response.clone()).catch(() => {}); // no room
    return response;
  }

  /**
   * The same from the browser's own cache: only with that does it keep the code that it compiled, which saves the next
   * start a part of a second. The network is not asked.
   * @param {string} url
   * @param {Response} kept
   * @returns {Promise<Response | null>}
   */
  async function browsers(url, kept) {
    const found = await fetch(url, { cache: "only-if-cached", mode: "same-origin" }).catch(() => null);
    const same = (/** @type {string} */ name) => found?.headers.get(name) && found.headers.get(name) === kept.headers.get(name);
    return found?.status === 200 && (same("ETag") || same("Last-Modified")) ? found : null;
  }

  /** @param {FetchEvent} event @returns {Promise<Response>} from the network, else the latest that was */
  async function newest(event) {
    const { request } = event;
    const key = keyOf(request.url, request.mode === "navigate");
    try {
      const response = await fetch(request);
      if (response.status === 200 && response.type === "basic") event.waitUntil(keep(key, response.clone()));
      return response;
    } catch (error) {
      const kept = await (await caches.open(PAGES)).match(key, { ignoreVary: true });
      if (kept) return kept;
      throw error;
    }
  }

  /** @param {string} name @returns {string} */
  function place(name) {
    return new URL(name.split("/").map(encodeURIComponent).join("/"), /** @type {URL} */ (folder)).href;
  }

  /** A document is the same whatever is asked of it: a static site. @param {string} url @param {boolean} document */
  function keyOf(url, document) {
    const key = new URL(url);
    key.hash = "";
    if (document) key.search = "";
    return key.href;
  }

  /** @returns {Promise<void>} */
  function fill() {
    filling ??= filled().finally(() => (filling = null));
    return filling;
  }

  async function filled() {
    if (!folder) return;
    const cache = await caches.open(FILES);
    if (await cache.match(LIST)) return;
    const names = Object.keys(files);
    const next = async () => {
      for (let name = names.pop(); name !== undefined; name = names.pop()) {
        const url = place(name);
        if (await cache.match(url)) continue;
        const response = (await earlier(name)) ?? (late.includes(name) ? null : await fetched(url, files[name]));
        if (response) await cache.put(url, response);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, next));
    await cache.put(LIST, Response.json(files));
  }

  /**
   * Of the version before, where the file has not changed. Scripts and documents are asked for again, as a host may send
   * other headers with them.
   * @param {string} name
   * @returns {Promise<Response | undefined>}
   */
  async function earlier(name) {
    if (!FETCHED.test(name) && !late.includes(name)) return undefined;
    for (const key of await caches.keys()) {
      if (!key.startsWith(PREFIX) || key === FILES || key === PAGES) continue;
      const cache = await caches.open(key);
      const list = await (await cache.match(LIST))?.json();
      if (list?.[name] === files[name]) return cache.match(place(name));
    }
    return undefined;
  }

  /** @param {string} url @param {string} sha256 @returns {Promise<Response>} of that hash */
  async function fetched(url, sha256) {
    for (const cache of /** @type {RequestCache[]} */ (["default", "reload"])) {
      const response = await fetch(url, { cache });
      if (!response.ok) throw new Error(`${url}: HTTP ${response.status}`);
      const bytes = await response.arrayBuffer();
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      if (Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) continue;
      const headers = new Headers(response.headers);
      for (const name of ["Content-Encoding", "Content-Length", "Transfer-Encoding"]) headers.delete(name);
      return new Response(bytes, { headers });
    }
    throw new Error(`${url} is not the file of this version: the site was changed meanwhile`);
  }

  /** @param {string[]} urls what the page has loaded, itself included */
  async function keepPages(urls) {
    const cache = await caches.open(PAGES);
    for (const [i, url] of urls.entries()) {
      const key = keyOf(url, i === 0);
      if (new URL(key).origin !== scope.location.origin || listed(new URL(key), i === 0) || (await cache.match(key, { ignoreVary: true }))) continue;
      const response = await fetch(key).catch(() => null);
      if (response?.status === 200) await keep(key, response);
    }
  }

  /** @param {string} key @param {Response} response */
  async function keep(key, response) {
    try {
      const cache = await caches.open(PAGES);
      await cache.put(key, response);
      const keys = await cache.keys();
      for (const old of keys.slice(0, Math.max(0, keys.length - MOST_PAGES))) await cache.delete(old);
    } catch {
      // no room, or a browser that keeps nothing: there is the network
    }
  }

  /** What earlier versions kept is of no use to any page now. */
  async function tidy() {
    for (const key of await caches.keys()) {
      const wanted = (folder && key === FILES) || ((folder || pages) && key === PAGES);
      if (key.startsWith(PREFIX) && !wanted) await caches.delete(key);
    }
  }

  /** In place of the version before, where only the page that asks is open. @param {MessagePort} port */
  async function takeOver(port) {
    const clients = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
    const alone = clients.filter(({ url }) => url.startsWith(scope.registration.scope)).length <= 1;
    port.postMessage(alone);
    if (alone) await scope.skipWaiting();
  }
})();
