/**
 * @file inpage for JavaScript on a page: start a model, talk to it.
 *
 *     const inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct" });
 *     for await (const piece of inpage.chat("What is gravity?", { max_tokens: 100 })) output.append(piece.text);
 *
 * Everything runs in workers: Python with the router in one, the engine in another. Errors are `EngineError`s, with
 * `code` and, where an input is at fault, `field`.
 */

import { EngineError, fromWire } from "../engine/errors.js";

/**
 * @typedef {{role: string, content: string}} Message role: "system", "user" or "assistant"
 * @typedef {object} Progress
 * @property {"python" | "manifest" | "tokenizer" | "kernels" | "weights" | "ready"} phase
 * @property {number} [loaded] bytes
 * @property {number} [total] bytes
 * @property {boolean} [fromCache]
 * @typedef {object} StartOptions
 * @property {string} [base] URL of the site's folder; the page's own if not given
 * @property {string} model id of a model of the site (models/<id>/), or the URL of an artifact's folder, ending in "/"
 * @property {string} [backend] pins a backend ("wasm") or a variant ("wasm-simd")
 * @property {number} [threads] compute threads; all cores if not given, one where the page is not isolated
 * @property {(event: Progress) => void} [onProgress]
 * @property {AbortSignal} [signal] gives the start up: it rejects with code "cancelled"
 * @typedef {object} Info
 * @property {string} model
 * @property {string} name
 * @property {string} revision
 * @property {string} license
 * @property {string} backend
 * @property {string} variant
 * @property {number} threads
 * @property {string} why a sentence for people
 * @property {number} load_ms
 * @property {number} context tokens that prompt and answer can have together
 * @property {number} vocab
 * @property {number} max_sequences how many requests decode together
 * @property {number} weight_bytes
 * @property {number} arena_bytes
 * @property {number} kv_bytes
 * @property {{used: number, reserved: number, limit: number}} kv_pages
 * @property {{active: number, waiting: number}} requests
 * @typedef {object} Params
 * @property {number} [max_tokens] to the end of the context if not given
 * @property {number} [temperature] 0 is greedy; 0.7 if not given
 * @property {number} [top_p] 0.95 if not given
 * @property {number} [top_k]
 * @property {number} [min_p]
 * @property {number} [repetition_penalty]
 * @property {number} [presence_penalty]
 * @property {number} [frequency_penalty]
 * @property {number} [seed] repeats an answer; a random one is drawn, and reported, if not given
 * @property {Record<number, number>} [logit_bias]
 * @property {AbortSignal} [signal] ends the answer with `finish_reason` "cancelled"
 * @typedef {object} Completion
 * @property {number[]} prompt_ids
 * @property {number[]} token_ids the stop token included
 * @property {string} text
 * @property {"stop" | "length" | "cancelled"} finish_reason
 * @property {number} seed
 * @property {number} load_ms
 * @property {number} ttft_ms
 * @property {number} prefill_tps
 * @property {number} decode_tps
 * @property {number} threads
 * @property {string} backend
 * @property {string} variant
 * @property {string} why
 * @property {Usage} usage
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number, prompt_tokens_details: {cached_tokens: number}}} Usage
 * @typedef {{load_ms: number, ttft_ms: number, prefill_tps: number, decode_tps: number}} Timing
 * @typedef {object} Piece
 * @property {string} text what became certain since the piece before; may be empty
 * @property {number[]} token_ids
 * @property {Completion["finish_reason"]} [finish_reason] of the last piece, as all that follows
 * @property {Usage} [usage]
 * @property {Timing} [timing]
 * @property {Completion} [completion] the whole answer
 * @typedef {{perplexity: number, nll: number[], argmax: number[], margin: number[]}} Score
 *
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {(message: any) => void} [heard] progress and pieces
 */

export class InPage {
  /** @type {Worker} */
  #worker;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #next = 1;
  /** @type {EngineError | null} why nothing can be asked any more */
  #ended = null;
  /** @type {Info} as it was when the model was ready; `refresh` asks again */
  info = /** @type {any} */ (null);

  /**
   * Start Python and load a model.
   * @param {StartOptions} options
   * @returns {Promise<InPage>}
   * @throws {EngineError} artifact_invalid, unsupported, invalid_request, out_of_memory, network, cancelled, device_lost
   */
  static async start({ base, model, backend, threads, onProgress, signal }) {
    if (signal?.aborted) throw new EngineError("cancelled", "the start was given up");
    const inpage = new InPage();
    const giveUp = () => inpage.#end(new EngineError("cancelled", "the start was given up"));
    signal?.addEventListener("abort", giveUp, { once: true });
    try {
      onProgress?.({ phase: "python" });
      const artifact = artifactUrl(base, model);
      const heard = (/** @type {{progress: Progress}} */ message) => onProgress?.(message.progress);
      inpage.info = await inpage.#call({ op: "load", artifact, backend, threads }, heard);
      return inpage;
    } catch (error) {
      inpage.#end(new EngineError("device_lost", "the start failed"));
      throw error;
    } finally {
      signal?.removeEventListener("abort", giveUp);
    }
  }

