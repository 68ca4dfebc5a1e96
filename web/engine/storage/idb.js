/**
 * @file Storage in IndexedDB, where OPFS cannot be had. A file and its record are put in one transaction when the file
 * is verified, so that it is there whole or not at all; partial files are not kept.
 */

import { done, finished, openDatabase } from "../host/site_data.js";

/** Bytes of one stored value: large enough to be fast, small enough to copy without a second of garbage. */
const PIECE = 4 * 2 ** 20;

/**
 * @param {string} name of its database
 * @returns {Promise<import("./storage.js").RawStore>} rejects where IndexedDB is missing or refused
 */
export async function openIdb(name) {
  const db = await openDatabase(name, (fresh) => {
    fresh.createObjectStore("records", { keyPath: "sha256" });
    fresh.createObjectStore("pieces"); // key [sha256, index]
  });

  /** @param {string} sha256 @returns {Promise<{bytes: number, xxh32: number} | null>} */
  const recordOf = async (sha256) => {
    const record = await done(db.transaction("records").objectStore("records").get(sha256));
    return Number.isInteger(record?.bytes) && Number.isInteger(record.xxh32) ? record : null;
  };
  return {
    kind: "idb",
    needsLock: false,
    has: async (sha256, bytes) => (await recordOf(sha256))?.bytes === bytes,
    read: async (sha256, place) => {
      const record = await recordOf(sha256);
      const target = record && place(record.bytes);
      if (!target) return null;
      const pieces = db.transaction("pieces").objectStore("pieces");
      for (let i = 0, at = 0; at < target.length; i++, at += PIECE) {
        const piece = await done(pieces.get([sha256, i]));
        if (!(piece instanceof ArrayBuffer) || piece.byteLength !== Math.min(PIECE, target.length - at)) return null;
        target.set(new Uint8Array(piece), at);
      }
      return { target, xxh32: record.xxh32 };
    },
    writer: async (sha256, bytes) => ({
      length: 0,
      resume: () => 0,
      write: () => undefined,
      truncate: () => undefined,
      close: () => undefined,
      discard: async () => undefined,
      commit: async (whole, xxh32) => {
        const transaction = db.transaction(["records", "pieces"], "readwrite");
        const pieces = transaction.objectStore("pieces");
        for (let i = 0, at = 0; at < bytes; i++, at += PIECE) {
          pieces.put(whole.slice(at, at + PIECE).buffer, [sha256, i]);
        }
        transaction.objectStore("records").put({ sha256, bytes, xxh32 });
        await finished(transaction);
      },
    }),
    delete: async (sha256) => {
      const transaction = db.transaction(["records", "pieces"], "readwrite");
      transaction.objectStore("records").delete(sha256);
      transaction.objectStore("pieces").delete(IDBKeyRange.bound([sha256], [sha256, []]));
      await finished(transaction);
    },
    list: async () => (await done(db.transaction("records").objectStore("records").getAllKeys())).map(String),
  };
}
