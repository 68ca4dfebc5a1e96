/**
 * @file inpage for JavaScript on a page: start a model, talk to it.
 *
 *     const inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct" });
 *     for await (const piece of inpage.chat("What is gravity?", { max_tokens: 100 })) output.append(piece.text);
 *
 * Everything runs in workers: Python with the router in one, the engine in another. An engine that dies is replaced by the
 * router, a router that dies is started again here, and answers go on where they were. Errors are `EngineError`s, with
 * `code` and, where an input is at fault, `field`.
 */

import { EngineError } from "../engine/errors.js";
import { answer } from "./answer.js";
import { Link } from "./link.js";

/**
 * @typedef {import("./types.js").Candidate} Candidate
 * @typedef {import("./types.js").Info} Info
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").Piece} Piece
 * @typedef {import("./types.js").Score} Score
 * @typedef {import("./types.js").StartOptions} StartOptions
 */

export class InPage {
  /** @type {Link} the router worker that lives now */
  #link;
  /** @type {Promise<void>} settled when the router can be asked */
  #ready;
  /** @type {EngineError | null} why nothing can be asked any more */
  #ended = null;
  #options;
  /** @type {Info} as it was when it last changed; `refresh` asks again */
  info = /** @type {any} */ (null);

  /**
   * Start Python and load a model.
   * @param {StartOptions} options
   * @returns {Promise<InPage>}
   * @throws {EngineError} artifact_invalid, unsupported, invalid_request, out_of_memory, network, cancelled, device_lost
   */
  static async start({ signal, ...options }) {
    if (signal?.aborted) throw new EngineError("cancelled", "the start was given up");
    const inpage = new InPage(options);
    const giveUp = () => inpage.#end(new EngineError("cancelled", "the start was given up"));
    signal?.addEventListener("abort", giveUp, { once: true });
    try {
      await inpage.#ready;
      return inpage;
    } finally {
      signal?.removeEventListener("abort", giveUp);
    }
  }

  /**
   * A text about this device for bug reports, where no model could be loaded. See also the method `report`.
   * @returns {Promise<string>}
   */
  static async report() {
    const link = new Link(() => {});
    try {
      return await link.call({ op: "report" }).answer;
    } finally {
      link.end(new EngineError("cancelled", "the report is written"));
    }
  }

  /** Use `InPage.start`. @param {StartOptions} options */
  constructor(options) {
    this.#options = { ...options, artifact: artifactUrl(options.base, options.model) };
    this.#link = this.#open();
    this.#ready = this.#load(1);
  }

  /**
   * Answer a conversation; a string is one user message. Leaving the loop early cancels the request.
   * @param {string | Message[]} messages
   * @param {Params} [params]
   * @returns {AsyncGenerator<Piece, void, void>}
   * @throws {EngineError} invalid_request, queue_full, out_of_memory, device_lost, poison_request
   */
  chat(messages, params = {}) {
    return answer(() => this.#connect(), { op: "chat", messages }, params);
  }

  /**
   * Continue a text or token ids, without the chat template.
   * @param {string | number[]} prompt
   * @param {Params} [params]
   * @returns {AsyncGenerator<Piece, void, void>}
   */
  complete(prompt, params = {}) {
    return answer(() => this.#connect(), { op: "complete", prompt }, params);
  }

  /**
   * Perplexity of a text or of ids, by independent windows.
   * @param {string | number[]} ids
   * @param {number} [window] tokens
   * @returns {Promise<Score>}
   */
  score(ids, window = 512) {
    return this.#ask({ op: "score", ids, window });
  }

  /** Which variant runs and why, a line for each: how fast it is, why it cannot run, what went wrong. @returns {Promise<string>} */
  explain() {
    return this.#ask({ op: "explain" });
  }

  /** Time each variant that was never timed on this device, now. @returns {Promise<Candidate[]>} */
  measure() {
    return this.#ask({ op: "measure" });
  }

  /** A text about this device and what runs on it, for bug reports. @returns {Promise<string>} */
  report() {
    return this.#ask({ op: "report" });
  }

  /**
   * What the engine did since it was loaded: steps, launches, rows, sampled and, on a GPU, more.
   * @returns {Promise<Record<string, number>>}
   */
  counters() {
    return this.#ask({ op: "counters" });
  }

  /** `info` as it is now. @returns {Promise<Info>} */
  async refresh() {
    this.info = await this.#ask({ op: "info" });
    return this.info;
  }

  /** Free the model, Python and all workers. What is in flight rejects with code "cancelled". */
  async unload() {
    if (this.#ended) return;
    try {
      await this.#link.call({ op: "unload" }).answer;
    } finally {
      this.#end(new EngineError("cancelled", "the model was unloaded"));
    }
  }

  /**
   * What ends with an answer; asked once more where the router died over it.
   * @param {object} message
   * @returns {Promise<any>}
   */
  async #ask(message) {
    const link = await this.#connect();
    try {
      return await link.call(message).answer;
    } catch (error) {
      if (error !== link.ended || this.#ended) throw error;
      return (await this.#connect()).call(message).answer;
    }
  }

  /** The router that lives; one that died is started again. @returns {Promise<Link>} */
  async #connect() {
    if (this.#ended) throw this.#ended;
    if (this.#link.ended) {
      this.#link = this.#open();
      this.#ready = this.#load(2);
    }
    await this.#ready;
    return this.#link;
  }

  /** @returns {Link} */
  #open() {
    return new Link(({ changed }) => this.#changed(changed));
  }

  /**
   * Start Python and load the model. A failure is final.
   * @param {number} attempts how many workers may die over it
   * @returns {Promise<void>}
   */
  async #load(attempts) {
    const { artifact, backend, threads, settings, onProgress } = this.#options;
    const link = this.#link;
    try {
      onProgress?.({ phase: "python" });
      const load = { op: "load", artifact, backend, threads, settings };
      this.info = await link.call(load, ({ progress }) => onProgress?.(progress)).answer;
    } catch (error) {
      if (attempts > 1 && error === link.ended && !this.#ended) {
        this.#link = this.#open();
        return this.#load(attempts - 1);
      }
      this.#end(error instanceof EngineError ? error : new EngineError("error", String(error)));
      throw this.#ended;
    }
  }

  /** @param {Info} info */
  #changed(info) {
    this.info = info;
    this.#options.onChange?.(info);
  }

  /** @param {EngineError} reason */
  #end(reason) {
    this.#ended ??= reason;
    this.#link.end(reason);
  }
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
