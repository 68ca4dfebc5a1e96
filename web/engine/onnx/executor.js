/**
 * @file A graph of ONNX Runtime behind the protocol of our executors. Each sequence of a step is a run of its own, with its
 * own cache; logits are copied once, to where the sampler reads them.
 *
 * Bursts are steps one after another (grammar/stepwise.js): the runtime computes one token at a call, so nothing is to be
 * gained by staying in it.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { SequentialExecutor } from "../sequential/executor.js";
import { startBeyond } from "../sequential/sequences.js";
import { Caches, release } from "./caches.js";

/** @typedef {import("onnxruntime-web").Tensor} Tensor */

/** What ONNX Runtime says of inputs that do not fit: its status INVALID_ARGUMENT, or shapes that a node cannot use. */
const REFUSED = /ERROR_CODE: 2\b|\bINVALID_ARGUMENT\b|invalid (?:dimensions|rank)|dimensions? (?:must|do(?:es)? not) match|cannot broadcast/i;

export class OnnxExecutor extends SequentialExecutor {
  /** Tensors that were made here: with the logits that are copied, what a token costs beside the runtime's own. */
  #tensors = 0;
  #ort;
  #session;
  #graph;
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
    super(plan, sampler, weightBytes);
    this.#ort = ort;
    this.#session = session;
    this.#graph = /** @type {import("../format/manifest.js").Graph} */ (graph);
    const { cache, cache_type: type, logits } = this.#graph;
    this.#outputs = [logits, ...cache.map(({ present }) => present)];
    const shape = [1, kv.heads, 0, kv.dim];
    this.#caches = new Caches(() => cache.map(() => this.#tensor(type, type === "float16" ? new Uint16Array(0) : new Float32Array(0), shape)));
  }

  /** @override @param {import("../sequential/executor.js").Fed} fed */
  async goOn({ slot, start, ids, wanted }) {
    const { cache, again } = this.#at(slot, start);
    for (const piece of this.pieces(again)) await this.#forward(cache, piece, new Map());
    await this.#forward(cache, ids, wanted);
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
    return this.countersWith(this.#tensors);
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
   * @param {import("./caches.js").Cache} cache
   * @param {number[]} ids
   * @param {Map<number, number>} wanted row of the sampler → row of `ids`
   */
  async #forward(cache, ids, wanted) {
    const least = Math.min(ids.length - 1, ...wanted.values());
    const feeds = this.#feeds(cache, ids, ids.length - least);
    /** @type {Record<string, Tensor>} */
    let out;
    try {
      out = await this.#session.run(feeds, this.#outputs);
    } catch (error) {
      throw this.#refused(error) ?? this.died(error, "ONNX Runtime");
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
    const { vocab } = this.plan;
    const [rows, width] = logits.dims.slice(-2);
    if (width !== vocab) throw invalidArtifact(`gives ${width} logits, the model has ${vocab} tokens`, "graph.logits");
    for (const [to, row] of wanted) {
      const from = row - (fed - rows);
      if (from < 0) {
        throw new EngineError("unsupported", "this graph gives the logits of a text's last token only: it cannot score texts", "targets");
      }
      const values = /** @type {Float32Array | Uint16Array} */ (logits.data).subarray(from * vocab, (from + 1) * vocab);
      this.keepLogits(to, values);
    }
  }
}
