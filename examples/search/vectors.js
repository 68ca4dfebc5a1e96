/** @file Vectors side by side in WebAssembly's memory, and which of them are nearest to another: top_k.c, compiled. */

/** Of a row in memory: what the kernel takes at a time. */
const BLOCK = 16;
/** Results, at most. */
const MOST = 64;
const PAGE = 65_536;

/**
 * @typedef {{memory: WebAssembly.Memory, heap: () => number,
 *   top_k: (query: number, rows: number, count: number, blocks: number, k: number, best: number, scores: number) => number}} Kernel
 */

export class Vectors {
  #kernel;
  #best;
  #query;
  #rows = 0;
  #width = 0;
  #count = 0;

  /** @param {URL | string} url of top_k.wasm @returns {Promise<Vectors>} */
  static async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: HTTP ${response.status}`);
    const { instance } = await WebAssembly.instantiate(await response.arrayBuffer());
    return new Vectors(/** @type {any} */ (instance.exports));
  }

  /** @param {Kernel} kernel */
  constructor(kernel) {
    this.#kernel = kernel;
    this.#best = kernel.heap();
    this.#query = this.#best + 8 * MOST;
  }

  get count() {
    return this.#count;
  }

  /**
   * Add rows behind those that are there.
   * @param {Float32Array} vectors one after another, each of length 1
   * @param {number} width of each, the same in every call
   * @throws {RangeError} where memory has no room
   */
  add(vectors, width) {
    this.#width ||= width;
    if (width !== this.#width || vectors.length % width) throw new RangeError(`vectors have ${this.#width} numbers, not ${width}`);
    this.#rows = this.#query + 4 * this.#stride;
    const count = vectors.length / width;
    const { memory } = this.#kernel;
    const more = this.#rows + 4 * this.#stride * (this.#count + count) - memory.buffer.byteLength;
    if (more > 0) memory.grow(Math.ceil(more / PAGE));
    const all = this.#all();
    for (let i = 0; i < count; i++) {
      const at = (this.#count + i) * this.#stride;
      all.set(vectors.subarray(i * width, (i + 1) * width), at);
      all.fill(0, at + width, at + this.#stride);
    }
    this.#count += count;
  }

  /** @param {number} first @param {number} count of rows @returns {Float32Array} a copy of them, one after another */
  copy(first, count) {
    const all = this.#all();
    const rows = new Float32Array(count * this.#width);
    for (let i = 0; i < count; i++) {
      const at = (first + i) * this.#stride;
      rows.set(all.subarray(at, at + this.#width), i * this.#width);
    }
    return rows;
  }

  /** Take out `count` rows; those behind them move up. @param {number} first @param {number} count */
  remove(first, count) {
    this.#all().copyWithin(first * this.#stride, (first + count) * this.#stride, this.#count * this.#stride);
    this.#count -= count;
  }

  /**
   * @param {Float32Array} query of length 1
   * @param {number} k at most 64
   * @returns {{row: number, score: number}[]} the nearest, best first; score: the cosine
   */
  nearest(query, k) {
    if (!this.#count) return [];
    if (query.length !== this.#width) throw new RangeError(`vectors have ${this.#width} numbers, not ${query.length}`);
    const { memory, top_k: topK } = this.#kernel;
    const padded = new Float32Array(memory.buffer, this.#query, this.#stride);
    padded.fill(0);
    padded.set(query);
    const scores = this.#best + 4 * MOST;
    const found = topK(this.#query, this.#rows, this.#count, this.#stride / BLOCK, Math.min(k, MOST), this.#best, scores);
    const rows = new Uint32Array(memory.buffer, this.#best, found);
    return Array.from(new Float32Array(memory.buffer, scores, found), (score, i) => ({ row: rows[i], score }));
  }

  get #stride() {
    return Math.ceil(this.#width / BLOCK) * BLOCK;
  }

  #all() {
    return new Float32Array(this.#kernel.memory.buffer, this.#rows);
  }
}
