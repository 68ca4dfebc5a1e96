/** @file Readers of what other tabs, and service workers, say. */

import { readFileSync } from "node:fs";
import vm from "node:vm";

import { Guest } from "../../../web/client/guest.js";
import { RemoteLink } from "../../../web/client/remote.js";
import { host } from "../../../web/client/serve.js";
import { Tabs } from "../../../web/client/tabs.js";
import { Turn, Turns } from "../../../web/client/turns.js";
import { EngineError } from "../../../web/engine/format/errors.js";
import { Fault } from "./harness.mjs";

const STANDING = { suspicion: 1, deaths: 0, rank: 2 };
const PIECE = { text: "x", token_ids: [5, 6], failovers: [{ from: "wasm", to: "native", reason: "x", gap_ms: 5 }] };
const TO_HOST = ["ping", { id: 1, call: '{"op": "chat", "messages": "hi"}', standing: STANDING }, { id: 2, call: '{"op": "info"}', standing: null }, { cancel: 1 }, { hidden: true },
  { id: 3, call: '{"op": "add", "model": "m", "artifact": "m/"}', standing: null }];
const TO_GUEST = ["pong", { here: true }, { welcome: { model: "m" } }, { admitted: 1 }, { event: { changed: { model: "m" }, default: true } }, { id: 1, heard: { begun: { seed: 5 } } },
  { id: 1, heard: { piece: PIECE } }, { id: 1, heard: { chunk: "data: x", token_ids: [5], events: 1 } }, { id: 1, value: { finish_reason: "stop" } },
  { id: 1, error: { code: "network", message: "x", field: null } }, { bye: true }, { died: { code: "device_lost", message: "x", field: null }, standings: { 1: STANDING } }];
const TO_ALL = [{ hello: "link", models: [{ model: "m", artifact: "m/", threads: 1 }], hidden: false }, { host: true }];
const OF_WORKER = { inpage: "request", path: "v1/chat/completions", method: "POST", headers: [["content-type", "application/json"]], body: null };
const OF_PAGE = [{ taken: true }, { head: { status: 200, headers: [["content-type", "text/plain"]] } }, { chunk: Uint8Array.of(65, 66) }, "ping", { end: true }, { error: "x" }];

Object.assign(globalThis, { addEventListener: () => {} }); // a page has it

/** Channels that deliver at once, and to nobody but the one that is read. @type {Map<string, any[]>} */
const channels = new Map();
globalThis.BroadcastChannel = /** @type {any} */ (
  class {
    /** @type {((event: {data: unknown}) => void) | null} */
    onmessage = null;

    /** @param {string} name */
    constructor(name) {
      if (typeof name !== "string") throw new Fault("a channel without a name");
      channels.set(name, [...(channels.get(name) ?? []), this]);
    }

    postMessage(/** @type {unknown} */ message) {
      structuredClone(message);
    }

    close() {
      this.onmessage = null;
    }
  }
);

/** What arrives of messages: nobody can post some. @param {unknown[]} messages @returns {unknown[]} */
function cloned(messages) {
  return messages.flatMap((message) => {
    try {
      return [structuredClone(message)];
    } catch {
      return [];
    }
  });
}

/** As from another tab. @param {string} name @param {unknown[]} messages */
async function say(name, messages) {
  for (const data of cloned(messages)) {
    for (const channel of channels.get(name) ?? []) channel.onmessage?.({ data });
    await null;
  }
  for (let i = 0; i < 5; i++) await null;
}

/** The page that hosts the router. */
function owner() {
  const link = { ended: null, cancel: () => {}, call: (/** @type {any} */ message, /** @type {any} */ heard) => {
    if (typeof message.op !== "string") throw new Fault("no operation");
    heard({ piece: { text: "x", token_ids: [1] } });
    return { id: 1, answer: Promise.resolve(1) };
  } };
  return /** @type {any} */ ({ turns: new Turns(), models: [], info: {}, connect: async () => link, learn: async () => {}, knows: () => false, noted: () => {}, heard: () => {}, wake: () => {}, leave: () => {}, tellSeen: () => {}, open: () => link });
}

/** @param {unknown[]} messages */
async function asHost(messages) {
  channels.clear();
  const guest = new Guest("guest", { hello: "guest", models: [], hidden: false }, owner(), { seen: () => {}, gone: () => {} });
  await say("guest", messages);
  guest.close();
}

/** @param {unknown[]} messages */
async function asGuest(messages) {
  channels.clear();
  const link = new RemoteLink("link", { hello: () => {}, heard: (event) => { if (typeof event !== "object" || event === null) throw new Fault(`${event}`); }, died: () => {}, silent: () => {} });
  const { answer } = link.call({ op: "chat" }, ({ piece }) => piece && [...piece.token_ids, piece.text.length], new Turn());
  const ended = answer.then(() => null, (error) => error); // what an answer may be, its caller checks
  await say("link", messages);
  link.end(new EngineError("cancelled", "x"), true);
  const error = await ended;
  if (error !== null && !(error instanceof EngineError)) throw error;
}

/** @param {unknown[]} messages */
async function asTab(messages) {
  channels.clear();
  const tabs = new Tabs("all", owner());
  await say("all", messages);
  tabs.close();
}

