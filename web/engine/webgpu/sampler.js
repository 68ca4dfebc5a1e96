/**
 * @file The sampler on the GPU: its kernels (sampling.wgsl, choosing.wgsl), its buffers, and which of the kernels a step
 * needs. A burst's tokens go from the last kernel straight to the inputs of the next step.
 */

import { HISTORY, MAX_BIAS, SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";
import { maskWords } from "../format/batch_limits.js";
import { place } from "../host/places.js";
import { COUNTERS } from "./counters.js";
import { USAGE } from "./device.js";
import { compile, splitKernels } from "./kernels.js";

/** Tokens of one part of a row, and the most parts there may be: one invocation reads the results of each. */
const PART = 2048;
const MAX_PARTS = 256;
const INVOCATIONS = 256;
/** Workgroups of a row in a search's turn on a CPU: one with barriers takes it milliseconds. They change no sum. */
const SOFTWARE_GROUPS = 2;
/** Words that `merge` says of a row. */
export const RESULT_WORDS = 8;
/** Bins of a search's turn: as many as let three turns tell all keys apart, within a workgroup's memory (choosing.wgsl). */
const BINS = 1664;
const KEY_TURNS = 3;
const SEARCH_WORDS = 9;
/** Bytes of a uniform block, and what lies between two: WebGPU's default alignment. */
const BLOCK = { bytes: 32, apart: 256 };

/** Bindings in order, and the sections of WGSL that each kernel is made of. */
const KERNELS = /** @type {const} */ ({
  adjust: { access: "xrrr", buffers: ["logits", "sequences", "rows", "tables"], sections: ["numbers"] },
  stats: { access: "rxx", buffers: ["logits", "work", "bins"], sections: ["numbers", "groups", "rows"] },
  merge: { access: "rrrx", buffers: ["logits", "work", "targets", "results"], sections: ["numbers", "groups", "rows"] },
  narrow: {
    access: "rxrrx",
    buffers: ["logits", "work", "sequences", "rows", "bins"],
    sections: ["numbers", "groups", "rows", "cuts", "searches"],
  },
  cut: {
    access: "xrrx",
    buffers: ["work", "sequences", "rows", "bins"],
    sections: ["numbers", "groups", "rows", "cuts", "searches"],
  },
  weigh: { access: "rxrr", buffers: ["logits", "work", "sequences", "rows"], sections: ["numbers", "groups", "rows", "cuts"] },
  draw: {
    access: "rrxxxxx",
    buffers: ["logits", "work", "sequences", "rows", "tokens", "token_ids", "positions"],
    sections: ["numbers", "groups", "rows", "cuts"],
  },
});
/** @typedef {keyof typeof KERNELS} Kernel */

/**
 * @typedef {object} Needs of the sequences in a batch
 * @property {boolean} adjust some have a bias, a mask or penalties
 * @property {boolean} draw some have a temperature
 * @property {boolean} topK and some of these top-k
 * @property {boolean} topP or top-p
 */

/**
 * @param {Int32Array} sequences words of inpage_sequence structs
 * @returns {Needs}
 */
export function needsOf(sequences) {
  const floats = new Float32Array(sequences.buffer, sequences.byteOffset, sequences.length);
  const needs = { adjust: false, draw: false, topK: false, topP: false };
  for (let at = 0; at < sequences.length; at += SEQUENCE_WORDS) {
    if (sequences[at + SEQUENCE.n_bias] > 0 || sequences[at + SEQUENCE.mask] >= 0) needs.adjust = true;
    if (floats[at + SEQUENCE.repetition_penalty] !== 1) needs.adjust = true;
    if (floats[at + SEQUENCE.presence_penalty] !== 0 || floats[at + SEQUENCE.frequency_penalty] !== 0) needs.adjust = true;
    if (!(floats[at + SEQUENCE.temperature] > 0)) continue;
    needs.draw = true;
    if (sequences[at + SEQUENCE.top_k] > 0) needs.topK = true;
    if (floats[at + SEQUENCE.top_p] < 1) needs.topP = true;
  }
  return needs;
}

export class Sampler {
  #gpu;
  #parts;
  #turns;
  #kernels;

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers of the plan
   * @param {number} burst steps whose tokens can wait to be read back
   * @returns {Promise<Sampler>}
   */
  static async create(gpu, plan, buffers, burst) {
    const sections = new Map();
    for (const file of ["sampling.wgsl", "choosing.wgsl"]) {
      const response = await fetch(place(`engine/webgpu/${file}`));
      if (!response.ok) throw new Error(`${file}: the server answers ${response.status}`);
      for (const [name, code] of splitKernels(new Uint8Array(await response.arrayBuffer()))) sections.set(name, code);
    }
    const words = { ...SEQUENCE, words: SEQUENCE_WORDS };
    const constants = Object.entries(words).map(([name, at]) => `const S_${name.toUpperCase()} = ${at}u;`);
    for (const [name, number] of Object.entries({ HISTORY, BINS, KEY_TURNS, SEARCH_WORDS, TURNS: turnsFor(plan.vocab) })) {
      constants.push(`const ${name} = ${number}u;`);
    }
    constants.push(`const ONE = ${2 ** (31 - Math.ceil(Math.log2(plan.vocab)))}.0;`);
    const kernels = Object.entries(KERNELS).map(([name, { access, sections: own }]) => ({
      name,
      access,
      code: [...constants, ...own.map((section) => sections.get(section)), sections.get(name)].join("\n"),
    }));
    const [compiled, own] = await Promise.all([
      compile(gpu, kernels),
      gpu.attempt("the sampler's buffers", () => makeBuffers(gpu, plan, buffers, burst)),
    ]);
    return new Sampler(gpu, plan, compiled, own);
  }

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./kernels.js").Compiled[]} compiled
   * @param {ReturnType<typeof makeBuffers>} buffers
   */
  constructor(gpu, plan, compiled, buffers) {
    this.#gpu = gpu;
    this.buffers = buffers;
    this.masksAt = masksAt(plan);
    const { part, parts } = partsOf(plan.vocab);
    this.#parts = parts;
    this.#turns = turnsFor(plan.vocab);
    const blocks = Array.from({ length: 2 * this.#turns }, (_, turn) => {
      gpu.device.queue.writeBuffer(buffers.shape, turn * BLOCK.apart, Uint32Array.of(plan.vocab, part, parts, this.masksAt, turn));
      return { buffer: buffers.shape, offset: turn * BLOCK.apart, size: BLOCK.bytes };
    });
    /** @type {Map<string, {pipeline: GPUComputePipeline, groups: GPUBindGroup[]}>} a bind group a turn where there are turns */
    this.#kernels = new Map(
      Object.entries(KERNELS).map(([name, { buffers: names }], i) => {
        const bindings = names.map((id) => ({ buffer: buffers[id] }));
        const { pipeline, layout } = compiled[i];
        const turns = name === "narrow" ? blocks : blocks.slice(0, 1);
        return [name, { pipeline, groups: turns.map((block) => gpu.bindGroup(name, layout, [...bindings, block])) }];
      }),
    );
  }

  /**
   * Statistics of rows of logits, as they are: into `results`, with the logits of `targets`.
   * @param {GPUComputePassEncoder} pass
   * @param {number} rows
   */
  recordResults(pass, rows) {
    this.#dispatch(pass, "stats", this.#parts, rows);
    this.#dispatch(pass, "merge", rows);
  }

  /**
   * Choose a token for each of the rows.
   * @param {GPUComputePassEncoder} pass
   * @param {number} rows
   * @param {Needs} needs
   */
  recordChoice(pass, rows, needs) {
    if (needs.adjust) this.#dispatch(pass, "adjust", rows);
    this.#dispatch(pass, "stats", this.#parts, rows);
    if (needs.topK) this.#search(pass, 0, rows);
    if (needs.topP) this.#search(pass, this.#turns, rows);
    if (needs.draw) {
      this.#dispatch(pass, "cut", rows);
      this.#dispatch(pass, "weigh", this.#parts, rows);
    }
    this.#dispatch(pass, "draw", rows);
    this.#gpu.counters[COUNTERS.sampled] += rows;
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {number} first of the search's turns
   * @param {number} rows
   */
  #search(pass, first, rows) {
    const groups = this.#gpu.facts.software ? Math.min(this.#parts, SOFTWARE_GROUPS) : this.#parts;
    for (let turn = first; turn < first + this.#turns; turn++) this.#dispatch(pass, "narrow", groups, rows, turn);
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {Kernel} name
   * @param {number} x
   * @param {number} [y]
   * @param {number} [turn]
   */
  #dispatch(pass, name, x, y = 1, turn = 0) {
    const { pipeline, groups } = /** @type {{pipeline: GPUComputePipeline, groups: GPUBindGroup[]}} */ (this.#kernels.get(name));
    this.#gpu.counters[COUNTERS.dispatches]++;
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, groups[turn]);
    pass.dispatchWorkgroups(x, y);
  }
}

/** @param {number} vocab */
function partsOf(vocab) {
  const part = Math.max(PART, Math.ceil(vocab / MAX_PARTS / INVOCATIONS) * INVOCATIONS);
  return { part, parts: Math.ceil(vocab / part) };
}

/** Dispatches of a search: over keys, then over ids. @param {number} vocab */
function turnsFor(vocab) {
  return KEY_TURNS + Math.max(1, Math.ceil(Math.log(vocab) / Math.log(BINS)));
}

/** Words of `work` for a row, and where the cut lies among them. @param {number} vocab */
export function workOf(vocab) {
  const { parts } = partsOf(vocab);
  return { words: 5 * parts + 4 + 2 * SEARCH_WORDS, cut: 5 * parts };
}

/** Where the masks start among the tables, in words. @param {import("../format/plan.js").Plan} plan */
function masksAt({ maxima }) {
  return maxima.sequences * MAX_BIAS * 2;
}

/**
 * `rows`: for each row its struct, how many tokens it chose in this burst, 1 in bursts. `tables`: bias pairs, then masks.
 * `tokens`: of a burst, [steps, rows]; of a single choice [rows] and their logits.
 * @param {import("./device.js").Gpu} gpu
 * @param {import("../format/plan.js").Plan} plan
 * @param {import("./buffers.js").Buffers} buffers
 * @param {number} burst
 */
function makeBuffers(gpu, plan, buffers, burst) {
  const { STORAGE, COPY_DST, COPY_SRC, UNIFORM } = USAGE;
  const { sequences, logit_rows: rows } = plan.maxima;
  const tables = masksAt(plan) + sequences * maskWords(plan.vocab);
  const most = Math.max(rows, sequences);
  return {
    logits: buffers.io("logits"),
    token_ids: buffers.io("token_ids"),
    positions: buffers.io("positions"),
    work: gpu.buffer("work", most * workOf(plan.vocab).words * 4, STORAGE | COPY_SRC),
    bins: gpu.buffer("bins", most * 3 * 2 * BINS * 4, STORAGE),
    sequences: gpu.buffer("sequences", most * SEQUENCE_WORDS * 4, STORAGE | COPY_DST),
    rows: gpu.buffer("rows", most * 16, STORAGE | COPY_DST),
    tables: gpu.buffer("tables", tables * 4, STORAGE | COPY_DST),
    targets: gpu.buffer("targets", most * 4, STORAGE | COPY_DST),
    results: gpu.buffer("results", most * RESULT_WORDS * 4, STORAGE | COPY_SRC),
    tokens: gpu.buffer("tokens", most * burst * 4, STORAGE | COPY_SRC),
    shape: gpu.buffer("shape", 2 * turnsFor(plan.vocab) * BLOCK.apart, UNIFORM | COPY_DST),
  };
}
