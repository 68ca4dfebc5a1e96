/**
 * @file A page and the service worker (../sw.js): registers it, reloads once where the page needs its headers, and answers
 * what it passes on. Without service workers (plain http, a browser's private windows) nothing of it fails: there is no
 * endpoint then, and no isolation.
 */

import { EngineError } from "../engine/format/errors.js";
import { scattered, together } from "../engine/host/places.js";
import { dropTabValue, keepTabValue, tabValue } from "../engine/host/site_data.js";
import { trusted } from "../engine/host/trusted.js";

/**
 * @typedef {object} ServeOptions
 * @property {string | URL | ServiceWorkerRegistration} [worker] URL of the worker's script, `sw.js` beside the page if not
 *   given, or a registration of the site's own worker, which has taken `sw.js` in
 * @property {string} [scope] paths that it answers below; its script's folder if not given
 * @property {boolean | "require-corp" | "credentialless"} [isolate] make the page cross-origin isolated, which threads need:
 *   it is reloaded once where it is not. `true` is "require-corp"; "credentialless" where it embeds other sites' images
 * @property {string} [policy] a Content-Security-Policy for documents and workers that have none
 * @property {boolean} [offline] keep what pages of the site load, so that they work without a network after one visit; a later
 *   version of the site is taken as a whole, with a reload where this is its only page
 * @property {() => void} [onReload] called before the page is reloaded
 * @property {() => void} [onUpdate] called when a later version of the site is there whole: see `InPage.update`
 */

/** A worker that does not become active is not waited for any longer. */
const ACTIVE_MS = 5000;
/** A service worker that says nothing is gone: how often it is asked, and how often it may be silent. */
const BEAT_MS = 5000;
const SILENT = 3;
const MARK = "inpage-isolating";

/**
 * Register the service worker and let it have this page. Without options the registration that the page has stays.
 * @param {ServeOptions} [options]
 * @returns {Promise<ServiceWorkerRegistration | null>} null where there are no service workers; never settled where the
 *   page is reloaded
 * @throws {EngineError} unsupported where its script is missing, or refused
 */
export function register(options) {
  return registered(true, options);
}

/**
 * @param {boolean} early nothing is loaded yet: a later version of the site may be taken, with a reload
 * @param {ServeOptions} [options]
 * @returns {Promise<ServiceWorkerRegistration | null>}
 */
export async function registered(early, { worker, scope, isolate = false, policy, offline = false, onReload, onUpdate } = {}) {
  const container = serviceWorkers();
  if (!container) return null;
  const asIs = !(worker || scope || isolate || policy || offline);
  const own = worker instanceof ServiceWorkerRegistration ? worker : asIs ? await container.getRegistration() : null;
  const script = scriptUrl(worker instanceof ServiceWorkerRegistration ? "" : (worker ?? "sw.js"), { isolate, policy, offline });
  // One that comes only while this page starts is told of instead (`onUpdate`).
  const waiting = early && !own ? (await container.getRegistration())?.waiting : null;
  const registration = own ?? (await made(container, script, scope));
  if (!registration) return null; // a browser that is told to have none
  await activated(registration);
  if (waiting && registration.waiting === waiting && container.controller) {
    await update(container, waiting, onReload ?? (() => announce("it has the latest version")));
  }
  if (onUpdate) watchUpdates(registration, onUpdate);
  if (!location.href.startsWith(registration.scope)) return registration;
  if (!container.controller) {
    const controlled = new Promise((resolve) => container.addEventListener("controllerchange", resolve, { once: true }));
    registration.active?.postMessage({ inpage: "claim" });
    await inTime(controlled);
  }
  const { searchParams } = new URL(registration.active?.scriptURL ?? location.href);
  if (searchParams.has("files") || searchParams.has("pages")) registration.active?.postMessage({ inpage: "keep", urls: loaded() });
  if (!isolate || globalThis.crossOriginIsolated) {
    dropTabValue(MARK);
    return registration;
  }
  // Once: a page that is not isolated after that never will be.
  if (tabValue(MARK) || !keepTabValue(MARK, "1")) return registration;
  return reloaded(onReload ?? (() => announce("it is cross-origin isolated and models run in threads")));
}

/**
 * @param {ServiceWorkerContainer} container
 * @param {URL} script
 * @param {string} [scope]
 * @throws {EngineError} unsupported
 */
async function made(container, script, scope) {
  try {
    return await container.register(trusted(script), { scope, updateViaCache: "none" });
  } catch (error) {
    throw new EngineError("unsupported", `the service worker ${script.pathname} cannot be registered: ${String(error)}`, "worker", error);
  }
}

/** @param {() => void} onReload @returns {Promise<any>} never settled */
function reloaded(onReload) {
  onReload();
  location.reload();
  return new Promise(() => {});
}

/**
 * Let the worker of a later version take the place of the one before. The page is reloaded then, however late that is: what
 * it would load from now on is of the later version.
 * @param {ServiceWorkerContainer} container
 * @param {ServiceWorker} worker
 * @param {() => void} onReload
 * @returns {Promise<void>} settled where other pages of the site are open, which need the earlier version, or where it
 *   takes its time
 */
