/**
 * @file Small texts that Python keeps from visit to visit (measurements, faults), in IndexedDB. Losing them costs a
 * measurement, so whatever fails here reads as "nothing was kept".
 */

import { finished } from "../engine/idb.js";

const NAME = "inpage-notes";
const STORE = "notes";

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
 * @returns {Promise<T | null>}
 */
async function inStore(mode, ask) {
  try {
    const database = await open();
    try {
      const transaction = database.transaction(STORE, mode);
      const request = ask(transaction.objectStore(STORE));
      await finished(transaction);
      return request.result;
    } finally {
      database.close();
    }
  } catch {
    return null;
  }
}

/** @param {string} key @returns {Promise<string>} empty where nothing was kept */
export async function readNote(key) {
  const value = await inStore("readonly", (store) => store.get(key));
  return typeof value === "string" ? value : "";
}

/** @param {string} key @param {string} text */
export async function writeNote(key, text) {
  await inStore("readwrite", (store) => store.put(text, key));
}
