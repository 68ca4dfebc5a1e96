/**
 * @file inpage for JavaScript on a page: start a model, talk to it.
 *
 *     const inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct" });
 *     for await (const piece of inpage.chat("What is gravity?", { max_tokens: 100 })) output.append(piece.text);
 *
 * Several models may be known (`models` at the start, or `add`); a request names its own as `model`, which is loaded then,
 * and unloaded when it was idle for long or another needs its place.
 *
 * Everything runs in workers: Python with the router in one, the engine in another. An engine that dies is replaced by the
 * router, a router that dies is started again here, and answers go on where they were. Errors are `EngineError`s, with
 * `code` and, where an input is at fault, `field`.
 */

import { EngineError } from "../engine/format/errors.js";
import { embed, rerank } from "./embedding.js";
import { respond } from "./endpoint.js";
import { Link } from "./link.js";
import { ids, idsOfEach, modelOptions, requestParams, serveOptions, startOptions } from "./options.js";
import { host, register, registered, takeUpdate } from "./serve.js";
import { storage } from "./storage.js";
import { streaming } from "./streaming.js";
import { Supervisor } from "./supervisor.js";
import { discard, keeping, resuming, unfinished } from "./unfinished.js";

/**
 * @typedef {import("./types.js").Answer} Answer
 * @typedef {import("./types.js").Candidate} Candidate
 * @typedef {import("./types.js").EmbedParams} EmbedParams
 * @typedef {import("./types.js").Embeddings} Embeddings
 * @typedef {import("./types.js").Ids} Ids
 * @typedef {import("./types.js").Info} Info
 * @typedef {import("./types.js").Health} Health
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").ModelOptions} ModelOptions
 * @typedef {import("./types.js").ModelState} ModelState
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").Piece} Piece
 * @typedef {import("./types.js").Ranking} Ranking
 * @typedef {import("./types.js").Score} Score
 * @typedef {import("./types.js").StartOptions} StartOptions
 * @typedef {import("./types.js").Unfinished} Unfinished
 */

export class InPage {
  #router;
  #options;
  #stopServing = () => {};

  /** Of the default model as it was when it last changed; `refresh` asks again. @returns {Info} */
  get info() {
    return this.#router.info;
  }

  /** What this origin keeps between visits: `list`, `delete`, `files`, `deleteFiles`, `persist`, `estimate`. */
  static storage = storage;

