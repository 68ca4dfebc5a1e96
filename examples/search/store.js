/** @file Files between visits, in IndexedDB: a record each, written and removed as a whole. */

import { done, finished, isSilence, openDatabase } from "../../engine/host/site_data.js";

/**
 * @typedef {object} Stored
 * @property {string} name
 * @property {string} sha256 of the text
 * @property {string} made by which embedder, from which passages
 * @property {string} text
 * @property {import("./chunks.js").Span[]} spans of the passages
 * @property {Float32Array} vectors of the passages, one after another
 */

const FILES = "files";

export class Store {
  #database;

  /** @returns {Promise<Store | null>} null where the browser keeps nothing */
  static async open() {
    try {
      return new Store(await openDatabase("inpage-search", (database) => void database.createObjectStore(FILES, { keyPath: "name" })));
    } catch {
      return null;
    }
  }

  /** @param {IDBDatabase} database */
  constructor(database) {
    this.#database = database;
  }

  /**
   * Without what storage does not give: a search over the rest is better than none.
   * @returns {AsyncGenerator<Stored>} those that are whole, one at a time: together they may be large
   */
  async *all() {
    for (const key of await this.#keys()) {
      let record;
      try {
        record = await done(this.#files("readonly").get(key));
        if (!isStored(record)) await this.delete(String(key));
      } catch (error) {
        if (isSilence(error)) return; // or each of many would be waited for
      }
      if (isStored(record)) yield record;
    }
  }

  async #keys() {
    try {
      return await done(this.#files("readonly").getAllKeys());
    } catch {
      return [];
    }
  }

  /** @param {Stored} record */
  async put(record) {
    const files = this.#files("readwrite");
    files.put(record);
    await finished(files.transaction);
  }

  /** @param {string} name */
  async delete(name) {
    const files = this.#files("readwrite");
    files.delete(name);
    await finished(files.transaction);
  }

  /** @param {IDBTransactionMode} mode */
  #files(mode) {
    return this.#database.transaction(FILES, mode).objectStore(FILES);
  }
}

/** What comes from storage is looked at before it is used. @param {any} record @returns {record is Stored} */
function isStored(record) {
  if (!["name", "sha256", "made", "text"].every((field) => typeof record?.[field] === "string")) return false;
  const { text, spans, vectors } = record;
  const isSpan = (/** @type {any} */ span) => Number.isInteger(span?.start) && Number.isInteger(span.end) && 0 <= span.start && span.start < span.end && span.end <= text.length;
  if (!Array.isArray(spans) || !spans.length || !spans.every(isSpan)) return false;
  return vectors instanceof Float32Array && vectors.length > 0 && vectors.length % spans.length === 0;
}
