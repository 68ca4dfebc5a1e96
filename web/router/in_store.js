/**
 * @file A database of one store in IndexedDB for what may be lost: whatever fails here reads as "nothing was kept".
 */

import { ANSWER_MS, finished, openDatabase } from "../engine/host/site_data.js";

/**
 * @template T
 * @param {string} name of the database
 * @param {string} store
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
 * @param {number} [ms] how long to wait for the browser to open it
 * @returns {Promise<T | null>} null where the browser refuses or does not answer
 */
export async function inStore(name, store, mode, ask, ms = ANSWER_MS) {
  try {
    const database = await openDatabase(name, (fresh) => fresh.createObjectStore(store), ms);
    try {
      const transaction = database.transaction(store, mode);
      const request = ask(transaction.objectStore(store));
      await finished(transaction, ANSWER_MS);
      return request.result;
    } finally {
      database.close();
    }
  } catch {
    return null;
  }
}
