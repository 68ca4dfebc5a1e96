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
/** Words that `merge` says of a row. */
export const RESULT_WORDS = 8;

/** Bindings in order, and the sections of WGSL that each kernel is made of. */
const KERNELS = /** @type {const} */ ({
  adjust: { access: "xrrr", buffers: ["logits", "sequences", "rows", "tables"], sections: ["numbers"] },
  stats: { access: "rx", buffers: ["logits", "work"], sections: ["numbers", "groups", "rows"] },
  merge: { access: "rrrx", buffers: ["logits", "work", "targets", "results"], sections: ["numbers", "groups", "rows"] },
  cut: { access: "rxrr", buffers: ["logits", "work", "sequences", "rows"], sections: ["numbers", "groups", "rows", "cuts"] },
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
 */

/**
 * @param {Int32Array} sequences words of inpage_sequence structs
 * @returns {Needs}
 */
export function needsOf(sequences) {
  const floats = new Float32Array(sequences.buffer, sequences.byteOffset, sequences.length);
  const needs = { adjust: false, draw: false };
  for (let at = 0; at < sequences.length; at += SEQUENCE_WORDS) {
    if (sequences[at + SEQUENCE.n_bias] > 0 || sequences[at + SEQUENCE.mask] >= 0) needs.adjust = true;
    if (floats[at + SEQUENCE.repetition_penalty] !== 1) needs.adjust = true;
    if (floats[at + SEQUENCE.presence_penalty] !== 0 || floats[at + SEQUENCE.frequency_penalty] !== 0) needs.adjust = true;
    if (floats[at + SEQUENCE.temperature] > 0) needs.draw = true;
  }
  return needs;
}

export class Sampler {
  #gpu;
  #parts;
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
    constants.push(`const HISTORY = ${HISTORY}u;`);
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
    gpu.device.queue.writeBuffer(buffers.shape, 0, Uint32Array.of(plan.vocab, part, parts, this.masksAt));
    /** @type {Map<string, {pipeline: GPUComputePipeline, group: GPUBindGroup}>} */
    this.#kernels = new Map(
      Object.entries(KERNELS).map(([name, { buffers: names }], i) => {
        const bindings = [...names, /** @type {const} */ ("shape")].map((id) => ({ buffer: buffers[id] }));
        const { pipeline, layout } = compiled[i];
        return [name, { pipeline, group: gpu.bindGroup(name, layout, bindings) }];
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
    if (needs.draw) {
      this.#dispatch(pass, "cut", rows);
      this.#dispatch(pass, "weigh", this.#parts, rows);
    }
    this.#dispatch(pass, "draw", rows);
    this.#gpu.counters[COUNTERS.sampled] += rows;
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {Kernel} name
   * @param {number} x
   * @param {number} [y]
   */
  #dispatch(pass, name, x, y = 1) {
    const { pipeline, group } = /** @type {{pipeline: GPUComputePipeline, group: GPUBindGroup}} */ (this.#kernels.get(name));
    this.#gpu.counters[COUNTERS.dispatches]++;
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y);
  }
}

/** @param {number} vocab */
function partsOf(vocab) {
  const part = Math.max(PART, Math.ceil(vocab / MAX_PARTS / INVOCATIONS) * INVOCATIONS);
  return { part, parts: Math.ceil(vocab / part) };
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
  const { parts } = partsOf(plan.vocab);
  const tables = masksAt(plan) + sequences * maskWords(plan.vocab);
  const most = Math.max(rows, sequences);
  return {
    logits: buffers.io("logits"),
    token_ids: buffers.io("token_ids"),
    positions: buffers.io("positions"),
    work: gpu.buffer("work", most * (5 * parts + 4) * 4, STORAGE | COPY_SRC),
    sequences: gpu.buffer("sequences", most * SEQUENCE_WORDS * 4, STORAGE | COPY_DST),
    rows: gpu.buffer("rows", most * 16, STORAGE | COPY_DST),
    tables: gpu.buffer("tables", tables * 4, STORAGE | COPY_DST),
    targets: gpu.buffer("targets", most * 4, STORAGE | COPY_DST),
    results: gpu.buffer("results", most * RESULT_WORDS * 4, STORAGE | COPY_SRC),
    tokens: gpu.buffer("tokens", most * burst * 4, STORAGE | COPY_SRC),
    shape: gpu.buffer("shape", 16, UNIFORM | COPY_DST),
  };
}
