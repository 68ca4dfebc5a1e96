/**
 * @file Browser storage for the files of models, behind one small interface. Files are keyed by their SHA-256, so that
 * models, revisions and backends that hold the same bytes share them and never get each other's.
 *
 * A file is trusted only once its record {sha256, bytes} is committed, which happens after its hash was verified. What
 * lies there without a record is a partial file: whoever resumes it hashes it again. Writers of one file hold its Web
 * Lock (`withLock`), so that two tabs cannot mix their bytes.
 */

import { openIdb } from "./storage_idb.js";
import { openOpfs } from "./storage_opfs.js";

/**
 * @typedef {{sha256: string, bytes: number, committed: boolean}} StoredFile bytes: those that are there
 * @typedef {object} FileWriter
 * @property {number} length bytes of a partial file found
 * @property {(target: Uint8Array) => number} resume copies the partial file's start into target, says how many bytes
 * @property {(chunk: Uint8Array, offset: number) => void} write may throw QuotaExceededError
 * @property {() => void} truncate forget what was written
 * @property {(whole: Uint8Array) => Promise<void>} commit the file is complete and verified; closes
 * @property {() => void} close keeps a partial file
 * @property {() => Promise<void>} discard removes it
 * @typedef {object} Store
 * @property {"opfs" | "idb"} kind
 * @property {boolean} needsLock writers must hold the file's lock (otherwise commit is one transaction)
 * @property {(sha256: string, bytes: number) => Promise<boolean>} has a committed file of this length
 * @property {(sha256: string, target: Uint8Array) => Promise<boolean>} read fills target from a committed file of its
 *   length; false where there is none
 * @property {(sha256: string, bytes: number) => Promise<FileWriter>} writer
 * @property {(sha256: string) => Promise<void>} delete
 * @property {() => Promise<StoredFile[]>} list
 */

/** How long to wait for another tab that is writing the same file before going on without storing it. */
const LOCK_WAIT_MS = 30_000;

/**
 * The best store this browser has.
 * @param {boolean | "opfs" | "idb"} wanted true: OPFS, else IndexedDB; false: none
 * @returns {Promise<Store | null>} null where there is none, or access is denied (private windows)
 */
export async function openStore(wanted) {
  const kinds = wanted === true ? ["opfs", "idb"] : [wanted];
  for (const kind of kinds) {
    try {
      if (kind === "opfs") return await openOpfs();
      if (kind === "idb") return await openIdb();
    } catch {
      // Not there, or refused: the next kind, and in the end none. Loading works without storage.
    }
  }
  return null;
}

/**
 * Bytes this origin uses and may use; null where the browser does not tell.
 * @returns {Promise<{usage: number, quota: number} | null>}
 */
export async function storageUsage() {
  const estimate = await navigator.storage?.estimate?.();
  return estimate ? { usage: estimate.usage ?? 0, quota: estimate.quota ?? 0 } : null;
}

/**
 * Run `body` while holding the file's lock across all tabs of the origin.
 * @template T
 * @param {string} sha256
 * @param {AbortSignal} signal
 * @param {(held: boolean) => Promise<T>} body held: false where locks are absent or another tab kept it too long
 * @returns {Promise<T>}
 */
export async function withLock(sha256, signal, body) {
  if (!navigator.locks) return body(false);
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), LOCK_WAIT_MS);
  let started = false;
  try {
    return await navigator.locks.request(
      `inpage-file-${sha256}`,
      { signal: AbortSignal.any([signal, timeout.signal]) },
      () => {
        started = true;
        clearTimeout(timer);
        return body(true);
      },
    );
  } catch (error) {
    if (started || signal.aborted || !timeout.signal.aborted) throw error;
    return body(false);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Whether an exception of a store means that there is no room.
 * @param {unknown} error
 */
export function isQuotaError(error) {
  return error instanceof Error && error.name === "QuotaExceededError";
}
