/**
 * @file Rows in IndexedDB, bounded in bytes, least recently used first out: what answers.js and pages.js keep. A
 * transaction puts a row and its use together, so a row is there whole or not at all.
 */

import { done, finished, openDatabase } from "../engine/host/site_data.js";

/** @typedef {{key: string, value: Uint8Array<ArrayBuffer>, tags: string[]}} Row */
/** @typedef {{key: string, bytes: number, used: number}} Use apart from the rows: it changes with every look-up */

const STORES = ["rows", "uses"];

export class Rows {
  #name;
  /** @type {Promise<IDBDatabase> | null} */
  #opened = null;
  /** Rises with every use, so that uses within one millisecond have an order. */
  #clock = 0;

  /** @param {string} name of the database */
  constructor(name) {
    this.#name = name;
  }

  /**
   * @param {string[]} keys
   * @returns {Promise<(Uint8Array<ArrayBuffer> | null)[]>}
   */
  async get(keys) {
    const transaction = await this.#transaction("readwrite");
    const [rows, uses] = STORES.map((name) => transaction.objectStore(name));
    /** @type {(Row | undefined)[]} */
    const found = await Promise.all(keys.map((key) => done(rows.get(key))));
    const values = found.map((row) => (row?.value instanceof Uint8Array ? row.value : null)); // what else lies there counts as nothing
    for (const [i, value] of values.entries()) if (value) uses.put({ key: keys[i], bytes: value.length, used: this.#now() });
    return values;
  }

  /**
   * @param {Row[]} given
   * @param {number} budget bytes that all values together may have
   */
  async put(given, budget) {
    const transaction = await this.#transaction("readwrite");
    const [rows, uses] = STORES.map((name) => transaction.objectStore(name));
    for (const { key, value, tags } of given) {
      rows.put({ key, value, tags: [...new Set(tags)] });
      uses.put({ key, bytes: value.length, used: this.#now() });
    }
    /** @type {Use[]} */
    const all = await done(uses.index("used").getAll());
    let total = all.reduce((sum, { bytes }) => sum + sizeOf(bytes), 0);
    for (const old of all) {
      if (total <= budget) break;
      for (const store of [rows, uses]) store.delete(old.key);
      total -= sizeOf(old.bytes);
    }
    await finished(transaction);
  }

  /** @param {string[]} keys */
  async remove(keys) {
    const transaction = await this.#transaction("readwrite");
    for (const name of STORES) for (const key of keys) transaction.objectStore(name).delete(key);
    await finished(transaction);
  }

  /** @param {string} tag @returns {Promise<string[]>} keys of the rows that have it */
  async tagged(tag) {
    const transaction = await this.#transaction("readonly");
    return /** @type {string[]} */ (await done(transaction.objectStore("rows").index("tags").getAllKeys(tag)));
  }

  /** @param {string} start @returns {Promise<string[]>} keys that begin so, the most recently used first */
  async beginning(start) {
    const transaction = await this.#transaction("readonly");
    /** @type {Use[]} */
    const all = await done(transaction.objectStore("uses").index("used").getAll());
    return all.map(({ key }) => key).filter((key) => typeof key === "string" && key.startsWith(start)).reverse();
  }

  /** @param {IDBTransactionMode} mode */
  async #transaction(mode) {
    return (await this.#database()).transaction(STORES, mode);
  }

  /** @returns {Promise<IDBDatabase>} */
  #database() {
    this.#opened ??= openDatabase(this.#name, (fresh) => {
      fresh.createObjectStore("rows", { keyPath: "key" }).createIndex("tags", "tags", { multiEntry: true });
      fresh.createObjectStore("uses", { keyPath: "key" }).createIndex("used", "used");
    }).then(
      (database) => {
        // Closed for another tab's sake or by the browser: opened again when it is needed.
        const forget = () => (this.#opened = null);
        database.addEventListener("versionchange", forget);
        database.addEventListener("close", forget);
        return database;
      },
      (error) => {
        this.#opened = null;
        throw error;
      },
    );
    return this.#opened;
  }

  #now() {
    this.#clock = Math.max(this.#clock + 0.001, Date.now());
    return this.#clock;
  }
}

/** What damage may have made of it. @param {unknown} bytes @returns {number} */
function sizeOf(bytes) {
  return typeof bytes === "number" && bytes >= 0 ? bytes : 0;
}
