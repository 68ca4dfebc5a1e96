/**
 * @file A database of one store in IndexedDB for what may be lost: whatever fails here reads as "nothing was kept".
 */

import { done, finished } from "../engine/idb.js";

/**
 * @template T
 * @param {string} name of the database
 * @param {string} store
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
 * @returns {Promise<T | null>} null where the browser refuses
 */
export async function inStore(name, store, mode, ask) {
  try {
    const opening = indexedDB.open(name, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(store);
    const database = await done(opening);
    try {
      const transaction = database.transaction(store, mode);
      const request = ask(transaction.objectStore(store));
      await finished(transaction);
      return request.result;
    } finally {
      database.close();
    }
  } catch {
    return null;
  }
}
