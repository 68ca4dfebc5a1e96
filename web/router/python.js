/**
 * @file Python for the router worker: Pyodide with the `inpage` package imported. What its memory then holds is kept in
 * IndexedDB, so that the next start, and above all that of a router that died in mid-answer, takes it from there: half a
 * second instead of two. Keeping it is only ever a shortcut: whatever fails, Python starts from the beginning.
 *
 * A first visit shall not wait for what only chats need (py/inpage/worker/kept_memory.py). Memory cannot be kept once
 * Python knows anything of JavaScript; so when somebody was answered, memory_worker.js starts from what was kept, imports
 * the rest, and keeps that.
 */

import { version } from "../vendor/pyodide/pyodide.js";
import { digestOf, hasWebCrypto } from "../engine/storage/sha256.js";
import { place } from "../engine/host/places.js";
import { startWorker } from "../engine/host/workers.js";
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

/** What this start keeps. @type {Promise<unknown>} */
let keeping = Promise.resolve();

/**
 * @param {URL} archive of the package
 * @returns {Promise<Pyodide>}
 */
export async function startPython(archive) {
  prepare();
  const remembered = remember(noteStart);
  const { bytes, key } = await packed(archive);
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
  if (key) keeping = keep(key, pyodide);
  return pyodide;
}

/** Has the rest imported into the memory that is kept, beside the router. */
export async function renewMemory() {
  await keeping;
  if (!("Worker" in globalThis)) return;
  try {
    const { worker, end } = startWorker(place("router/memory_worker.js"), "memory", () => undefined, STALL_MS);
    worker.onmessage = end;
  } catch {
    // then later visits import it themselves
  }
}

/**
 * For memory_worker.js.
 * @param {URL} archive of the package
 * @returns {Promise<boolean>} whether what is kept now holds all
 */
export async function renew(archive) {
  const [{ bytes, key }, kept] = await Promise.all([packed(archive), remember()]);
  if (!kept?.whole || kept.key !== key) return false;
  const pyodide = await load({ _loadSnapshot: kept.memory, _makeSnapshot: true });
  pyodide.unpackArchive(bytes, "zip", { extractDir: HOME });
  pyodide.runPython("import inpage.worker.kept_memory as kept; kept.import_later(); del kept");
  return keep(key, pyodide);
}

/** @param {URL} archive of the package @returns {Promise<{bytes: ArrayBuffer, key: string}>} key: of what is kept */
async function packed(archive) {
  const response = await within(fetch(archive), STALL_MS, "fetching the package", "inpage.zip");
  if (!response.ok) throw new Error(`${archive.href}: HTTP ${response.status}`);
  const { buffer: bytes } = await bytesOf(response, "package", "fetching the package", "inpage.zip");
  return { bytes, key: await keyOf(bytes) };
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
 * @param {(key: string) => Promise<boolean>} [note] a start from it begins; gives `hung`
 * @returns {Promise<Kept | null>}
 */
async function remember(note = async () => false) {
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
  const noting = note(key);
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

/**
 * Before anything of JavaScript is known to Python.
 * @param {string} key
 * @param {Pyodide} pyodide
 * @returns {Promise<boolean>} whether it is kept
 */
async function keep(key, pyodide) {
  try {
    const memory = /** @type {{makeMemorySnapshot(): Uint8Array<ArrayBuffer>}} */ (/** @type {unknown} */ (pyodide)).makeMemorySnapshot();
    const kept = new Uint8Array(memory.length + DIGEST);
    kept.set(memory);
    kept.set(new TextEncoder().encode(await digestOf(memory)), memory.length);
    const put = await inStore(NAME, STORE, "readwrite", (store) => {
      store.clear(); // of another version
      return store.put(kept, key);
    });
    return put !== null;
  } catch (error) {
    console.warn("Python's memory is not kept:", error);
    return false;
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
