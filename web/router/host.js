/**
 * @file What Python in the page needs of JavaScript: files, the tokenizer, the probe and the engine. worker.js registers it
 * as the Python module `inpage_host`; py/inpage/host/browser.py is its only way in. Whatever crosses here costs under a microsecond a call, so calls are per text or per burst, never per token.
 */

import { toWire } from "../engine/format/errors.js";
import { probe } from "../engine/core/features.js";
import { fetchSmall } from "../engine/storage/shards.js";
import { openStore } from "../engine/storage/storage.js";
import { storageSpace } from "../engine/host/site_data.js";
import { probeAdapter, probeMemory } from "./adapter.js";
import { fetchTokenizerFile } from "./ahead.js";
import { Aside } from "./aside.js";
import { outlined, tokenizer } from "./texts.js";

export { fetchJson, newEngine } from "./ahead.js";
export { answerGet, answerInvalidate, answerPut, answerRemove } from "./answers.js";
export { pagesGet, pagesNames, pagesPut } from "./pages.js";
export { newSwapFile } from "./swap_file.js";
export { readNote, writeNote } from "./notes.js";

/**
 * What this browser and device have: see engine/core/features.js and adapter.js.
 * @param {GPUPowerPreference} power
 * @returns {Promise<object>}
 */
export async function probeDevice(power) {
  const [gpu, space] = await Promise.all([probeAdapter(power), storageSpace()]);
  const { userAgent } = globalThis.navigator;
  return { ...probe(), ...gpu, space, userAgent };
}

/** Bytes that a WebAssembly memory may have: an experiment, for reports only. @returns {number} */
export function largestMemory() {
  return probeMemory(probe().threads);
}

/**
 * A User Timing measure, for the browser's profiler.
 * @param {string} name
 * @param {number} began milliseconds ago
 * @param {number} ended milliseconds ago
 */
export function measure(name, began, ended) {
  const now = performance.now();
  performance.measure(name, { start: Math.max(0, now - began), end: Math.max(0, now - ended) });
}

/**
 * A URL as the page means it; workers have other addresses.
 * @param {string} url
 * @returns {string}
 */
export function absolute(url) {
  const page = /** @type {{document?: {baseURI: string}}} */ (/** @type {unknown} */ (globalThis)).document;
  return new URL(url, page?.baseURI ?? globalThis.location.href).href;
}

/**
 * A small file of the artifact as text: verified, kept in storage, resumed like a shard.
 * @param {string} base URL of the artifact's folder, ending in "/"
 * @param {string} file
 * @param {number} bytes
 * @param {string} sha256
 * @param {string} field of the manifest
 * @returns {Promise<string>}
 */
export async function fetchText(base, file, bytes, sha256, field) {
  return new TextDecoder().decode(await fetchSmall(base, { file, bytes, sha256, field }));
}

/**
 * Whether all of these files lie in storage, so that loading them downloads nothing.
 * @param {[sha256: string, bytes: number][]} files
 * @returns {Promise<boolean>} false where storage does not answer
 */
export async function areStored(files) {
  const store = await openStore(true);
  try {
    for (const [sha256, bytes] of files) if (!(await store?.has(sha256, bytes))) return false;
    return true;
  } catch {
    return false;
  }
}

/**
 * @typedef {ReturnType<typeof tokenizer> & {encodeAside(texts: string[]): Promise<import("./texts.js").Encoded>}} MadeTokenizer
 */

/**
 * A tokenizer's file for `readTokenizer`: nothing of it passes through Python.
 * @param {string} base URL of the artifact's folder, ending in "/"
 * @param {string} file
 * @param {number} bytes
 * @param {string} sha256
 * @param {boolean} tables whether it holds those, else it is a tokenizer.json
 * @returns {Promise<{content: string | Uint8Array<ArrayBuffer>}>}
 */
export async function fetchTokenizer(base, file, bytes, sha256, tables) {
  const content = await fetchTokenizerFile(base, { file, bytes, sha256, field: "tokenizer" });
  return { content: tables ? content : new TextDecoder().decode(content) };
}

/**
 * @param {string | {content: string | Uint8Array<ArrayBuffer>}} file as `fetchTokenizer` gave it, or the text of a tokenizer.json
 * @param {number} characters at most
 * @param {number} items values at most
 * @param {number} depth at most
 * @param {number} [ids] at most
 * @returns {{outline: string, make(changed: string): MadeTokenizer}} see `outlined`
 */
export function readTokenizer(file, characters, items, depth, ids) {
  const { outline, described, tables } = outlined(typeof file === "string" ? file : file.content, { characters, items, depth, ids });
  return { outline, make: (changed) => makeTokenizer(described(changed), tables) };
}

/**
 * @param {import("./texts.js").Description} description
 * @param {import("./texts.js").Outlined["tables"]} tables
 * @returns {MadeTokenizer}
 */
function makeTokenizer(description, tables) {
  const here = tokenizer(description, tables);
  const aside = new Aside({ tokenizer: description }, ({ texts }) => here.encode(texts));
  return { ...here, encodeAside: (texts) => aside.call({ texts }) };
}

/**
 * How an error that JavaScript raised reads in Python: JSON of `{code, message, field}`.
 * @param {unknown} error
 * @returns {string}
 */
export function describeError(error) {
  return JSON.stringify(toWire(error));
}