  /** Use `InPage.start`. */
  constructor() {
    this.#worker = new Worker(new URL("../router/worker.js", import.meta.url), { type: "module", name: "inpage-router" });
    this.#worker.onmessage = (event) => this.#receive(JSON.parse(event.data));
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#end(new EngineError("device_lost", `the router worker is gone: ${event.message || "its script cannot be loaded"}`));
    };
  }

  /**
   * Answer a conversation; a string is one user message. Leaving the loop early cancels the request.
   * @param {string | Message[]} messages
   * @param {Params} [params]
   * @returns {AsyncGenerator<Piece, void, void>}
   * @throws {EngineError} invalid_request, queue_full, out_of_memory, device_lost
   */
  chat(messages, params = {}) {
    return this.#stream({ op: "chat", messages }, params);
  }

  /**
   * Continue a text or token ids, without the chat template.
   * @param {string | number[]} prompt
   * @param {Params} [params]
   * @returns {AsyncGenerator<Piece, void, void>}
   */
  complete(prompt, params = {}) {
    return this.#stream({ op: "complete", prompt }, params);
  }

  /**
   * Perplexity of a text or of ids, by independent windows.
   * @param {string | number[]} ids
   * @param {number} [window] tokens
   * @returns {Promise<Score>}
   */
  score(ids, window = 512) {
    return this.#call({ op: "score", ids, window });
  }

  /** A sentence for each variant: why it runs, could run or cannot run here. @returns {Promise<string>} */
  explain() {
    return this.#call({ op: "explain" });
  }

  /**
   * What the engine did since it was loaded: steps, launches, rows, sampled and, on a GPU, more.
   * @returns {Promise<Record<string, number>>}
   */
  counters() {
    return this.#call({ op: "counters" });
  }

  /** `info` as it is now. @returns {Promise<Info>} */
  async refresh() {
    this.info = await this.#call({ op: "info" });
    return this.info;
  }

  /** Free the model, Python and all workers. What is in flight rejects with code "cancelled". */
  async unload() {
    if (this.#ended) return;
    try {
      await this.#call({ op: "unload" });
    } finally {
      this.#end(new EngineError("cancelled", "the model was unloaded"));
    }
  }

  /**
   * @param {object} message
   * @param {Params} params
   * @returns {AsyncGenerator<Piece, void, void>}
   */
  async *#stream(message, { signal, ...params }) {
    /** @type {Piece[]} */
    const pieces = [];
    let wake = () => {};
    const id = this.#next;
    const answer = this.#call({ ...message, params }, (heard) => {
      pieces.push(heard.piece);
      wake();
    });
    const cancel = () => this.#worker.postMessage(JSON.stringify({ op: "cancel", id }));
    if (signal?.aborted) cancel();
    else signal?.addEventListener("abort", cancel, { once: true });
    /** @type {Completion | null} */
    let completion = null;
    /** @type {unknown} */
    let failure = null;
    answer.then((value) => (completion = value), (error) => (failure = error)).finally(() => wake());
    try {
      for (;;) {
        const piece = pieces.shift();
        if (piece) yield piece;
        else if (failure) throw failure;
        else if (completion) break;
        else await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
      yield lastPiece(completion);
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (this.#pending.has(id)) cancel();
    }
  }

  /**
   * @param {object} message
   * @param {(message: any) => void} [heard]
   * @returns {Promise<any>}
   */
  #call(message, heard) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, heard });
      this.#worker.postMessage(JSON.stringify({ id, ...message }));
    });
  }

  /** @param {any} message */
  #receive(message) {
    if (message.fatal) {
      this.#end(new EngineError("device_lost", message.fatal));
      return;
    }
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.progress || message.piece) {
      pending.heard?.(message);
      return;
    }
    this.#pending.delete(message.id);
    if (message.error) pending.reject(fromWire(message.error));
    else pending.resolve(message.value);
  }

  /** @param {EngineError} reason */
  #end(reason) {
    if (this.#ended) return;
    this.#ended = reason;
    this.#worker.terminate();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(reason);
  }
}

/**
 * @param {Completion} completion
 * @returns {Piece}
 */
function lastPiece(completion) {
  const { finish_reason, usage, load_ms, ttft_ms, prefill_tps, decode_tps } = completion;
  return { text: "", token_ids: [], finish_reason, usage, timing: { load_ms, ttft_ms, prefill_tps, decode_tps }, completion };
}

/**
 * @param {string | undefined} base
 * @param {string} model
 * @returns {string}
 */
function artifactUrl(base, model) {
  try {
    const site = new URL(base ?? "./", globalThis.document?.baseURI ?? globalThis.location.href);
    return new URL(/[/:]/.test(model) ? model : `models/${model}/`, site).href;
  } catch (error) {
    throw new EngineError("invalid_request", `no URL: base ${base}, model ${model}`, "base", error);
  }
}
