/**
 * @file Python for the router worker: Pyodide with the `inpage` package imported. What its memory then holds is kept in
 * IndexedDB, so that the next start, and above all that of a router that died in mid-answer, takes it from there: half a
 * second instead of two. Keeping it is only ever a shortcut: whatever fails, Python starts from the beginning.
 */

import { loadPyodide, version } from "../vendor/pyodide/pyodide.mjs";
import { readBounded } from "../engine/limits.js";
import { inStore } from "./in_store.js";

const NAME = "inpage-python";
const STORE = "memory";
/** Where the package lies in Python's file system. */
const HOME = "/inpage";

/** @typedef {Awaited<ReturnType<typeof loadPyodide>>} Pyodide */

/**
 * @param {URL} archive of the package
 * @returns {Promise<Pyodide>}
 */
export async function startPython(archive) {
  const response = await fetch(archive);
  if (!response.ok) throw new Error(`${archive.href}: HTTP ${response.status}`);
  const { buffer: bytes } = await readBounded(response, "package", archive.href, null);
  const key = await keyOf(bytes);
  const kept = key && (await inStore(NAME, STORE, "readonly", (store) => store.get(key)));
  if (kept instanceof Uint8Array) {
    try {
      const pyodide = await load({ _loadSnapshot: kept });
      pyodide.unpackArchive(bytes, "zip", { extractDir: HOME }); // for what is imported later
      pyodide.runPython("import random; random.seed()"); // its state came with the rest
      return pyodide;
    } catch (error) {
      console.warn("Python starts from the beginning:", error);
      await inStore(NAME, STORE, "readwrite", (store) => store.clear());
    }
  }
  const pyodide = await load(key ? { _makeSnapshot: true } : {});
  pyodide.unpackArchive(bytes, "zip", { extractDir: HOME });
  pyodide.runPython(`import sys; sys.path.insert(0, "${HOME}"); import inpage.page`);
  if (key) keep(key, pyodide);
  return pyodide;
}

/** @param {object} options of loadPyodide that its types do not have @returns {Promise<Pyodide>} */
function load(options) {
  return loadPyodide({ indexURL: new URL("../vendor/pyodide/", import.meta.url).href, ...options });
}

/** Before anything of JavaScript is known to Python. @param {string} key @param {Pyodide} pyodide */
function keep(key, pyodide) {
  try {
    const memory = /** @type {{makeMemorySnapshot(): Uint8Array}} */ (/** @type {unknown} */ (pyodide)).makeMemorySnapshot();
    void inStore(NAME, STORE, "readwrite", (store) => {
      store.clear(); // of another version
      return store.put(memory, key);
    });
  } catch (error) {
    console.warn("Python's memory is not kept:", error);
  }
}

/**
 * Memory is good for the same Pyodide and the same package only.
 * @param {ArrayBuffer} bytes of the package
 * @returns {Promise<string>} empty where nothing can be hashed (plain http)
 */
async function keyOf(bytes) {
  const { subtle } = /** @type {Partial<Crypto>} */ (globalThis.crypto);
  if (!subtle) return "";
  const hash = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return `${version} ${Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
