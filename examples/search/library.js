/**
 * @file The files that are searched: cut into passages, embedded, kept with their vectors, and found by a query's vector.
 * What is unchanged is not embedded again; what another embedder made, or another way to cut, is made anew.
 */

import { CHUNKING, chunks } from "./chunks.js";
import { Vectors } from "./vectors.js";

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./store.js").Stored} Stored
 * @typedef {{signal?: AbortSignal, onProgress?: (done: number, total: number) => void}} Progress
 * @typedef {(texts: string[], how: Progress & {priority?: number}) => Promise<Float32Array[]>} Embed
 * @typedef {{name: string, text: string, score: number}} Passage
 */

/** Of one file: what is embedded in some minutes on a slow machine. */
export const MOST_BYTES = 4e6;
/** Below 0, files wait for questions, which are asked meanwhile. */
const PRIORITY = -1;

export class Library {
  #embed;
  #made;
  #store;
  #vectors;
  /** In the order of their vectors, which lie in #vectors. @type {Omit<Stored, "vectors">[]} */
  #files = [];
  /** Made by another embedder: to be made anew. @type {Omit<Stored, "vectors">[]} */
  #stale = [];
  /** Names of those that are not in storage. @type {Set<string>} */
  #unkept = new Set();

  /**
   * @param {{embed: Embed, embedder: string, store: Store | null, kernel: URL | string}} parts embedder: which it is
   * @returns {Promise<Library>} with the files of the visits before
   */
  static async open({ embed, embedder, store, kernel }) {
    const library = new Library(embed, `${embedder} ${CHUNKING}`, store, await Vectors.load(kernel));
    let width = 0; // as the embedder has it: what was stored may be damaged
    for await (const { vectors, ...file } of store?.all() ?? []) {
      if (file.made === library.#made) width ||= (await embed(["."], {}))[0].length;
      try {
        if (file.made !== library.#made || vectors.length !== file.spans.length * width) library.#stale.push(file);
        else library.#take(file, vectors);
      } catch {
        library.#stale.push(file); // memory has no room for it
      }
    }
    return library;
  }

  /** @param {Embed} embed @param {string} made @param {Store | null} store @param {Vectors} vectors */
  constructor(embed, made, store, vectors) {
    this.#embed = embed;
    this.#made = made;
    this.#store = store;
    this.#vectors = vectors;
  }

  /** @returns {{name: string, passages: number}[]} by name */
  get files() {
    return this.#files.map(({ name, spans }) => ({ name, passages: spans.length })).sort((a, b) => a.name.localeCompare(b.name));
  }

  /** Names of those that another embedder made, or another way to cut. @returns {string[]} */
  get stale() {
    return this.#stale.map(({ name }) => name);
  }

  /**
   * A file takes the place of one of the same name.
   * @param {string} name
   * @param {string} text
   * @param {Progress} [how]
   * @returns {Promise<"added" | "unchanged" | "not kept">} not kept: it can be searched, but storage has no room for it
   */
  async add(name, text, { signal, onProgress } = {}) {
    const sha256 = await hash(text);
    const same = this.#place(name);
    if (same?.file.sha256 === sha256) {
      if (!this.#unkept.has(name)) return "unchanged";
      return this.#keep({ ...same.file, vectors: this.#vectors.copy(same.row, same.rows) }); // there may be room now
    }
    const spans = chunks(text);
    if (!spans.length) throw new Error("there is no text in it");
    const each = await this.#embed(spans.map((span) => slice(text, span)), { signal, onProgress, priority: PRIORITY });
    const vectors = new Float32Array(each.length * each[0].length);
    each.forEach((vector, i) => vectors.set(vector, i * vector.length));
    const file = { name, sha256, made: this.#made, text, spans };
    const before = this.#place(name);
    this.#take(file, vectors); // first, as it can fail: what was there stays then
    this.#drop(name, before);
    return this.#keep({ ...file, vectors });
  }

  /** Make a stale file anew. @param {string} name @param {Progress} [how] */
  async renew(name, how) {
    const file = this.#stale.find((stale) => stale.name === name);
    return file && this.add(name, file.text, how);
  }

  /** @param {string} name */
  async remove(name) {
    this.#drop(name, this.#place(name));
    await this.#store?.delete(name);
  }

  /**
   * @param {string} query
   * @param {number} k
   * @param {Progress} [how]
   * @returns {Promise<Passage[]>} the best first
   */
  async search(query, k, how = {}) {
    const [vector] = await this.#embed([query], how);
    return this.#vectors.nearest(vector, k).map(({ row, score }) => ({ ...this.#passage(row), score }));
  }

  /** @param {number} row */
  #passage(row) {
    let file = 0;
    for (; row >= this.#files[file].spans.length; file++) row -= this.#files[file].spans.length;
    const { name, text, spans } = this.#files[file];
    return { name, text: slice(text, spans[row]) };
  }

  /** @param {Omit<Stored, "vectors">} file @param {Float32Array} vectors of its passages */
  #take(file, vectors) {
    this.#vectors.add(vectors, vectors.length / file.spans.length);
    this.#files.push(file);
  }

  /** Of those that can be searched, and of its vectors. @param {string} name */
  #place(name) {
    let row = 0;
    for (const [index, file] of this.#files.entries()) {
      const rows = file.spans.length;
      if (file.name === name) return { file, index, row, rows };
      row += rows;
    }
    return null;
  }

  /** @param {string} name @param {{index: number, row: number, rows: number} | null} place */
  #drop(name, place) {
    this.#stale = this.#stale.filter((file) => file.name !== name);
    this.#unkept.delete(name);
    if (!place) return;
    this.#vectors.remove(place.row, place.rows);
    this.#files.splice(place.index, 1);
  }

  /** @param {Stored} file @returns {Promise<"added" | "not kept">} */
  async #keep(file) {
    this.#unkept.add(file.name);
    try {
      await this.#store?.put(file);
      if (!this.#store) return "not kept";
      this.#unkept.delete(file.name);
      return "added";
    } catch {
      await this.#store?.delete(file.name).catch(() => {}); // what was there is of an earlier text
      return "not kept";
    }
  }
}

/**
 * @param {File} file
 * @returns {Promise<string>}
 * @throws {Error} where it is no text, or too much of it
 */
export async function readText(file) {
  if (file.size > MOST_BYTES) throw new Error(`it has ${(file.size / 1e6).toFixed(1)} MB, and ${MOST_BYTES / 1e6} MB is the most`);
  const bytes = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text.replaceAll("\r\n", "\n");
  } catch {
    // as any other
  }
  throw new Error("it is no text in UTF-8");
}

/** @param {string} text @param {import("./chunks.js").Span} span */
function slice(text, { start, end }) {
  return text.slice(start, end).trim();
}

/** @param {string} text @returns {Promise<string>} */
async function hash(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
