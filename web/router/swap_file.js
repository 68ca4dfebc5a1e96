/**
 * @file Where KV pages of preempted requests go beyond memory, for py/inpage/kv/swap_file.py: a file of page-sized slots in
 * the origin private file system. It is this worker's alone, and gone when it is closed; what a worker left behind that
 * was ended goes at the next start. A worker that lives holds the Web Lock of its file's name.
 */

import { EngineError } from "../engine/format/errors.js";
import { ANSWER_MS, answered, deleteFile, folderFiles, heldLocks, locksAnswer, originFolder, takeLock } from "../engine/host/site_data.js";
import { createAccess, writeAll } from "../engine/storage/opfs.js";
import { digestOf } from "../engine/storage/sha256.js";

const FOLDER = "inpage-swap";

/** @typedef {{name: string, access: import("../engine/storage/opfs.js").SyncHandle, release: () => void}} Made */

class SwapFile {
  /** Slot → SHA-256 of what was put there: not in the file, so that nothing can damage both alike. @type {Map<number, string>} */
  #digests = new Map();
  /** @type {Made | null} */
  #made = null;

  /**
   * @param {number[]} slots
   * @param {Uint8Array} data `size` bytes for each slot
   * @param {number} size
   */
  async put(slots, data, size) {
    try {
      this.#made ??= await make();
      for (const [i, slot] of slots.entries()) {
        const page = data.subarray(i * size, (i + 1) * size);
        this.#digests.set(slot, await digestOf(page));
        writeAll(this.#made.access, page, slot * size);
      }
    } catch (error) {
      throw new EngineError("storage_full", `the browser does not store swapped KV pages: ${String(error)}`, null, error);
    }
  }

  /**
   * @param {number[]} slots
   * @param {number} size bytes of each
   * @returns {Promise<Uint8Array | undefined>} undefined where one of them is not what was put
   */
  async get(slots, size) {
    const data = new Uint8Array(slots.length * size);
    try {
      for (const [i, slot] of slots.entries()) {
        const page = data.subarray(i * size, (i + 1) * size);
        const read = this.#made?.access.read(page, { at: slot * size });
        if (read !== size || (await digestOf(page)) !== this.#digests.get(slot)) return undefined;
      }
    } catch {
      return undefined;
    }
    return data;
  }

  reset() {
    this.#digests.clear();
  }

  async close() {
    const made = this.#made;
    this.#made = null;
    this.reset();
    if (made) await remove(made);
  }
}

/** @returns {SwapFile} */
export function newSwapFile() {
  sweep().catch(() => undefined);
  return new SwapFile();
}

/** @returns {Promise<Made>} rejects where storage refuses or does not answer */
async function make() {
  const name = `${crypto.randomUUID()}.bin`;
  const release = await hold(name);
  const opening = open(name);
  try {
    return { name, access: await answered(opening, ANSWER_MS, "the origin's file system"), release };
  } catch (error) {
    opening.then((access) => remove({ name, access, release }), release); // it may come late
    throw error;
  }
}

/** @param {string} name @returns {Promise<import("../engine/storage/opfs.js").SyncHandle>} */
async function open(name) {
  const folder = await (await originFolder()).getDirectoryHandle(FOLDER, { create: true });
  return createAccess(await folder.getFileHandle(name, { create: true }), "readwrite");
}

/** @param {Made} made */
async function remove({ name, access, release }) {
  access.close();
  await deleteFile(FOLDER, name).catch(() => undefined); // the next start does it
  release();
}

/** @param {string} name of a file @returns {Promise<() => void>} once it has the lock, or where there are none; gives it back. Rejects where locks refuse or do not answer */
async function hold(name) {
  if (!(await locksAnswer())) return () => undefined;
  const release = await takeLock(lockOf(name), { ifAvailable: true }, () => undefined);
  if (!release) throw new DOMException("the swap file's lock is taken", "NoModificationAllowedError");
  return release;
}

/** Remove the files of workers that are gone. Without locks, one that lives is told by its file's being open: that is not removed. */
async function sweep() {
  const files = await folderFiles(FOLDER);
  const held = files.length ? await heldLocks() : null; // after the files: who made one had its lock by then
  for (const { name } of files) {
    if (!held?.has(lockOf(name))) await deleteFile(FOLDER, name).catch(() => undefined);
  }
}

/** @param {string} name of a file */
function lockOf(name) {
  return `${FOLDER}-${name}`;
}
