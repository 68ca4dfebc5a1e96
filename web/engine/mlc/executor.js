/**
 * @file A library of MLC's, run by web-llm, behind the protocol of our executors. It keeps keys and values of one sequence;
 * of another it computes them again from the tokens. Its own choice of a token is thrown away: logits are taken where it
 * shows them, and our sampler chooses.
 *
 * Bursts are steps one after another (grammar/stepwise.js), since each token passes through this thread.
 */

import { checkBatch } from "../core/batch.js";
import { EngineError, invalidArtifact } from "../format/errors.js";
import { outOfMemory } from "../sequential/memory.js";
import { logitsOf } from "../sequential/sampler.js";
import { sequencesOf, startBeyond, wantedOf, withoutPages } from "../sequential/sequences.js";

/** A logit processor of web-llm's: sees the logits of each call. */
export class Tap {
  /** @type {Float32Array | null} of the last call, [vocab] */
  logits = null;

  /** @param {Float32Array} logits */
  processLogits(logits) {
    this.logits = logits;
    return logits;
  }

  processSampledToken() {}

  resetState() {}
}

export class MlcExecutor {
  maxPages = 0;
  #calls = 0;
  #logitsBytes = 0;
  /** @type {EngineError | null} why nothing can be called any more */
  #dead = null;
  /** Tokens of each sequence, by its number. @type {Map<number, number[]>} */
  #sequences = new Map();
  /** The one whose keys and values the library has. */
  #current = -1;
  #engine;
  #tap;
  #gpu;
  #plan;
  #sampler;

  /**
   * @param {import("@mlc-ai/web-llm").MLCEngine} engine with a model loaded
   * @param {Tap} tap its logit processor
   * @param {import("../webgpu/device.js").Gpu} gpu its device
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("../wasm/executor.js").Executor} sampler
   * @param {number} modelBytes weights, and the keys and values that the library keeps room for
   */
  constructor(engine, tap, gpu, plan, sampler, modelBytes) {
    this.#engine = engine;
    this.#tap = tap;
    this.#gpu = gpu;
    this.#plan = plan;
    this.#sampler = sampler;
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
   * One forward pass of each sequence; what else is wanted (choice, score, logits) happens on the logits.
   * @param {import("../core/protocol.js").StepInput} input
   * @returns {Promise<import("../core/protocol.js").StepResult>}
   */
  async step(input) {
    if (this.#dead) throw this.#dead;
    checkBatch(input, this.#plan, 0);
    const { tokenIds, positions, logitRows } = input;
    for (const { slot, first, count } of sequencesOf(input)) {
      const tokens = await this.#at(slot, positions[first]);
      await this.#forward(tokens, tokenIds.subarray(first, first + count), wantedOf(logitRows, first, count));
    }
    return this.#sampler.step(input);
  }

  /** Free what is kept of a sequence. @param {number} slot */
  drop(slot) {
    this.#sequences.delete(slot);
    if (slot === this.#current) this.#current = -1;
  }

  /** Destroy the device, for tests. */
  fail() {
    this.#gpu.destroy();
  }

  /** What the library takes for a step it does not tell. */
  memoryBytes() {
    return this.fixedBytes;
  }

  /** @returns {Float64Array} the sampler's, then calls of the library and bytes of logits that were copied */
  counters() {
    return Float64Array.of(...this.#sampler.counters(), this.#calls, this.#logitsBytes);
  }

  /**
   * The tokens of a sequence that goes on at `start`, which the library has then. What it keeps cannot be taken back: where
   * that is another sequence's, or more than these, it begins anew.
   * @param {number} slot
   * @param {number} start
   * @returns {Promise<number[]>}
   */
  async #at(slot, start) {
    const known = this.#sequences.get(slot) ?? [];
    if (start > known.length) throw startBeyond(slot, start, known.length);
    if (slot === this.#current && start === known.length) return known;
    await this.#called(() => this.#engine.resetChat(true));
    /** @type {number[]} */
    const tokens = [];
    this.#sequences.set(slot, tokens);
    this.#current = slot;
    const { rows } = this.#plan.maxima;
    for (let at = 0; at < start; at += rows) await this.#forward(tokens, known.slice(at, Math.min(start, at + rows)), new Map());
    return tokens;
  }

  /**
   * The library gives the logits of the last token of a call: so there is a call for each that is wanted.
   * @param {number[]} tokens of the sequence, appended to
   * @param {ArrayLike<number>} ids
   * @param {Map<number, number>} wanted row of the sampler → row of `ids`
   */
  async #forward(tokens, ids, wanted) {
    const { vocab } = this.#plan;
    const ends = [...new Set([...wanted.values(), ids.length - 1])].sort((a, b) => a - b);
    let from = 0;
    for (const end of ends) {
      const piece = Array.from(ids).slice(from, end + 1);
      this.#tap.logits = null;
      this.#calls++;
      await this.#called(() => this.#engine.forwardTokensAndSample(piece, piece.length > 1));
      tokens.push(...piece);
      from = end + 1;
      const logits = /** @type {Float32Array | null} */ (this.#tap.logits);
      if (logits?.length !== vocab) throw invalidArtifact(`gives ${logits?.length ?? "no"} logits, the model has ${vocab} tokens`, "library");
      for (const [to, row] of wanted) {
        if (row !== end) continue;
        logitsOf(this.#sampler).set(logits, to * vocab);
        this.#logitsBytes += logits.byteLength;
      }
    }
  }

  /** @param {() => Promise<unknown>} call */
  async #called(call) {
    try {
      await this.#gpu.wait(call());
    } catch (error) {
      this.#dead = failed(error);
      throw this.#dead;
    }
  }
}

/** @param {unknown} error of a call @returns {EngineError} */
function failed(error) {
  if (error instanceof EngineError) return error;
  return new EngineError(outOfMemory(error) ? "out_of_memory" : "device_lost", `MLC's library failed: ${String(error)}`, null, error);
}
