/**
 * @file Runs single kernels in the page, on a program of one launch, and compares what they leave in memory with what
 * kernel_cases.py wrote: every output element within its tolerance, three threads' shares bit for bit as one thread,
 * nothing written outside of the outputs.
 */

import { fromHalf } from "../../../web/engine/core/halves.js";
import { importedMemory } from "../../../web/engine/wasm/memory.js";

/**
 * @typedef {{name: string, bytes: number, input?: number, dtype?: "float32" | "int8" | "int16" | "float16", want?: number, tolerance?: number, count?: number}} CaseBuffer
 *   offsets into the .bin file; without `input` it holds poison before, without `want` it must stay as it was
 * @typedef {{family: string, name: string, kernel: number, scalars: number[], buffers: CaseBuffer[]}} Case
 * @typedef {{cases: number, elements: number, failures: string[]}} Report
 */

const GUARD = 256;
const POISON = 0xa5;
/** Failures told of one case. */
const TOLD = 3;

class Bench {
  /**
   * @param {Case[]} cases
   * @param {ArrayBuffer} data
   * @param {WebAssembly.Memory} memory
   * @param {import("../../../web/engine/format/abi.js").KernelExports} exports
   */
  constructor(cases, data, memory, exports) {
    this.cases = cases;
    this.data = data;
    this.memory = memory;
    this.exports = exports;
    this.bytes = new Uint8Array(memory.buffer);
    this.words = new Int32Array(memory.buffer);
  }

  /** @param {string} url without extension @returns {Promise<Bench>} */
  static async load(url) {
    const [code, cases, data] = await Promise.all([
      fetch(`${url}.wasm`).then((response) => response.arrayBuffer()),
      fetch(`${url}.json`).then((response) => response.json()),
      fetch(`${url}.bin`).then((response) => response.arrayBuffer()),
    ]);
    const { initial } = importedMemory(new Uint8Array(code));
    const most = Math.max(...cases.map((/** @type {Case} */ c) => c.buffers.reduce((sum, b) => sum + b.bytes + 3 * GUARD, 0)));
    const pages = initial + Math.ceil(most / 65536) + 1;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const { instance } = await WebAssembly.instantiate(code, { env: { memory } });
    return new Bench(cases, data, memory, /** @type {any} */ (instance.exports));
  }

  /** @param {string} family @returns {Report} */
  run(family) {
    /** @type {Report} */
    const report = { cases: 0, elements: 0, failures: [] };
    for (const one of this.cases) {
      if (one.family !== family) continue;
      const whole = this.#launch(one, one.kernel * 2);
      const wrong = one.buffers.flatMap((buffer, i) => this.#compare(buffer, whole[i]));
      const shares = this.#launch(one, one.kernel * 2 + 1);
      one.buffers.forEach(({ name }, i) => {
        if (!same(whole[i], shares[i])) wrong.push(`${name}: three shares differ from the whole`);
      });
      report.failures.push(...wrong.slice(0, TOLD).map((line) => `${one.name}: ${line}`));
      report.cases++;
      report.elements += one.buffers.reduce((sum, { count = 0 }) => sum + count, 0);
    }
    return report;
  }

  /**
   * @param {Case} one
   * @param {number} kernel index in the table
   * @returns {Uint8Array[]} each buffer afterwards, its guards on both sides included
   */
  #launch({ buffers, scalars }, kernel) {
    const { exports, words, bytes } = this;
    const base = Math.ceil(Number(exports.__heap_base.value) / GUARD) * GUARD;
    const program = [1, 1, 1, kernel, buffers.length, ...buffers.keys(), scalars.length, ...scalars.flatMap((value) => [0, value])];
    // Table, program, io and one word for all of the runtime's own buffers: each gets a part of the first 4 KiB.
    const [table, code, io, idle] = [0, 1024, 2048, 3072].map((at) => (base + at) / 4);
    bytes.fill(0, base, base + 4096);
    let at = base + 4096;
    const places = buffers.map((buffer) => {
      const start = at + GUARD;
      at = Math.ceil((start + buffer.bytes) / GUARD) * GUARD + GUARD;
      bytes.fill(POISON, start - GUARD, at);
      if (buffer.input !== undefined) bytes.set(new Uint8Array(this.data, buffer.input, buffer.bytes), start);
      return start;
    });
    words.set([...places, idle * 4], table);
    words.set(program, code);
    words.set([...Array(6).fill(buffers.length), 1, 1, 1, 1, 1], io);
    const loaded = exports.inpage_load(table * 4, buffers.length + 1, code * 4, program.length, io * 4);
    if (loaded !== 0) throw new Error(`inpage_load: ${loaded}`);
    exports.inpage_set_threads(1);
    const stepped = exports.inpage_step(1, 1, 1);
    if (stepped !== 0) throw new Error(`inpage_step: ${stepped}`);
    return places.map((start, i) => bytes.slice(start - GUARD, start + buffers[i].bytes + GUARD));
  }

  /**
   * @param {CaseBuffer} buffer
   * @param {Uint8Array} after with guards
   * @returns {string[]} what is wrong
   */
  #compare({ name, bytes, input, dtype, want, tolerance, count }, after) {
    const wrong = [];
    const outside = [...after.subarray(0, GUARD), ...after.subarray(GUARD + bytes)];
    if (outside.some((byte) => byte !== POISON)) wrong.push(`${name}: written outside`);
    const content = after.slice(GUARD, GUARD + bytes);
    if (dtype === undefined) {
      if (!same(content, new Uint8Array(this.data, input, bytes))) wrong.push(`${name}: an input was written`);
      return wrong;
    }
    const got = values(content, dtype);
    const wanted = new Float64Array(this.data, want, count);
    const room = new Float64Array(this.data, tolerance, count);
    for (let i = 0; i < wanted.length; i++) {
      const off = Math.abs(got(i) - wanted[i]);
      if (!(off <= room[i])) wrong.push(`${name}[${i}] is ${got(i)}, not ${wanted[i]} ± ${room[i]}`);
    }
    return wrong;
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {string} dtype
 * @returns {(i: number) => number}
 */
function values({ buffer }, dtype) {
  const view = new DataView(buffer);
  switch (dtype) {
    case "float32":
      return (i) => view.getFloat32(i * 4, true);
    case "int8":
      return (i) => view.getInt8(i);
    case "int16":
      return (i) => view.getInt16(i * 2, true);
    case "float16":
      return (i) => fromHalf(view.getUint16(i * 2, true));
    default:
      throw new Error(`dtype ${dtype}`);
  }
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function same(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

const lab = {
  /** @type {Bench | null} */
  bench: null,
  /** @param {string} url of a module's files, without extension @returns {Promise<Record<string, number>>} cases by family */
  async load(url) {
    lab.bench = await Bench.load(url);
    /** @type {Record<string, number>} */
    const families = {};
    for (const { family } of lab.bench.cases) families[family] = (families[family] ?? 0) + 1;
    return families;
  },
  /** @param {string} family @returns {Report} */
  run: (family) => /** @type {Bench} */ (lab.bench).run(family),
};

/** @type {any} */ (globalThis).lab = lab;
