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
import { sequencesOf, wantedOf, withoutPages } from "../sequential/sequences.js";
import { callsOf, Sequences } from "./sequences.js";

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
  #sequences = new Sequences();
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
      const again = this.#sequences.goOn(slot, positions[first]);
      if (again) await this.#begin(again);
      await this.#forward(Array.from(tokenIds.subarray(first, first + count)), wantedOf(logitRows, first, count));
    }
    return this.#sampler.step(input);
  }

  /** Free what is kept of a sequence. @param {number} slot */
  drop(slot) {
    this.#sequences.drop(slot);
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

  /** Forget what the library has, and feed it these. @param {number[]} ids */
  async #begin(ids) {
    await this.#called(() => this.#engine.resetChat(true));
    const { rows } = this.#plan.maxima;
    for (let at = 0; at < ids.length; at += rows) await this.#forward(ids.slice(at, at + rows), new Map());
  }

  /**
   * @param {number[]} ids
   * @param {Map<number, number>} wanted row of the sampler → row of `ids`
   */
  async #forward(ids, wanted) {
    const { vocab } = this.#plan;
    for (const { ids: piece, end } of callsOf(ids, wanted.values())) {
      this.#tap.logits = null;
      this.#calls++;
      await this.#called(() => this.#engine.forwardTokensAndSample(piece, piece.length > 1));
      this.#sequences.add(piece);
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
