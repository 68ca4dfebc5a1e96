/**
 * @file Python for the router worker: Pyodide with the `inpage` package imported. What its memory then holds is kept in
 * IndexedDB, so that the next start, and above all that of a router that died in mid-answer, takes it from there: half a
 * second instead of two. Keeping it is only ever a shortcut: whatever fails, Python starts from the beginning.
 */

import { version } from "../vendor/pyodide/pyodide.js";
import { digestOf, hasWebCrypto } from "../engine/storage/sha256.js";
import { inStore } from "./in_store.js";
import { load, prepare } from "./pyodide.js";
import { bytesOf, STALL_MS, within } from "../engine/host/waits.js";

const NAME = "inpage-python";
const STORE = "memory";
/** Where the package lies in Python's file system. */
const HOME = "/inpage";

/** How long to wait for the browser's answer: starting from the beginning takes no longer. */
const OPEN_MS = 1000;
/** A start from memory takes half a second. One that was begun so long ago and has not ended never will. */
const HANGS_MS = 5000;
/** Where the start that is under way is noted. */
const STARTS = "inpage-starts";
/** Behind the memory lies its SHA-256, as text. */
const DIGEST = 64;

/** @typedef {Awaited<ReturnType<typeof load>>} Pyodide */

/**
 * @param {URL} archive of the package
 * @returns {Promise<Pyodide>}
 */
export async function startPython(archive) {
  prepare();
  const remembered = remember();
  const response = await within(fetch(archive), STALL_MS, "fetching the package", "inpage.zip");
  if (!response.ok) throw new Error(`${archive.href}: HTTP ${response.status}`);
  const { buffer: bytes } = await bytesOf(response, "package", "fetching the package", "inpage.zip");
  const key = await keyOf(bytes);
  const kept = key && (await recall(key, await remembered));
  if (kept) {
    try {
      const pyodide = await load({ _loadSnapshot: kept });
      pyodide.unpackArchive(bytes, "zip", { extractDir: HOME }); // for what is imported later
      pyodide.runPython("import random; random.seed()"); // its state came with the rest
      void inStore(STARTS, STORE, "readwrite", (store) => store.delete(key));
      return pyodide;
    } catch (error) {
      console.warn("Python starts from the beginning:", error);
      await forget(key);
    }
  }
  const pyodide = await load(key ? { _makeSnapshot: true } : {});
  pyodide.unpackArchive(bytes, "zip", { extractDir: HOME });
  pyodide.runPython(`import sys; sys.path.insert(0, "${HOME}"); import inpage.worker.messages`);
  if (key) void keep(key, pyodide);
  return pyodide;
}

/**
 * @typedef {object} Kept
 * @property {string} key what it is good for
 * @property {Uint8Array} memory
 * @property {boolean} whole it hashes to what was kept beside it: a few flipped bytes of Python's memory make starts hang
 * @property {boolean} hung the last start from it never ended. So that one which hangs all the same does so only once, it
 *   is noted when a start from it begins, and struck out when it has ended
 */

/**
 * What was kept, whatever for: that is known when the package was read.
 * @returns {Promise<Kept | null>}
 */
async function remember() {
  if (!hasWebCrypto()) return null;
  /** @type {IDBRequest<IDBValidKey[]> | undefined} */
  let keys;
  const found = await inStore(NAME, STORE, "readonly", (store) => {
    keys = store.getAllKeys(null, 1);
    return store.getAll(null, 1);
  }, OPEN_MS);
  const key = keys?.readyState === "done" ? String(keys.result[0]) : "";
  const kept = found?.[0];
  if (!kept) return null;
  const noting = noteStart(key);
  const memory = kept instanceof Uint8Array ? kept.subarray(0, -DIGEST) : new Uint8Array(0);
  const said = kept instanceof Uint8Array ? new TextDecoder().decode(kept.subarray(-DIGEST)) : "";
  return { key, memory, whole: (await digestOf(memory)) === said, hung: await noting };
}

/**
 * @param {string} key
 * @param {Kept | null} kept
 * @returns {Promise<Uint8Array | null>} what was kept, if it is what was kept, and for this
 */
async function recall(key, kept) {
  if (!kept) return null;
  if (kept.key === key && kept.whole && !kept.hung) return kept.memory;
  if (kept.key === key) {
    const why = kept.hung ? "the last start from its kept memory never ended" : "its kept memory is damaged";
    console.warn(`Python starts from the beginning: ${why}`);
  }
  await forget(kept.key);
  return null;
}

/** @param {string} key @returns {Promise<boolean>} whether an earlier start from this memory never ended */
async function noteStart(key) {
  /** @type {IDBRequest<unknown> | undefined} */
  let before;
  await inStore(STARTS, STORE, "readwrite", (store) => {
    before = store.get(key);
    return store.put(Date.now(), key);
  });
  const began = before?.readyState === "done" && !before.error ? before.result : null;
  return typeof began === "number" && Math.abs(Date.now() - began) > HANGS_MS;
}

/** @param {string} key */
async function forget(key) {
  await inStore(NAME, STORE, "readwrite", (store) => store.clear());
  await inStore(STARTS, STORE, "readwrite", (store) => store.delete(key));
}

/** Before anything of JavaScript is known to Python. @param {string} key @param {Pyodide} pyodide */
async function keep(key, pyodide) {
  try {
    const memory = /** @type {{makeMemorySnapshot(): Uint8Array<ArrayBuffer>}} */ (/** @type {unknown} */ (pyodide)).makeMemorySnapshot();
    const kept = new Uint8Array(memory.length + DIGEST);
    kept.set(memory);
    kept.set(new TextEncoder().encode(await digestOf(memory)), memory.length);
    await inStore(NAME, STORE, "readwrite", (store) => {
      store.clear(); // of another version
      return store.put(kept, key);
    });
  } catch (error) {
    console.warn("Python's memory is not kept:", error);
  }
}

/**
 * Memory is good for the same Pyodide and the same package only.
 * @param {ArrayBuffer} bytes of the package
 * @returns {Promise<string>} empty where nothing can be hashed fast (plain http)
 */
async function keyOf(bytes) {
  return hasWebCrypto() ? `${version} ${await digestOf(new Uint8Array(bytes))}` : "";
}
