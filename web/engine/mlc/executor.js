/**
 * @file A library of MLC's, run by web-llm, behind the protocol of our executors. It keeps keys and values of one sequence;
 * of another it computes them again from the tokens. Its own choice of a token is thrown away: logits are taken where it
 * shows them, and our sampler chooses.
 *
 * Bursts are steps one after another (grammar/stepwise.js), since each token passes through this thread.
 */

import { invalidArtifact } from "../format/errors.js";
import { SequentialExecutor } from "../sequential/executor.js";
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

export class MlcExecutor extends SequentialExecutor {
  #calls = 0;
  #sequences = new Sequences();
  #engine;
  #tap;
  #gpu;

  /**
   * @param {import("@mlc-ai/web-llm").MLCEngine} engine with a model loaded
   * @param {Tap} tap its logit processor
   * @param {import("../webgpu/device.js").Gpu} gpu its device
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("../wasm/executor.js").Executor} sampler
   * @param {number} modelBytes weights, and the keys and values that the library keeps room for
   */
  constructor(engine, tap, gpu, plan, sampler, modelBytes) {
    super(plan, sampler, modelBytes);
    this.#engine = engine;
    this.#tap = tap;
    this.#gpu = gpu;
  }

  /** @override @param {import("../sequential/executor.js").Fed} fed */
  async goOn({ slot, start, ids, wanted }) {
    const again = this.#sequences.goOn(slot, start);
    if (again) {
      await this.#called(() => this.#engine.resetChat(true));
      for (const piece of this.pieces(again)) await this.#forward(piece, new Map());
    }
    await this.#forward(ids, wanted);
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
    return this.countersWith(this.#calls);
  }

  /**
   * @param {number[]} ids
   * @param {Map<number, number>} wanted row of the sampler → row of `ids`
   */
  async #forward(ids, wanted) {
    const { vocab } = this.plan;
    for (const { ids: piece, end } of callsOf(ids, wanted.values())) {
      this.#tap.logits = null;
      this.#calls++;
      await this.#called(() => this.#engine.forwardTokensAndSample(piece, piece.length > 1));
      this.#sequences.add(piece);
      const logits = /** @type {Float32Array | null} */ (this.#tap.logits);
      if (logits?.length !== vocab) throw invalidArtifact(`gives ${logits?.length ?? "no"} logits, the model has ${vocab} tokens`, "library");
      for (const [to, row] of wanted) if (row === end) this.keepLogits(to, logits);
    }
  }

  /** @param {() => Promise<unknown>} call */
  async #called(call) {
    try {
      await this.#gpu.wait(call());
    } catch (error) {
      throw this.died(error, "MLC's library");
    }
  }
}
