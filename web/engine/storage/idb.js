/**
 * @file Storage in IndexedDB, where OPFS cannot be had. A file and its record are put in one transaction when the file
 * is verified, so that it is there whole or not at all; partial files are not kept.
 */

import { done, finished, openDatabase } from "../host/site_data.js";

/** Bytes of one stored value: large enough to be fast, small enough to copy without a second of garbage. */
const PIECE = 4 * 2 ** 20;

/**
 * @param {string} name of its database
 * @returns {Promise<import("./storage.js").Store>} rejects where IndexedDB is missing or refused
 */
export async function openIdb(name) {
  const db = await openDatabase(name, (fresh) => {
    fresh.createObjectStore("records", { keyPath: "sha256" });
    fresh.createObjectStore("pieces"); // key [sha256, index]
  });

  /** @param {string} sha256 @param {number} bytes */
  const has = async (sha256, bytes) => {
    const record = await done(db.transaction("records").objectStore("records").get(sha256));
    return record !== undefined && record.bytes === bytes;
  };
  return {
    kind: "idb",
    needsLock: false,
    has,
    read: async (sha256, target) => {
      if (!(await has(sha256, target.length))) return false;
      const pieces = db.transaction("pieces").objectStore("pieces");
      for (let i = 0, at = 0; at < target.length; i++, at += PIECE) {
        const piece = await done(pieces.get([sha256, i]));
        if (!(piece instanceof ArrayBuffer) || piece.byteLength !== Math.min(PIECE, target.length - at)) return false;
        target.set(new Uint8Array(piece), at);
      }
      return true;
    },
    writer: async (sha256, bytes) => ({
      length: 0,
      resume: () => 0,
      write: () => undefined,
      truncate: () => undefined,
      close: () => undefined,
      discard: async () => undefined,
      commit: async (whole) => {
        const transaction = db.transaction(["records", "pieces"], "readwrite");
        const pieces = transaction.objectStore("pieces");
        for (let i = 0, at = 0; at < bytes; i++, at += PIECE) {
          pieces.put(whole.slice(at, at + PIECE).buffer, [sha256, i]);
        }
        transaction.objectStore("records").put({ sha256, bytes });
        await finished(transaction);
      },
    }),
    delete: async (sha256) => {
      const transaction = db.transaction(["records", "pieces"], "readwrite");
      transaction.objectStore("records").delete(sha256);
      transaction.objectStore("pieces").delete(IDBKeyRange.bound([sha256], [sha256, []]));
      await finished(transaction);
    },
    list: async () => {
      const records = await done(db.transaction("records").objectStore("records").getAll());
      return records.map(({ sha256, bytes }) => ({ sha256, bytes, committed: true }));
    },
  };
}
