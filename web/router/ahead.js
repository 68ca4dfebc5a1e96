/**
 * @file What a load is going to need, begun while Python starts: the manifest, the tokenizer, and the engine that this page
 * loaded the last time for the same request, or, where that is not known, an engine's worker and the weights. Python decides
 * as ever: what it asks for is taken where that is what was begun, and loaded anew where it is not. Whatever fails here fails
 * again where the load needs it, and is told there.
 */

import { EngineClient } from "../engine/client.js";
import { object } from "../engine/format/check.js";
import { EngineError } from "../engine/format/errors.js";
import { described } from "../engine/format/manifest.js";
import { MANIFEST } from "../engine/format/schemas.js";
import { read } from "../engine/format/structure.js";
import { answered } from "../engine/host/site_data.js";
import { bytesOf, STALL_MS, within } from "../engine/host/waits.js";
import { fetchSmall } from "../engine/storage/shards.js";
import { prefetch } from "../engine/storage/prefetch.js";
import { inStore } from "./in_store.js";
import { readAhead } from "./texts.js";

/** Which engine was loaded, by the URL of the manifest. */
const DATABASE = "inpage-ahead";
const STORE = "loads";
/** No page has so many models. */
const KEPT = 64;
/** How long the weights wait for it: it is there within milliseconds, or IndexedDB is not what a start may hang on. */
const NOTE_MS = 200;

/** @typedef {import("../engine/core/protocol.js").LoadOptions} LoadOptions */
/** @typedef {Parameters<EngineClient["load"]>[0]} Given */
/**
 * @typedef {{asked: string, options: Omit<LoadOptions, "manifest">}} Note asked: the request; options: what it came to
 * @typedef {object} FirstLoad
 * @property {string} asked the request
 * @property {string} url of its manifest
 * @property {string} manifest
 * @property {Set<RouterEngine>} loaded its engines, the oldest first
 * @property {RouterEngine | null} noted of those, the one that the note speaks of
 */

/** The manifest that is under way, for the one who asks first. @type {{url: string, text: Promise<string>} | null} */
let early = null;
/** The tokenizer's file, likewise. @type {{sha256: string, content: Promise<Uint8Array<ArrayBuffer>>} | null} */
let earlyTokenizer = null;
/** @type {RouterEngine | null} */
let spare = null;
/** @type {FirstLoad | null} */
let first = null;

/**
 * An engine whose load is noted for `prepareLoad` of the next visit, where it is the one that runs: the first, and then the
 * one that outlives it. One that is loaded beside another is only tried. One that takes over when none is left is not what
 * the next visit begins with, or the one that was lost is not: nothing is noted then, unless it is the same once more.
 */
class RouterEngine extends EngineClient {
  /** @type {Note["options"] | null} what is noted of it */
  #options = null;
  /** @type {FirstLoad | null} whose it is */
  #of = null;

  /** @param {Given} given */
  async load(given) {
    const info = await super.load(given);
    const { manifest, ...options } = given;
    delete options.onProgress;
    delete options.signal;
    if (first && first.manifest === manifest && first.url === `${options.base}manifest.json`) {
      this.#of = first;
      const { loaded, noted } = first;
      const takesOver = noted !== null && loaded.size === 0 && noted.#options?.variant !== options.variant;
      // As many as could be started, where so many are the fastest: the next visit need not try again.
      const most = Math.max(info.threads, ...Object.keys(info.threads_measured ?? {}).map(Number));
      const threads = options.threads ?? (!info.adapter && info.threads === most ? most : null);
      this.#options = takesOver ? null : { ...options, threads };
      loaded.add(this);
      RouterEngine.#settle(first);
    }
    return info;
  }

