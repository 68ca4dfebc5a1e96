/**
 * @file Python for the router worker: Pyodide with the `inpage` package imported. What its memory then holds is kept
 * (kept_memory.js), so that the next start, and above all that of a router that died in mid-answer, takes it from there:
 * half a second instead of two. A first visit takes what comes with the site, where that comes soon enough (snapshot.js).
 * Both are only ever a shortcut: whatever fails, Python starts from the beginning.
 *
 * A first visit that does shall not wait for what only chats need (py/inpage/worker/kept_memory.py). Memory cannot be kept
 * once Python knows anything of JavaScript; so when somebody was answered, memory_worker.js starts from what was kept,
 * imports the rest, and keeps that.
 */

import { place } from "../engine/host/places.js";
import { startWorker } from "../engine/host/workers.js";
import { bytesOf, STALL_MS, within } from "../engine/host/waits.js";
import { forget, keep, keyOf, memoryOf, notePlain, noteStart, remember, strikeOut, withKey } from "./kept_memory.js";
import { load, prepare } from "./pyodide.js";
import { bring } from "./snapshot.js";

/** Where the package lies in Python's file system, packed as it is: most of it is never read. */
const HOME = "/inpage.zip";
const WORKER = "router/memory_worker.js";
const HUNG = "the last start from it never ended";

/** @typedef {Awaited<ReturnType<typeof load>>} Pyodide */

/** What this start is to keep, until `keepMemory`. @type {Uint8Array<ArrayBuffer> | null} */
let held = null;
/** @type {Promise<unknown>} */
let keeping = Promise.resolve();

/**
 * @param {URL} archive of the package
 * @returns {Promise<{pyodide: Pyodide, how: string}>} how: what it was started from, and why
 */
export async function startPython(archive) {
  const { line } = prepare();
  const remembered = remember(noteStart);
  const { bytes, key } = await packed(archive);
  const kept = await recall(key, await remembered);
  const pyodide = await restored(kept, bytes);
  if (pyodide) return { pyodide, how: "restored from this browser's storage" };
  const brought = kept.why ? kept : await bring(key, line);
  if (brought.bytes && (await noteStart(brought.sha256))) Object.assign(brought, { bytes: null, why: HUNG });
  const begun = await restored(brought, bytes);
  if (!begun || !brought.bytes) return { pyodide: await begin(bytes, key), how: `started without a snapshot: ${brought.why}` };
  held = brought.bytes;
  return { pyodide: begun, how: `restored from a snapshot: ${brought.why}` };
}

/**
 * @param {import("./snapshot.js").Brought} from
 * @param {Uint8Array<ArrayBuffer>} archive
 * @returns {Promise<Pyodide | null>} null where there is nothing to start from, or it fails: `why` says so
 */
async function restored(from, archive) {
  if (!from.bytes) return null;
  try {
    const pyodide = await load({ _loadSnapshot: memoryOf(from.bytes) });
    pyodide.FS.writeFile(HOME, archive); // for what is imported later
    pyodide.runPython("import inpage.worker.kept_memory as kept; kept.renew_chance(); del kept");
    void strikeOut(from.sha256);
    return pyodide;
  } catch (error) {
    from.why = `a snapshot failed: ${String(error)}`;
    console.warn("Python starts from the beginning:", error);
    await Promise.all([forget(), strikeOut(from.sha256)]);
    return null;
  }
}

/** @param {Uint8Array<ArrayBuffer>} archive @param {string} key @returns {Promise<Pyodide>} */
async function begin(archive, key) {
  let began = performance.now();
  void prepare().come.then(() => (began = performance.now())); // what a line takes is another matter
  const pyodide = await load(key ? { _makeSnapshot: true } : {});
  pyodide.FS.writeFile(HOME, archive);
  pyodide.runPython(`import sys; sys.path.insert(0, "${HOME}"); import inpage.worker.messages`);
  if (!key) return pyodide;
  void notePlain(performance.now() - began);
  held = snapped(pyodide, key);
  return pyodide;
}

