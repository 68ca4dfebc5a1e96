/**
 * @file A graph of ONNX Runtime behind the protocol of our executors. Each sequence of a step is a run of its own, with its
 * own cache; logits are copied once, to where the sampler reads them.
 *
 * Bursts are steps one after another (grammar/stepwise.js): the runtime computes one token at a call, so nothing is to be
 * gained by staying in it.
 */

import { checkBatch } from "../core/batch.js";
import { fromHalf } from "../core/halves.js";
import { EngineError, invalidArtifact } from "../format/errors.js";
import { outOfMemory } from "../sequential/memory.js";
import { logitsOf } from "../sequential/sampler.js";
import { sequencesOf, startBeyond, wantedOf, withoutPages } from "../sequential/sequences.js";
import { Caches, release } from "./caches.js";

/**
 * @typedef {import("onnxruntime-web").Tensor} Tensor
 * @typedef {import("../core/protocol.js").StepInput} StepInput
 */

/** What ONNX Runtime says of inputs that do not fit: its status INVALID_ARGUMENT, or shapes that a node cannot use. */
const REFUSED = /ERROR_CODE: 2\b|\bINVALID_ARGUMENT\b|invalid (?:dimensions|rank)|dimensions? (?:must|do(?:es)? not) match|cannot broadcast/i;

/** What each float16 is, by its bits: made with the first logits in it. @type {Float32Array | null} */
let halves = null;

export class OnnxExecutor {
  maxPages = 0;
  /** Tensors that were made here, and bytes of logits that were copied: what a token costs beside the runtime's own. */
  #tensors = 0;
  #logitsBytes = 0;
  /** @type {EngineError | null} why nothing can be called any more */
  #dead = null;
  #ort;
  #session;
  #graph;
  #plan;
  #sampler;
  #caches;
  /** Ones, for masks of any length. */
  #ones = new BigInt64Array(0);
  #outputs;