  /** @param {string[]} names */
  chooseKernels(names) {
    if (this.#options) this.#options.kernels = names;
    if (this.#of?.noted === this) this.#note(this.#of);
    return super.chooseKernels(names);
  }

  unload() {
    if (this.#of?.loaded.delete(this)) RouterEngine.#settle(this.#of);
    return super.unload();
  }

  /** @param {FirstLoad} of */
  static #settle(of) {
    const [oldest] = of.loaded;
    if (!oldest || oldest === of.noted) return;
    of.noted = oldest;
    oldest.#note(of);
  }

  /** @param {FirstLoad} of */
  #note({ url, asked }) {
    const note = this.#options && { asked, options: this.#options };
    void inStore(DATABASE, STORE, "readwrite", (store) => {
      if (!note) return /** @type {IDBRequest<any>} */ (store.delete(url));
      const count = store.count();
      count.onsuccess = () => count.result > KEPT && store.clear();
      return store.put(note, url);
    });
  }
}

/** @param {{artifact: string} & Record<string, unknown>} request artifact: URL of the model's folder; behind "#" stands a level */
export function prepareLoad({ id: _, ...request }) {
  const base = request.artifact.replace(/\/?(#.*)?$/, "/");
  const url = `${base}manifest.json`;
  const text = fetchText(url, "manifest", "manifest.json");
  early = { url, text };
  const engine = (spare = new RouterEngine());
  // A worker gets its first message when it has begun, and when this thread is not at something long: it shall have begun by then.
  text.then(() => spare === engine && engine.warm()).catch(() => undefined);
  const asked = JSON.stringify(request);
  const known = text.then((manifest) => {
    first = { asked, url, manifest, loaded: new Set(), noted: null };
    bringTokenizer(base, manifest);
    return manifest;
  });
  const noted = request.artifact.includes("#") ? Promise.resolve(null) : taken(url);
  const begins = (/** @type {string} */ manifest, /** @type {Note | null} */ note) => {
    if (note?.asked !== asked) return false;
    engine.begin({ ...note.options, manifest });
    return true;
  };
  Promise.all([known, answered(noted, NOTE_MS, "IndexedDB").catch(() => null)]).then(async ([manifest, soon]) => {
    if (spare !== engine || begins(manifest, soon)) return; // Python may have been there sooner
    prefetch(base, manifest);
    const late = await noted; // this thread may have been at something long
    if (spare === engine) begins(manifest, late);
  }).catch(() => undefined);
}

/**
 * The note of an earlier visit. It is gone until that load has ended well again: one that ends the page does so only once.
 * @param {string} url @returns {Promise<Note | null>}
 */
async function taken(url) {
  /** @type {IDBRequest<any> | undefined} */
  let found;
  await inStore(DATABASE, STORE, "readwrite", (store) => {
    found = store.get(url);
    return store.delete(url);
  });
  const note = found?.readyState === "done" && !found.error ? found.result : null;
  return typeof note?.asked === "string" && typeof note.options === "object" ? note : null;
}

/** @returns {EngineClient} */
export function newEngine() {
  const made = spare ?? new RouterEngine();
  spare = null;
  return made;
}

/** @param {string} base @param {string} manifest */
function bringTokenizer(base, manifest) {
  const { tokenizer, architecture } = object(described(manifest), "manifest");
  const entry = read(tokenizer, MANIFEST, "tokenizer", "tokenizer");
  const { file, bytes, sha256 } = entry.tables ?? entry;
  const content = fetchSmall(base, { file, bytes, sha256, field: "tokenizer" });
  const { vocab } = /** @type {{vocab?: unknown}} */ (architecture ?? {});
  content.then((found) => entry.tables && Number.isInteger(vocab) && readAhead(found, Number(vocab))).catch(() => undefined);
  earlyTokenizer = { sha256, content };
}

/**
 * @param {string} base
 * @param {import("../engine/format/manifest.js").FileEntry} entry of the tokenizer, checked
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export function fetchTokenizerFile(base, entry) {
  const found = earlyTokenizer?.sha256 === entry.sha256 ? earlyTokenizer.content : null;
  earlyTokenizer = null;
  return found ?? fetchSmall(base, entry);
}

/**
 * The text of a JSON file whose hash nobody knows beforehand. It is checked in Python, which knows the schema.
 * @param {string} url
 * @param {keyof typeof import("../engine/format/limits.js").FILE_BYTES} kind
 * @param {string} field what it is, for errors
 * @returns {Promise<string>}
 */
export function fetchJson(url, kind, field) {
  const found = early?.url === url ? early.text : null;
  if (found) early = null;
  return found ?? fetchText(url, kind, field);
}

/** @param {string} url @param {keyof typeof import("../engine/format/limits.js").FILE_BYTES} kind @param {string} field @returns {Promise<string>} */
async function fetchText(url, kind, field) {
  try {
    const response = await within(fetch(url, { cache: "no-cache" }), STALL_MS, url, field);
    if (response.status === 404) throw new EngineError("artifact_invalid", `there is nothing at ${url}`, field);
    if (!response.ok) throw new EngineError("network", `${url}: HTTP ${response.status}`, field);
    return new TextDecoder().decode(await bytesOf(response, kind, url, field));
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${url}: ${String(error)}`, field, error);
  }
}
