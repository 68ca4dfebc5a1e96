/**
 * @file Measures what this machine can do in this browser: memory reads and dot products, on one thread and on several
 * at once. bench/inpage_bench/peaks.py calls `measurePeaks`; the kernels are bench/inpage_bench/peaks.c.
 */

import { ROWS, WEIGHTS } from "./peaks_check.js";

/**
 * @typedef {import("./peaks_check.js").Kernel} Kernel
 * @typedef {import("./peaks_worker.js").Job} Job
 * @typedef {import("./peaks_worker.js").Done} Done
 * @typedef {{threads: number[], sizes: number[], round_ms: number, rounds: number}} Options
 *   `sizes`: bytes that all threads together read
 * @typedef {Record<string, number>} ByThreads
 * @typedef {{read: Record<string, ByThreads>, dot16: ByThreads, dot32: ByThreads, madd: ByThreads}} Rates
 *   per second: bytes by threads and size; operations (a product and its addition are two) by threads
 */

const SCRATCH = 1 << 14;
const FIRST = 1 << 20; // where the memory that is read begins
const PAGE = 1 << 16;
/** Operations of one pass over the weights: rows, products a vector, and their additions. */
const OPERATIONS = { dot16: WEIGHTS * ROWS * 16 * 2, dot32: WEIGHTS * ROWS * 16 * 2, madd: WEIGHTS * ROWS * 4 * 2 };

class Crew {
  /** @param {Worker[]} workers @param {Int32Array} control */
  constructor(workers, control) {
    this.workers = workers;
    this.control = control;
    this.arrivals = 0;
  }

  /** @param {number} threads @param {number} bytes @returns {Promise<Crew>} */
  static async hire(threads, bytes) {
    if (!globalThis.crossOriginIsolated) throw unsupported("the page is not cross-origin isolated");
    const module = await WebAssembly.compileStreaming(fetch("peaks.wasm")).catch((error) => {
      throw unsupported(`the browser refuses its kernels, most likely for want of relaxed SIMD (${error.message})`);
    });
    const pages = Math.ceil((FIRST + bytes) / PAGE);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const control = new Int32Array(new SharedArrayBuffer(64));
    const workers = Array.from({ length: threads }, () => new Worker(new URL("peaks_worker.js", import.meta.url), { type: "module" }));
    const crew = new Crew(workers, control);
    await Promise.all(workers.map((worker, i) => ask(worker, { module, memory, control, scratch: SCRATCH * (i + 1) })));
    await Promise.all(workers.map((worker, i) => ask(worker, { fill: true, ...share(bytes, i, threads) })));
    return crew;
  }

  /** @param {Kernel} kernel @param {number} threads @param {number} bytes @param {number} passes @returns {Promise<number>} ms */
  async run(kernel, threads, bytes, passes) {
    this.arrivals += threads;
    const jobs = this.workers.slice(0, threads).map((worker, i) =>
      ask(worker, { kernel, ...share(bytes, i, threads), passes, arrivals: this.arrivals }));
    const done = await Promise.all(jobs);
    return Math.max(...done.map((d) => d.ended)) - Math.min(...done.map((d) => d.begun));
  }

  /**
   * Passes a second and thread at best.
   * @param {Kernel} kernel @param {number} threads @param {number} bytes @param {Options} options
   */
  async best(kernel, threads, bytes, { round_ms, rounds }) {
    let passes = 1;
    let took = await this.run(kernel, threads, bytes, passes);
    while (took < round_ms / 4) {
      passes *= 4;
      took = await this.run(kernel, threads, bytes, passes);
    }
    passes = Math.max(1, Math.round((passes * round_ms) / took));
    let rate = 0;
    for (let round = 0; round < rounds; round++) rate = Math.max(rate, passes / (await this.run(kernel, threads, bytes, passes)));
    return rate * 1000;
  }

  dismiss() {
    for (const worker of this.workers) worker.terminate();
  }
}

/** @param {string} message */
function unsupported(message) {
  return Object.assign(new Error(message), { code: "unsupported" });
}

/** One thread's part: whole steps of 128 bytes. @param {number} bytes @param {number} i @param {number} threads */
function share(bytes, i, threads) {
  const edge = (/** @type {number} */ k) => Math.floor((bytes * k) / threads / 128) * 128;
  return { at: FIRST + edge(i), bytes: edge(i + 1) - edge(i) };
}

/** @param {Worker} worker @param {object} message @returns {Promise<Done>} */
function ask(worker, message) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
    worker.onerror = (event) => reject(new Error(`a thread failed: ${event.message}`));
    worker.postMessage(message);
  });
}

/** @param {Options} options @returns {Promise<Rates>} */
export async function measurePeaks(options) {
  const { threads, sizes } = options;
  const crew = await Crew.hire(Math.max(...threads), Math.max(...sizes));
  /** @type {Rates} */
  const rates = { read: {}, dot16: {}, dot32: {}, madd: {} };
  try {
    for (const n of threads) {
      rates.read[n] = {};
      for (const bytes of sizes) rates.read[n][bytes] = bytes * (await crew.best("read", n, bytes, options));
      for (const kernel of /** @type {const} */ (["dot16", "dot32", "madd"])) {
        rates[kernel][n] = n * OPERATIONS[kernel] * (await crew.best(kernel, n, 0, options));
      }
    }
  } finally {
    crew.dismiss();
  }
  return rates;
}