async function update(container, worker, onReload) {
  const { port1, port2 } = new MessageChannel();
  /** @type {Promise<boolean>} */
  const alone = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
  const changed = new Promise((resolve) => container.addEventListener("controllerchange", resolve, { once: true }));
  worker.postMessage({ inpage: "update" }, [port2]);
  if (await inTime(alone)) await inTime(changed.then(() => reloaded(onReload)));
}

/** The registrations that are watched. @type {Map<ServiceWorkerRegistration, () => void>} */
const watched = new Map();

/** @param {ServiceWorkerRegistration} registration @param {() => void} onUpdate */
function watchUpdates(registration, onUpdate) {
  const before = watched.has(registration);
  watched.set(registration, onUpdate);
  const tell = () => registration.waiting && registration.active && watched.get(registration)?.();
  const watch = () => registration.installing?.addEventListener("statechange", tell);
  if (!before) {
    registration.addEventListener("updatefound", watch);
    watch(); // it may be under way already
  }
  tell();
}

/**
 * Look for a later version, and take one that waits, with a reload.
 * @returns {Promise<boolean>} false where there is none, or other pages of the site are open, which need the earlier one
 */
export async function takeUpdate() {
  const container = serviceWorkers();
  const registration = await container?.getRegistration();
  if (!container || !registration) return false;
  if (!registration.waiting) await registration.update().catch(() => {}); // no network
  if (registration.waiting) await update(container, registration.waiting, () => announce("it has the latest version"));
  return false;
}

/** @returns {string[]} the page, what it has loaded, and what its model will need */
function loaded() {
  const entries = /** @type {PerformanceResourceTiming[]} */ (performance.getEntriesByType("resource"));
  const files = entries.filter(({ initiatorType }) => !["fetch", "xmlhttprequest", "beacon"].includes(initiatorType));
  return [location.href, ...new Set([...files.map(({ name }) => name), ...scattered()])];
}

/**
 * Answer what the service worker passes on.
 * @param {ServiceWorkerRegistration | null} registration
 * @param {typeof globalThis.fetch} fetch the router's
 * @returns {() => void} ends it
 */
export function host(registration, fetch) {
  const container = serviceWorkers();
  if (!container || !registration) return () => {};
  /** @param {MessageEvent} event */
  const heard = ({ data, ports: [port] }) => {
    if (!port) return;
    if (data?.inpage === "hosts?") port.postMessage("here");
    else if (data?.inpage === "request") void pass(fetch, data, port);
  };
  const offer = () => registration.active?.postMessage({ inpage: "hosts" });
  container.addEventListener("message", heard);
  container.addEventListener("controllerchange", offer);
  container.startMessages();
  offer();
  return () => {
    container.removeEventListener("message", heard);
    container.removeEventListener("controllerchange", offer);
    registration.active?.postMessage({ inpage: "gone" });
  };
}

/**
 * Answer one request. It is cancelled where the worker says so, or is no more.
 * @param {typeof globalThis.fetch} fetch
 * @param {{path: string, method: string, headers: [string, string][], body: ArrayBuffer | null}} request
 * @param {MessagePort} port
 */
async function pass(fetch, { path, method, headers, body }, port) {
  const stop = new AbortController();
  const cancel = () => stop.abort();
  let silent = 0;
  const beat = setInterval(() => {
    if (++silent > SILENT) cancel();
    port.postMessage("ping");
  }, BEAT_MS);
  port.onmessage = ({ data }) => {
    silent = 0;
    if (data === "cancel") cancel();
  };
  port.addEventListener("close", cancel); // a browser that does not tell leaves it to the beat
  port.postMessage({ taken: true });
  try {
    const response = await fetch(new URL(path, "http://inpage/"), { method, headers, body, signal: stop.signal });
    port.postMessage({ head: { status: response.status, headers: [...response.headers] } });
    const reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      port.postMessage({ chunk: value }, [value.buffer]);
    }
    port.postMessage({ end: true });
  } catch (error) {
    port.postMessage({ error: String(error) });
  } finally {
    clearInterval(beat);
  }
}

/** @param {string} why */
function announce(why) {
  console.info(`inpage: this page is reloaded once, so that ${why}`);
}

/** @returns {ServiceWorkerContainer | null} */
function serviceWorkers() {
  try {
    return globalThis.navigator.serviceWorker ?? null;
  } catch {
    return null; // a sandboxed frame
  }
}

/** @param {string | URL} script @param {Pick<ServeOptions, "isolate" | "policy" | "offline">} options */
function scriptUrl(script, { isolate, policy, offline }) {
  const url = new URL(script, document.baseURI);
  if (isolate) url.searchParams.set("isolate", isolate === true ? "require-corp" : isolate);
  if (policy) url.searchParams.set("policy", policy);
  if (offline) {
    const folder = together();
    if (folder) url.searchParams.set("files", new URL(folder, location.href).pathname);
    url.searchParams.set("pages", "");
  }
  return url;
}

/** @param {ServiceWorkerRegistration} registration */
async function activated({ active, waiting, installing }) {
  const worker = active ?? waiting ?? installing;
  if (!worker || worker.state === "activated") return;
  await inTime(
    new Promise((resolve) => {
      worker.addEventListener("statechange", () => ["activated", "redundant"].includes(worker.state) && resolve(null));
    }),
  );
}

/** @param {Promise<unknown>} promise @returns {Promise<unknown>} */
function inTime(promise) {
  return Promise.race([promise, new Promise((resolve) => setTimeout(resolve, ACTIVE_MS))]);
}
