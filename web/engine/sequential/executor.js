/**
 * @file What executors have in common that run one sequence after another by code that is not ours, without KV pages: a step
 * is a forward pass of each sequence, and what else is wanted (choice, score, logits) happens on the logits, in our sampler.
 */

import { checkBatch } from "../core/batch.js";
import { fromHalf } from "../core/halves.js";
import { EngineError } from "../format/errors.js";
import { outOfMemory } from "./memory.js";
import { logitsOf } from "./sampler.js";
import { sequencesOf, wantedOf, withoutPages } from "./sequences.js";

/**
 * @typedef {object} Fed what a sequence is fed in a step
 * @property {number} slot by which it is known
 * @property {number} start tokens before these
 * @property {number[]} ids
 * @property {Map<number, number>} wanted row of the sampler's logits → row of `ids`
 */

/** What each float16 is, by its bits: made with the first logits in it. @type {Float32Array | null} */
let halves = null;

export class SequentialExecutor {
  maxPages = 0;
  /** @type {EngineError | null} why nothing can be called any more */
  #dead = null;
  #logitsBytes = 0;

  /**
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("../wasm/executor.js").Executor} sampler
   * @param {number} modelBytes
   */
  constructor(plan, sampler, modelBytes) {
    this.plan = plan;
    this.sampler = sampler;
    this.fixedBytes = modelBytes + sampler.fixedBytes;
  }

  /** @param {number} pages */
  reservePages(pages) {
    if (pages > 0) throw withoutPages();
  }

  /** @returns {never} */
  readPages() {
    throw withoutPages();
  }

  /** @returns {never} */
  writePages() {
    throw withoutPages();
  }

  /**
   * @param {import("../core/protocol.js").StepInput} input
   * @returns {Promise<import("../core/protocol.js").StepResult>}
   */
  async step(input) {
    if (this.#dead) throw this.#dead;
    checkBatch(input, this.plan, 0);
    const { tokenIds, positions, logitRows } = input;
    for (const { slot, first, count } of sequencesOf(input)) {
      const ids = Array.from(tokenIds.subarray(first, first + count));
      await this.goOn({ slot, start: positions[first], ids, wanted: wantedOf(logitRows, first, count) });
    }
    return this.sampler.step(input);
  }

  /**
   * A forward pass, and before it what the sequence lacks.
   * @abstract
   * @param {Fed} _fed
   * @returns {Promise<void>}
   */
  async goOn(_fed) {
    throw new TypeError("goOn is each executor's own");
  }

  /**
   * @param {number} calls or whatever else the library costs
   * @returns {Float64Array} the sampler's, then these and bytes of logits that were copied
   */
  countersWith(calls) {
    return Float64Array.of(...this.sampler.counters(), calls, this.#logitsBytes);
  }

  /**
   * In pieces that a step has room for.
   * @param {readonly number[]} ids
   * @returns {Generator<number[]>}
   */
  *pieces(ids) {
    const { rows } = this.plan.maxima;
    for (let at = 0; at < ids.length; at += rows) yield ids.slice(at, at + rows);
  }

  /**
   * @param {number} row of the sampler's logits
   * @param {Float32Array | Uint16Array} values of the model, [vocab]; as halves in 16 bits
   */
  keepLogits(row, values) {
    const { vocab } = this.plan;
    const target = logitsOf(this.sampler).subarray(row * vocab, (row + 1) * vocab);
    if (values instanceof Uint16Array) {
      const known = (halves ??= Float32Array.from({ length: 1 << 16 }, (_, bits) => fromHalf(bits)));
      values.forEach((bits, i) => (target[i] = known[bits]));
    } else {
      target.set(values);
    }
    this.#logitsBytes += values.byteLength;
  }

  /**
   * No call after this one is made.
   * @param {unknown} error
   * @param {string} whose
   * @returns {EngineError}
   */
  died(error, whose) {
    const code = outOfMemory(error) ? "out_of_memory" : "device_lost";
    this.#dead = error instanceof EngineError ? error : new EngineError(code, `${whose} failed: ${String(error)}`, null, error);
    return this.#dead;
  }
}