  /**
   * Start Python and load a model.
   * @param {StartOptions} options
   * @returns {Promise<InPage>}
   * @throws {EngineError} artifact_invalid, unsupported, invalid_request, out_of_memory, network, cancelled, device_lost
   */
  static async start(options) {
    const { signal, ...rest } = startOptions(options);
    if (signal?.aborted) throw new EngineError("cancelled", "the start was given up");
    const inpage = new InPage(rest);
    const giveUp = () => inpage.#router.end(new EngineError("cancelled", "the start was given up"));
    signal?.addEventListener("abort", giveUp, { once: true });
    try {
      await inpage.#router.ready;
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
    this.#options = options;
    this.#router = new Supervisor(options);
  }

  /**
   * Answer a conversation; a string is one user message. Leaving the loop early cancels the request.
   * @param {string | Message[]} messages
   * @param {Params} [params]
   * @returns {Answer}
   * @throws {EngineError} invalid_request, queue_full, out_of_memory, device_lost, poison_request
   */
  chat(messages, params) {
    const { model, ...rest } = requestParams(params);
    return streaming(keeping({ op: "chat", messages, model }, rest, (...asked) => this.#router.answer(...asked)));
  }

  /**
   * Continue a text or token ids, without the chat template.
   * @param {string | Ids} prompt
   * @param {Params} [params]
   * @returns {Answer}
   */
  complete(prompt, params) {
    const { model, ...rest } = requestParams(params);
    return streaming(keeping({ op: "complete", prompt: ids(prompt, "prompt"), model }, rest, (...asked) => this.#router.answer(...asked)));
  }

  /**
   * As `window.fetch`, for OpenAI's interface: a request for `…/v1/chat/completions`, `…/v1/responses`, `…/v1/models`,
   * `…/health` and so on, at whatever base, is answered by the router; nothing goes over the network. Streams go on where
   * the router dies meanwhile. It needs no `this`: `new OpenAI({ fetch: inpage.fetch, baseURL: "http://inpage/v1", … })`.
   * @type {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}
   */
  fetch = (input, init) => respond(() => this.#router.connect(), this.#router.turns, input, init);

  /**
   * Register the service worker `sw.js`, which lies beside the page; with `isolate` the page has threads on a host that
   * sends no headers, after one reload; with `offline` it works without a network after this visit. For pages that start no
   * model themselves, or before they do.
   */
  static register = /** @type {typeof register} */ (async (options) => register(serveOptions(options)));

  /**
   * Take a later version of the site that the service worker has fetched (`onUpdate`): the page is reloaded then, and
   * answers with `keep` can be resumed. Looks for one where none is there yet.
   * @returns {Promise<boolean>} false where there is none, or other pages of the site are open, which need the earlier one
   */
  static update = takeUpdate;

  /**
   * Answer what the site's pages ask of `v1/…`, `health` and `metrics` below the service worker's scope, until `unload`.
   * Registers the worker; `window.fetch` and every client have the endpoint then.
   * @param {import("./serve.js").ServeOptions} [options]
   * @returns {Promise<boolean>} false where there are no service workers: `fetch` of this object answers all the same
   */
  async serve(options) {
    const registration = await registered(false, serveOptions(options));
    if (this.#router.ended) throw this.#router.ended;
    this.#stopServing();
    this.#stopServing = host(registration, this.fetch);
    return registration !== null;
  }

  /**
   * Answers with `keep` that were under way when their page was ended, by the system or a reload; the latest first.
   * @param {string} [keep] only those of this name
   * @returns {Promise<Unfinished[]>}
   */
  unfinished(keep) {
    return unfinished(keep);
  }

  /**
   * Go on with an unfinished answer. The first piece is what there was of it; the rest is token for token what it would
   * have been.
   * @param {string} id of `unfinished`
   * @param {Pick<Params, "signal">} [how]
   * @returns {Answer}
   * @throws {EngineError} invalid_request where there is none; as `chat`
   */
  resume(id, how) {
    return streaming(resuming(id, requestParams(how), (...asked) => this.#router.answer(...asked)));
  }

  /** Forget an unfinished answer. @param {string} id */
  async discard(id) {
    await discard(id);
  }

  /**
   * Perplexity of a text or of ids, by independent windows.
   * @param {string | Ids} text
   * @param {number} [window] tokens
   * @param {string} [model]
   * @returns {Promise<Score>}
   */
  score(text, window, model) {
    return this.#router.ask({ op: "score", ids: ids(text, "ids"), window, model });
  }

  /**
   * Vectors for a text, or for each of a list; texts may be given as token ids. For models that are made for it.
   * @param {string | (string | Ids)[] | Ids} texts
   * @param {EmbedParams} [params]
   * @returns {Promise<Embeddings>}
   * @throws {EngineError} invalid_request, unsupported, queue_full, cancelled
   */
  embed(texts, params) {
    return embed((...asked) => this.#router.ask(...asked), texts, params);
  }

  /**
   * How well documents answer a query, the best first, by a cross-encoder.
   * @param {string} query
   * @param {string[]} documents
   * @param {EmbedParams} [params]
   * @returns {Promise<Ranking>}
   * @throws {EngineError} as `embed`
   */
  rerank(query, documents, params) {
    return rerank((...asked) => this.#router.ask(...asked), query, documents, params);
  }

  /**
   * How many tokens the prompt has that `chat` makes of these messages, also where it is longer than the context: what
   * remains of `info.context` is room for the answer.
   * @param {string | Message[]} messages
   * @param {string} [model]
   * @returns {Promise<number>}
   */
  countTokens(messages, model) {
    return this.#router.ask({ op: "count", messages, model });
  }

  /**
   * Read prompts while nobody waits, so that requests which begin like them start at once. Messages may end with the
   * system's.
   * @param {(string | Message[] | Ids)[]} prompts
   * @param {string} [model]
   * @returns {Promise<number[]>} tokens of each that need not be read any more
   */
  prefetch(prompts, model) {
    return this.#router.ask({ op: "prefetch", prompts: idsOfEach(prompts, "prompts"), model });
  }

  /**
   * Make the system prompts of `settings.kv` ready, and what was exported: from storage, else by reading them.
   * @param {string} [model]
   * @returns {Promise<{imported: number, read: number}>} tokens
   */
  warmUp(model) {
    return this.#router.ask({ op: "warm_up", model });
  }

  /**
   * Store what reading a prompt gave, for `importPrefix` or `warmUp` on a later visit. Reads it first where it was not.
   * @param {string | Message[] | Ids} prompt
   * @param {string} [model]
   * @returns {Promise<number>} tokens
   */
  exportPrefix(prompt, model) {
    return this.#router.ask({ op: "export_prefix", prompt: ids(prompt, "prompt"), model });
  }

  /**
   * @param {string | Message[] | Ids} prompt that was exported
   * @param {string} [model]
   * @returns {Promise<number>} tokens of it that need not be read any more; 0 where nothing fits this engine and version
   */
  importPrefix(prompt, model) {
    return this.#router.ask({ op: "import_prefix", prompt: ids(prompt, "prompt"), model });
  }

  /**
   * Forget kept answers: those that a request gave this tag, or all.
   * @param {string} [tag] also "model:" and a model's id
   * @returns {Promise<number>} how many went; those of the site's bundle stay
   */
  forget(tag) {
    return this.#router.ask({ op: "forget", tag });
  }

  /** Record from now on what the router and its engine do when. @param {string} [model] @returns {Promise<void>} */
  async startTrace(model) {
    await this.#router.ask({ op: "trace", on: true, model });
  }

  /** @param {string} [model] @returns {Promise<string>} what was recorded, a file for chrome://tracing or Perfetto */
  stopTrace(model) {
    return this.#router.ask({ op: "trace", on: false, model });
  }

  /**
   * Make another model known. It is loaded when it is first asked for; `preload` does it at once.
   * @param {ModelOptions} options
   * @returns {Promise<string>} its name, which requests give as `model`
   * @throws {EngineError} invalid_request where the name is taken
   */
  async add(options) {
    return this.#router.add(this.#router.entry(modelOptions(options)));
  }

  /** Load a model now, if it is not. @param {string} [model] @returns {Promise<Info>} */
  preload(model) {
    return this.#router.ask({ op: "preload", model }, ({ progress }) => this.#options.onProgress?.({ ...progress, model }));
  }

  /** Keep a model once it is loaded, or no longer. @param {string} model @param {boolean} [pinned] */
  async pin(model, pinned = true) {
    await this.#router.ask({ op: "pin", model, pinned });
    this.#router.noted({ op: "pin", model, pinned });
  }

  /**
   * Another memory budget (`settings.models.target_memory`) while models are loaded. Where they are beyond it, models that
   * are idle are unloaded, and those that answer or are pinned move to a lower level: their answers go on there. A higher
   * one counts from the next load on.
   * @param {number | null} bytes null: no budget
   * @throws {EngineError} out_of_memory, with the numbers, where such a model fits at no level: nothing changes then
   */
  async setTargetMemory(bytes) {
    await this.#router.ask({ op: "target_memory", bytes });
    this.#router.noted({ op: "target_memory", bytes });
  }

  /** The models in memory, the most recently used first. @returns {Promise<ModelState[]>} */
  loaded() {
    return this.#router.ask({ op: "loaded" });
  }

  /** Which variant runs and why, a line for each: how fast it is, why it cannot run, what went wrong. @param {string} [model] @returns {Promise<string>} */
  explain(model) {
    return this.#router.ask({ op: "explain", model });
  }

  /** Time what was never timed on this device, kernels and variants, now. @param {string} [model] @returns {Promise<Candidate[]>} */
  measure(model) {
    return this.#router.ask({ op: "measure", model });
  }

  /** A text about this device and what runs on it, for bug reports. @param {string} [model] @returns {Promise<string>} */
  report(model) {
    return this.#router.ask({ op: "report", model });
  }

  /** Whether all is well, and if not, why. @returns {Promise<Health>} */
  health() {
    return this.#router.ask({ op: "health" });
  }

  /** Counters, gauges and histograms as Prometheus text. @returns {Promise<string>} */
  metrics() {
    return this.#router.ask({ op: "metrics" });
  }

  /**
   * What the engine did since it was loaded: steps, launches, rows, sampled and, on a GPU, more.
   * @param {string} [model]
   * @returns {Promise<Record<string, number>>}
   */
  counters(model) {
    return this.#router.ask({ op: "counters", model });
  }

  /** `info` as it is now. @returns {Promise<Info>} */
  async refresh() {
    return (this.#router.info = await this.#router.ask({ op: "info" }));
  }

  /**
   * Free one model, once what it answers has ended; it is loaded again when it is asked for. Without a name: free all,
   * Python and the workers too, and what is in flight rejects with code "cancelled". Where other tabs share the router, one
   * of them starts it again, and what they asked goes on there.
   * @param {string} [model]
   */
  async unload(model) {
    if (this.#router.ended) return;
    if (model !== undefined) {
      await this.#router.ask({ op: "unload", model });
      return;
    }
    this.#stopServing();
    await this.#router.unload();
  }
}