/** Has the memory kept that this start began with. To hash and write it takes what a load needs, so a load goes first. */
export function keepMemory() {
  if (held) keeping = handOver(held);
  held = null;
}

/** Has the rest imported into the memory that is kept, beside the router. */
export async function renewMemory() {
  await keeping;
  if ("Worker" in globalThis) await atWork(null).catch(() => false); // else later visits import it themselves
}

/** @param {Uint8Array<ArrayBuffer>} bytes to be kept, by a worker: hashing and writing them would keep this one @returns {Promise<boolean>} */
async function handOver(bytes) {
  try {
    return await ("Worker" in globalThis ? atWork(bytes) : keep(bytes));
  } catch (error) {
    console.warn("Python's memory is not kept:", error);
    return false;
  }
}

/**
 * @param {Uint8Array<ArrayBuffer> | null} bytes what memory_worker.js is to keep; null: what is kept, with the rest imported
 * @returns {Promise<boolean>} whether it is kept
 */
function atWork(bytes) {
  return new Promise((resolve, reject) => {
    const { worker, end } = startWorker(place(WORKER), "memory", reject, STALL_MS);
    worker.onmessage = ({ data }) => {
      end();
      resolve(data.kept);
    };
    worker.postMessage({ bytes }, bytes ? [bytes.buffer] : []);
  });
}

/**
 * For memory_worker.js.
 * @param {URL} archive of the package
 * @returns {Promise<boolean>} whether what is kept now holds all
 */
export async function renew(archive) {
  const [{ bytes, key }, kept] = await Promise.all([packed(archive), remember()]);
  if (!kept?.whole || kept.key !== key) return false;
  const pyodide = await load({ _loadSnapshot: memoryOf(kept.bytes), _makeSnapshot: true });
  pyodide.FS.writeFile(HOME, bytes);
  pyodide.runPython("import inpage.worker.kept_memory as kept; kept.import_later(); del kept");
  const renewed = snapped(pyodide, key);
  return renewed !== null && keep(renewed);
}

/** @param {URL} archive of the package @returns {Promise<{bytes: Uint8Array<ArrayBuffer>, key: string}>} key: of what is kept */
async function packed(archive) {
  const response = await within(fetch(archive), STALL_MS, "fetching the package", "inpage.zip");
  if (!response.ok) throw new Error(`${archive.href}: HTTP ${response.status}`);
  const bytes = await bytesOf(response, "package", "fetching the package", "inpage.zip");
  return { bytes, key: await keyOf(bytes) };
}

/**
 * @param {string} key
 * @param {import("./kept_memory.js").Kept | null} kept
 * @returns {Promise<import("./snapshot.js").Brought>} what was kept, if it is what was kept, and for this; why: where no other
 *   is to be tried
 */
async function recall(key, kept) {
  const none = { bytes: null, sha256: "", why: key ? "" : "nothing can be hashed here" };
  if (!kept) return none;
  const { sha256, bytes, whole, hung } = kept;
  if (whole && kept.key === key && !hung) return { sha256, bytes, why: "" };
  if (hung || !whole) console.warn(`Python's kept memory is not used: ${hung ? HUNG : "it is damaged"}`);
  await Promise.all([forget(), strikeOut(sha256)]);
  return hung ? { ...none, why: HUNG } : none;
}

/**
 * Before anything of JavaScript is known to Python.
 * @param {Pyodide} pyodide
 * @param {string} key
 * @returns {Uint8Array<ArrayBuffer> | null}
 */
function snapped(pyodide, key) {
  try {
    const { makeMemorySnapshot } = /** @type {{makeMemorySnapshot(): Uint8Array}} */ (/** @type {unknown} */ (pyodide));
    return withKey(makeMemorySnapshot(), key);
  } catch (error) {
    console.warn("Python's memory is not kept:", error);
    return null;
  }
}
