/**
 * @file What crosses between JavaScript and the GPU while the model runs: uploads through two staging buffers that take
 * turns, and read-backs through as many, so that neither waits for the step before.
 */

import { COUNTERS } from "./counters.js";
import { MAP, USAGE } from "./device.js";

/** @typedef {import("./device.js").Gpu} Gpu */

/**
 * Writes that belong to one submit: collected in a mapped buffer, copied to their places by the encoder.
 */
export class Uploads {
  /** @type {GPUBuffer[]} mapped, or about to be; the one used longest ago first */
  #staging;
  /** @type {Map<GPUBuffer, Promise<unknown>>} */
  #mapping = new Map();
  /** @type {{target: GPUBuffer, offset: number, from: number, bytes: number}[]} */
  #copies = [];
  /** @type {Int32Array | null} the mapped words of the buffer in use */
  #words = null;
  #at = 0;
  /** Whether the copies are in an encoder that was not submitted yet. */
  #recorded = false;
  #gpu;

  /**
   * @param {Gpu} gpu
   * @param {number} bytes that one submit may carry
   */
  constructor(gpu, bytes) {
    this.#gpu = gpu;
    this.#staging = [0, 1].map((i) =>
      gpu.buffer(`upload ${i}`, bytes, USAGE.MAP_WRITE | USAGE.COPY_SRC, true),
    );
  }

  /** Get ready for the next submit; waits where the GPU has not taken what was sent two submits ago. */
  async begin() {
    this.#copies = [];
    this.#at = 0;
    if (this.#words) return; // what was put was never sent
    const [buffer] = this.#staging;
    const mapping = this.#mapping.get(buffer);
    if (mapping) await this.#gpu.wait(mapping);
    this.#words = new Int32Array(buffer.getMappedRange());
  }

  /**
   * @param {GPUBuffer} target
   * @param {Int32Array | Uint32Array} words
   * @param {number} [offset] in bytes
   */
  put(target, words, offset = 0) {
    if (words.length === 0) return;
    /** @type {Int32Array} */ (this.#words).set(words, this.#at);
    this.#copies.push({ target, offset, from: this.#at * 4, bytes: words.length * 4 });
    this.#at += words.length;
  }

  /** Put the copies at the encoder's start; nothing where nothing was begun. @param {GPUCommandEncoder} encoder */
  record(encoder) {
    if (!this.#words) return;
    const [buffer] = this.#staging;
    this.#words = null;
    this.#recorded = true;
    buffer.unmap();
    for (const { target, offset, from, bytes } of this.#copies) {
      encoder.copyBufferToBuffer(buffer, from, target, offset, bytes);
    }
  }

  /** The encoder was submitted: the buffer comes back when the GPU is done with it. */
  submitted() {
    if (!this.#recorded) return;
    this.#recorded = false;
    const buffer = /** @type {GPUBuffer} */ (this.#staging.shift());
    const mapping = buffer.mapAsync(MAP.WRITE);
    mapping.catch(() => undefined); // told to whoever waits for it
    this.#mapping.set(buffer, mapping);
    this.#staging.push(buffer);
  }
}

/** Copies of GPU buffers on their way to JavaScript. */
export class ReadBack {
  #gpu;
  #staging;
  #next = 0;

  /**
   * @param {Gpu} gpu
   * @param {string} label
   * @param {number} bytes of one read-back at most
   * @param {number} [slots] read-backs under way at once
   */
  constructor(gpu, label, bytes, slots = 1) {
    this.#gpu = gpu;
    this.#staging = Array.from({ length: slots }, (_, i) =>
      gpu.buffer(`${label} ${i}`, bytes, USAGE.MAP_READ | USAGE.COPY_DST),
    );
  }

  /**
   * Copy out of `source` at the end of an encoder; after its submit, `read` what this returns.
   * @param {GPUCommandEncoder} encoder
   * @param {{source: GPUBuffer, offset: number, bytes: number}[]} ranges one behind the other
   */
  record(encoder, ranges) {
    const staging = this.#staging[this.#next];
    this.#next = (this.#next + 1) % this.#staging.length;
    let at = 0;
    for (const { source, offset, bytes } of ranges) {
      encoder.copyBufferToBuffer(source, offset, staging, at, bytes);
      at += bytes;
    }
    return { staging, bytes: at };
  }

  /**
   * @param {{staging: GPUBuffer, bytes: number}} recorded
   * @returns {Promise<Int32Array>} a copy
   */
  async read({ staging, bytes }) {
    const { counters } = this.#gpu;
    counters[COUNTERS.readbacks]++;
    counters[COUNTERS.readback_bytes] += bytes;
    await this.#gpu.wait(staging.mapAsync(MAP.READ, 0, bytes));
    const words = new Int32Array(staging.getMappedRange(0, bytes)).slice();
    staging.unmap();
    return words;
  }

  /** Give the staging buffers back. */
  end() {
    for (const buffer of this.#staging) this.#gpu.free(buffer);
  }
}