  /**
   * @param {import("./library.js").Library} ort
   * @param {import("onnxruntime-web").InferenceSession} session
   * @param {import("../format/manifest.js").Manifest} manifest
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("../wasm/executor.js").Executor} sampler
   */
  constructor(ort, session, manifest, plan, sampler) {
    const { graph, kv, weightBytes } = manifest;
    this.#ort = ort;
    this.#session = session;
    this.#graph = /** @type {import("../format/manifest.js").Graph} */ (graph);
    this.#plan = plan;
    this.#sampler = sampler;
    const { cache, cache_type: type, logits } = this.#graph;
    this.#outputs = [logits, ...cache.map(({ present }) => present)];
    const shape = [1, kv.heads, 0, kv.dim];
    this.#caches = new Caches(() => cache.map(() => this.#tensor(type, type === "float16" ? new Uint16Array(0) : new Float32Array(0), shape)));
    this.fixedBytes = weightBytes + sampler.fixedBytes;
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
   * @param {StepInput} input
   * @returns {Promise<import("../core/protocol.js").StepResult>}
   */
  async step(input) {
    if (this.#dead) throw this.#dead;
    checkBatch(input, this.#plan, 0);
    const { tokenIds, positions, logitRows } = input;
    for (const { slot, first, count } of sequencesOf(input)) {
      const ids = Array.from(tokenIds.subarray(first, first + count));
      const { cache, again } = this.#at(slot, positions[first]);
      const { rows } = this.#plan.maxima;
      for (let at = 0; at < again.length; at += rows) await this.#forward(slot, cache, again.slice(at, at + rows), new Map());
      await this.#forward(slot, cache, ids, wantedOf(logitRows, first, count));
    }
    return this.#sampler.step(input);
  }

  /** Free what is kept of a sequence. @param {number} slot */
  drop(slot) {
    this.#caches.drop(slot);
  }

  /** Weights, caches and the sampler; what the runtime takes beside them it does not tell. */
  memoryBytes() {
    return this.fixedBytes + this.#caches.bytes;
  }

  /** @returns {Float64Array} the sampler's, then tensors that were made and bytes of logits that were copied */
  counters() {
    return Float64Array.of(...this.#sampler.counters(), this.#tensors, this.#logitsBytes);
  }

  /**
   * The cache of a sequence that goes on at `start`, and the tokens to feed it first: those before `start`, where it has
   * more than them, since what a tensor holds cannot be taken back.
   * @param {number} slot
   * @param {number} start
   */
  #at(slot, start) {
    const cache = this.#caches.get(slot);
    const known = cache?.tokens.length ?? 0;
    if (start > known) throw startBeyond(slot, start, known);
    if (cache && start === known) return { cache, again: [] };
    const again = cache?.tokens.slice(0, start) ?? [];
    return { cache: this.#caches.begin(slot), again };
  }

  /**
   * @param {number} slot
   * @param {import("./caches.js").Cache} cache
   * @param {number[]} ids
   * @param {Map<number, number>} wanted row of the sampler → row of `ids`
   */
  async #forward(slot, cache, ids, wanted) {
    const least = Math.min(ids.length - 1, ...wanted.values());
    const feeds = this.#feeds(cache, ids, ids.length - least);
    /** @type {Record<string, Tensor>} */
    let out;
    try {
      out = await this.#session.run(feeds, this.#outputs);
    } catch (error) {
      const refused = this.#refused(error);
      if (refused) throw refused;
      this.#dead = failed(error);
      throw this.#dead;
    }
    const [logits, ...tensors] = this.#outputs.map((name) => out[name]);
    release(cache.tensors);
    cache.tensors = tensors;
    cache.tokens.push(...ids);
    this.#copy(logits, ids.length, wanted);
  }

  /**
   * A graph that does not take what its manifest says is no engine that died: every engine would say the same.
   * @param {unknown} error of a run
   * @returns {EngineError | null}
   */
  #refused(error) {
    const said = String(error);
    if (!REFUSED.test(said)) return null;
    const names = /** @type {Set<string>} */ (new Set(this.#graph.inputs));
    const field = said.match(/[\w.]+/g)?.some((word) => names.has(word)) ? "graph.inputs" : "graph.cache";
    return invalidArtifact(`is not what the graph takes: ${said}`, field);
  }

  /**
   * @param {import("./caches.js").Cache} cache
   * @param {number[]} ids
   * @param {number} keep logits of so many last tokens are wanted
   */
  #feeds({ tokens, tensors }, ids, keep) {
    const [past, count] = [tokens.length, ids.length];
    const total = past + count;
    if (this.#ones.length < total) this.#ones = new BigInt64Array(Math.max(256, 2 * total)).fill(1n);
    /** @type {Record<string, () => Tensor>} */
    const inputs = {
      input_ids: () => this.#tensor("int64", BigInt64Array.from(ids, BigInt), [1, count]),
      attention_mask: () => this.#tensor("int64", this.#ones.subarray(0, total), [1, total]),
      position_ids: () => this.#tensor("int64", BigInt64Array.from(ids, (_, i) => BigInt(past + i)), [1, count]),
      num_logits_to_keep: () => this.#tensor("int64", BigInt64Array.of(BigInt(keep)), []),
    };
    /** @type {Record<string, Tensor>} */
    const feeds = {};
    for (const name of this.#graph.inputs) feeds[name] = inputs[name]();
    for (const [i, names] of this.#graph.cache.entries()) feeds[names.past] = tensors[i];
    return feeds;
  }

  /**
   * @param {"float32" | "float16" | "int64"} type
   * @param {Float32Array | Uint16Array | BigInt64Array} data
   * @param {number[]} dims
   * @returns {Tensor}
   */
  #tensor(type, data, dims) {
    this.#tensors++;
    return new this.#ort.Tensor(/** @type {"int64"} */ (type), /** @type {BigInt64Array} */ (data), dims);
  }

  /**
   * The logits that are wanted, to the sampler.
   * @param {Tensor} logits [1, rows, vocab]: of all tokens that were fed, or of the last ones
   * @param {number} fed
   * @param {Map<number, number>} wanted
   */
  #copy(logits, fed, wanted) {
    const { vocab } = this.#plan;
    const [rows, width] = logits.dims.slice(-2);
    if (width !== vocab) throw invalidArtifact(`gives ${width} logits, the model has ${vocab} tokens`, "graph.logits");
    const target = logitsOf(this.#sampler);
    for (const [to, row] of wanted) {
      const from = row - (fed - rows);
      if (from < 0) {
        throw new EngineError("unsupported", "this graph gives the logits of a text's last token only: it cannot score texts", "targets");
      }
      const values = /** @type {Float32Array | Uint16Array} */ (logits.data).subarray(from * vocab, (from + 1) * vocab);
      if (logits.type === "float32" || !(values instanceof Uint16Array)) target.set(values, to * vocab);
      else {
        const known = (halves ??= Float32Array.from({ length: 1 << 16 }, (_, bits) => fromHalf(bits)));
        values.forEach((bits, i) => (target[to * vocab + i] = known[bits]));
      }
      this.#logitsBytes += values.byteLength;
    }
  }
}

/** @param {unknown} error of a run @returns {EngineError} */
function failed(error) {
  const code = outOfMemory(error) ? "out_of_memory" : "device_lost";
  return new EngineError(code, `ONNX Runtime failed: ${String(error)}`, null, error);
}