/** What some tab may say, one of it damaged. @param {any[]} good @returns {(m: import("./mutate.mjs").Mutator) => unknown[]} */
const damaged = (good) => (m) => {
  const said = Array.from({ length: m.choice([1, 2, 6]) }, () => m.choice(good));
  said[m.draw(said.length)] = m.value(m.choice(good), good);
  return said;
};

// -- between a page and the service worker ---------------------------------------------------------------------------

const container = Object.assign(new EventTarget(), { startMessages: () => {} });

/** @param {any} data */
async function asPage(data) {
  Object.defineProperty(globalThis, "navigator", { value: { serviceWorker: container }, configurable: true });
  const { port1, port2 } = new MessageChannel();
  /** @type {typeof fetch} */
  const fetch = async (input, init) => new Response(String(new Request(input, init).url.length), { headers: { a: "b" } });
  const stop = host(/** @type {any} */ ({ active: { postMessage: () => {} } }), fetch);
  try {
    const ended = new Promise((resolve) => {
      port2.onmessage = ({ data: heard }) => (heard?.end || heard?.error !== undefined) && resolve(undefined);
    });
    container.dispatchEvent(Object.assign(new Event("message"), { data, ports: [port1] }));
    if (data?.inpage === "request") await ended;
  } finally {
    stop();
    port1.close();
    port2.close();
  }
}

/** @type {any} */
let heard;
/** Messages of a page that answers. @type {unknown[]} */
let replies = [];
const page = {
  id: "page",
  postMessage: (/** @type {any} */ _, /** @type {[MessagePort]} */ [port]) => {
    for (const reply of replies) port.postMessage(reply);
    port.postMessage({ error: "all is said" });
  },
};

/** The real script in a realm of its own, in which nothing is waited for. */
function serviceWorker() {
  const scope = new EventTarget();
  heard = scope;
  const self = Object.assign(scope, {
    location: { href: "http://a/sw.js?isolate=require-corp&policy=x" }, registration: { scope: "http://a/app/" },
    clients: { get: async (/** @type {string} */ id) => (id === "page" ? page : undefined), matchAll: async () => [] },
  });
  const context = vm.createContext({
    self, URL, Set, Response, Headers, MessageChannel, ReadableStream, TypeError, queueMicrotask, clearTimeout, clearInterval, console,
    setTimeout: (/** @type {() => void} */ action, /** @type {number} */ ms) => setTimeout(action, ms > 1000 ? ms : 0), setInterval: () => 0, fetch: async () => new Response("site"),
  });
  vm.runInContext(readFileSync(new URL("../../../web/sw.js", import.meta.url), "utf8"), context);
  heard.dispatchEvent(Object.assign(new Event("message"), { source: { id: "page" }, data: { inpage: "hosts" } }));
}

/** @param {{data: unknown, url: string, headers: [string, string][], method: string, body: any, replies: unknown[]}} given */
async function asWorker({ data, url, headers, method, body, replies: said }) {
  if (!heard) serviceWorker();
  replies = cloned(said);
  for (const each of cloned([data])) heard.dispatchEvent(Object.assign(new Event("message"), { source: { id: "x" }, data: each, waitUntil: () => {} }));
  heard.dispatchEvent(Object.assign(new Event("message"), { source: { id: "page" }, data: { inpage: "hosts" } }));
  let request;
  try {
    request = new Request(new URL(url, "http://a/app/"), { method, headers, ...(["GET", "HEAD"].includes(method) ? {} : { body }) });
  } catch {
    return; // no request that a page could make
  }
  /** @type {any} */
  let answered = null;
  heard.dispatchEvent(Object.assign(new Event("fetch"), { request, clientId: "page", respondWith: (/** @type {any} */ answer) => (answered = answer) }));
  const response = await answered;
  if (!response) return;
  await response.text().catch((/** @type {unknown} */ error) => {
    if (!(error instanceof TypeError)) throw new Fault(`the body ends with ${String(error)}`); // as a fetch's does
  });
}

/** As text it would have 2 ** 60 letters. @type {unknown} */
let endless = "x";
for (let i = 0; i < 60; i++) endless = [endless, endless];

/** @param {import("./mutate.mjs").Mutator} m */
function makeRequest(m) {
  const path = m.choice(["v1/models", "v1/chat/completions", "health", "index.html"]);
  const headers = Object.entries({ origin: "http://a", "sec-fetch-site": "same-origin" }).map(([name, value]) => [name, m.chance(0.8) ? value : m.text(value).replace(/[^\x20-\x7e]/g, "")]);
  return {
    data: m.value({ inpage: "hosts" }), url: m.chance(0.4) ? m.text(path) : path, headers, method: m.choice(["GET", "POST", "PUT"]), body: m.bytes(Uint8Array.of(1, 2, 3)),
    replies: m.chance(0.2) ? [{ head: { status: 200, headers: m.choice([endless, [["a", endless]], new Array(4e9)]) } }] : damaged(OF_PAGE)(m),
  };
}

/** @type {import("./harness.mjs").Reader[]} */
export const READERS = [
  { name: "js-tab-host", make: damaged(TO_HOST), run: asHost, wild: true },
  { name: "js-tab-guest", make: damaged(TO_GUEST), run: asGuest, wild: true },
  { name: "js-tabs", make: damaged(TO_ALL), run: asTab, wild: true },
  { name: "js-page", make: (m) => m.value(OF_WORKER), run: asPage, share: 0.3 },
  { name: "js-service-worker", make: makeRequest, run: asWorker, wild: true, share: 0.3 },
];
