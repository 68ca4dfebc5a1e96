/**
 * @file Browser storage for the files of models, behind one small interface. Files are keyed by their SHA-256, so that
 * models, revisions and backends that hold the same bytes share them and never get each other's.
 *
 * A file counts as whole once its record {sha256, bytes, xxh32} is committed, which happens after its SHA-256 was verified;
 * what comes back is checked again, here, since disks and browsers damage files. What lies there without a record is a
 * partial file: whoever resumes it hashes it again. Writers of one file hold its Web Lock (`withLock`), so that two tabs
 * cannot mix their bytes.
 */

import { ANSWER_MS, answered, isSilence, storageSpace, withLock as withSiteLock, WRITE_MS } from "../host/site_data.js";
import { xxh32 } from "./checksum.js";
import { openIdb } from "./idb.js";
import { openOpfs } from "./opfs.js";

/**
 * @typedef {(bytes: number) => Uint8Array | null} Place where so many bytes are to go; null: nowhere, it is another length that is wanted
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
 * @property {(sha256: string, place: Place) => Promise<Found>} read a committed file
 * @property {(sha256: string, bytes: number) => Promise<FileWriter>} writer
 * @property {(sha256: string) => Promise<void>} delete
 * @property {() => Promise<string[]>} list hashes of the files that are there, whole or not
 *
 * @typedef {"whole" | "damaged" | "absent"} Found damaged: what its place holds now is not what was committed
 *
 * @typedef {object} RawStore what a kind of storage does by itself
 * @property {Store["kind"]} kind
 * @property {boolean} needsLock
 * @property {Store["has"]} has
 * @property {(sha256: string, place: Place) => Promise<{target: Uint8Array, xxh32: number} | null>} read xxh32: recorded
 * @property {(sha256: string, bytes: number) => Promise<Omit<FileWriter, "commit"> & {commit: (whole: Uint8Array, xxh32: number) => Promise<void>}>} writer
 * @property {Store["delete"]} delete
 * @property {Store["list"]} list
 */

/** How long to wait for another tab that is writing the same file before going on without storing it. */
const LOCK_WAIT_MS = 30_000;

/** Of models' files. */
const FILES = "inpage-files";

/**
 * The best store this browser has.
 * @param {boolean | "opfs" | "idb"} wanted true: OPFS, else IndexedDB; false: none
 * @param {string} [name] of the folder or the database
 * @returns {Promise<Store | null>} null where there is none, access is denied (private windows), or nothing answers
 */
export async function openStore(wanted, name = FILES) {
  const kinds = wanted === true ? ["opfs", "idb"] : [wanted];
  for (const kind of kinds) {
    try {
      if (kind === "opfs") return careful(await answered(openOpfs(name), ANSWER_MS, "OPFS"));
      if (kind === "idb") return careful(await answered(openIdb(name), ANSWER_MS, "IndexedDB"));
    } catch (error) {
      // Not there, or refused: the next kind, and in the end none. Loading works without storage. Where one is silent,
      // the other is too, and a visitor has waited long enough.
      if (isSilence(error)) break;
    }
  }
  return null;
}

/**
 * A store that believes nothing of what it reads, and waits for no answer for ever, and, once there was none, for no other.
 * @param {RawStore} store
 * @returns {Store}
 */
function careful(store) {
  /** @type {unknown} */
  let silence = null;
  /**
   * @template T
   * @param {number} ms
   * @param {() => Promise<T>} ask
   * @returns {Promise<T>}
   */
  const within = async (ms, ask) => {
    if (silence) throw silence;
    try {
      return await answered(ask(), ms, `storage (${store.kind})`);
    } catch (error) {
      if (isSilence(error)) silence = error;
      throw error;
    }
  };
  return {
    kind: store.kind,
    needsLock: store.needsLock,
    has: (sha256, bytes) => within(ANSWER_MS, () => store.has(sha256, bytes)),
    read: async (sha256, place) => {
      const found = await within(WRITE_MS, () => store.read(sha256, place));
      if (!found) return "absent";
      return xxh32(found.target) === found.xxh32 ? "whole" : "damaged";
    },
    delete: (sha256) => within(ANSWER_MS, () => store.delete(sha256)),
    list: () => within(ANSWER_MS, () => store.list()),
    writer: async (sha256, bytes) => {
      const opening = store.writer(sha256, bytes);
      const writer = await within(ANSWER_MS, () => opening).catch((error) => {
        opening.then((late) => late.close(), () => undefined); // or nothing else could write this file
        throw error;
      });
      return {
        ...writer,
        commit: (whole) => within(WRITE_MS, () => writer.commit(whole, xxh32(whole))),
        discard: () => within(ANSWER_MS, () => writer.discard()),
      };
    },
  };
}

/**
 * Bytes this origin uses and may use; null where the browser does not tell.
 * @returns {Promise<{usage: number, quota: number} | null>}
 */
export async function storageUsage() {
  const { usage, quota } = await storageSpace();
  return usage === null || quota === null ? null : { usage, quota };
}

/**
 * Run `body` while holding the file's lock across all tabs of the origin.
 * @template T
 * @param {string} sha256
 * @param {AbortSignal} signal
 * @param {(held: boolean) => Promise<T>} body held: false where locks are absent or another tab kept it too long
 * @returns {Promise<T>}
 */
export function withLock(sha256, signal, body) {
  return withSiteLock(`inpage-file-${sha256}`, signal, LOCK_WAIT_MS, body);
}

/**
 * For `Store.read`: into this, which is exactly the file's length.
 * @param {Uint8Array} target
 * @returns {Place}
 */
export function into(target) {
  return (bytes) => (bytes === target.length ? target : null);
}

/**
 * Whether an exception of a store means that there is no room.
 * @param {unknown} error
 */
export function isQuotaError(error) {
  return error instanceof Error && error.name === "QuotaExceededError";
}
