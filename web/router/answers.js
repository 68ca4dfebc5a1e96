/**
 * @file Answers kept in IndexedDB, for py/inpage/responses/indexeddb.py: compressed bytes under a key, with the tags they
 * depend on, bounded in bytes, least recently used first out.
 */

import { done, finished } from "../engine/idb.js";

const DATABASE = "inpage-answers";

/** @typedef {{key: string, value: Uint8Array, tags: string[]}} Row */
/** @typedef {{key: string, bytes: number, used: number}} Use apart from the rows: it changes with every look-up */

const STORES = ["rows", "uses"];

/** @type {Promise<IDBDatabase> | null} */
let opened = null;
/** Rises with every use, so that uses within one millisecond have an order. */
let clock = 0;

/** @returns {Promise<IDBDatabase>} */
function database() {
  opened ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("rows", { keyPath: "key" }).createIndex("tags", "tags", { multiEntry: true });
      opening.result.createObjectStore("uses", { keyPath: "key" }).createIndex("used", "used");
    };
    opening.onsuccess = () => {
      // Another tab that upgrades or deletes the database must not wait for this one.
      opening.result.onversionchange = () => {
        opening.result.close();
        opened = null;
      };
      resolve(opening.result);
    };
    opening.onerror = () => {
      opened = null;
      reject(opening.error);
    };
  });
  return opened;
}

function now() {
  clock = Math.max(clock + 0.001, Date.now());
  return clock;
}

/**
 * @param {string} key
 * @returns {Promise<Uint8Array | null>}
 */
export async function answerGet(key) {
  const transaction = (await database()).transaction(STORES, "readwrite");
  /** @type {Row | undefined} */
  const row = await done(transaction.objectStore("rows").get(key));
  if (!row) return null;
  transaction.objectStore("uses").put({ key, bytes: row.value.length, used: now() });
  return row.value;
}

/**
 * @param {string} key
 * @param {Uint8Array} value
 * @param {string[]} tags
 * @param {number} budget bytes that all values together may have
 */
export async function answerPut(key, value, tags, budget) {
  const transaction = (await database()).transaction(STORES, "readwrite");
  const [rows, uses] = STORES.map((name) => transaction.objectStore(name));
  rows.put({ key, value, tags: [...new Set(tags)] });
  uses.put({ key, bytes: value.length, used: now() });
  /** @type {Use[]} */
  const all = await done(uses.index("used").getAll());
  let total = all.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const old of all) {
    if (total <= budget) break;
    for (const store of [rows, uses]) store.delete(old.key);
    total -= old.bytes;
  }
  await finished(transaction);
}

/** @param {string[]} keys */
export async function answerRemove(keys) {
  const transaction = (await database()).transaction(STORES, "readwrite");
  for (const name of STORES) for (const key of keys) transaction.objectStore(name).delete(key);
  await finished(transaction);
}

/**
 * @param {string | null | undefined} tag all answers if not given
 * @returns {Promise<number>} how many went
 */
export async function answerInvalidate(tag) {
  const transaction = (await database()).transaction(STORES, "readwrite");
  const rows = transaction.objectStore("rows");
  const keys = await done(tag ? rows.index("tags").getAllKeys(tag) : rows.getAllKeys());
  for (const name of STORES) for (const key of keys) transaction.objectStore(name).delete(key);
  await finished(transaction);
  return keys.length;
}
