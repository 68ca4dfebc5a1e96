/** @file What a step or a burst takes in, put where the kernels read it. */

import { checkSequences } from "../core/batch.js";
import { MAX_BIAS, SEQUENCE_WORDS } from "../format/abi.js";
import { maskWords } from "../format/batch_limits.js";
import { EngineError } from "../format/errors.js";
import { needsOf } from "./sampler.js";
import { Uploads } from "./transfer.js";

/** @typedef {{bias?: Int32Array, mask?: Uint32Array}} Tables that structs refer to */

/**
 * @param {Int32Array} sequences structs
 * @param {Tables} tables
 * @param {import("../format/plan.js").Plan} plan
 * @returns {import("./sampler.js").Needs} of their choice
 * @throws {EngineError} invalid_request
 */
export function checkChoice(sequences, { bias, mask }, plan) {
  const words = bias?.length ?? 0;
  const most = plan.maxima.sequences * MAX_BIAS;
  checkSequences(sequences, plan, words, mask?.length ?? 0);
  if (words > most * 2) throw new EngineError("invalid_request", `bias: has more than ${most} pairs`, "bias");
  return needsOf(sequences);
}

export class Inputs {
  #buffers;
  #sampler;

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers
   * @param {import("./sampler.js").Sampler} sampler
   * @param {number} uniformBytes that come with them
   */
  constructor(gpu, plan, buffers, sampler, uniformBytes) {
    this.#buffers = buffers;
    this.#sampler = sampler;
    const { rows, sequences, logit_rows: logitRows } = plan.maxima;
    const most = Math.max(logitRows, sequences);
    const batch = 3 * rows + 2 * logitRows + sequences * plan.blocksPerSequence;
    const choice = most * (SEQUENCE_WORDS + 4) + sequences * (2 * MAX_BIAS + maskWords(plan.vocab));
    this.uploads = new Uploads(gpu, 4 * (batch + choice) + uniformBytes);
  }

  /** @param {import("../core/protocol.js").StepInput} input */
  put({ tokenIds, positions, rowSequence, blockTables, logitRows, targets }) {
    const buffers = this.#buffers;
    this.uploads.put(buffers.io("token_ids"), tokenIds);
    this.uploads.put(buffers.io("positions"), positions);
    this.uploads.put(buffers.io("row_sequence"), rowSequence);
    this.uploads.put(buffers.io("block_tables"), blockTables);
    this.uploads.put(buffers.io("logit_rows"), logitRows);
    if (targets) this.uploads.put(this.#sampler.buffers.targets, targets);
  }

  /**
   * @param {Int32Array} sequences structs
   * @param {Tables} tables
   * @param {Int32Array} structs of each row
   * @param {boolean} commit what is chosen is fed to the next step
   */
  putChoice(sequences, { bias, mask }, structs, commit) {
    const { buffers, masksAt } = this.#sampler;
    const rows = new Int32Array(structs.length * 4);
    structs.forEach((struct, row) => rows.set([struct, 0, commit ? 1 : 0], row * 4));
    this.uploads.put(buffers.sequences, sequences);
    this.uploads.put(buffers.rows, rows);
    if (bias) this.uploads.put(buffers.tables, bias);
    if (mask) this.uploads.put(buffers.tables, mask, masksAt * 4);
  }
}
