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
import { answer } from "./answer.js";
import { checkMessage } from "../engine/format/json.js";
import { respond } from "./endpoint.js";
import { Link } from "./link.js";
import { ids, modelOptions, requestParams, startOptions, unknown } from "./options.js";
import { host, register } from "./serve.js";
import { artifactUrl, nameOf, placed, siteModels } from "./site.js";
import { storage } from "./storage.js";
import { streaming } from "./streaming.js";
import { DEATHS, Turn, Turns } from "./turns.js";
import { onVisibility } from "./visibility.js";
import { discard, keeping, resuming, unfinished } from "./unfinished.js";

/**
 * @typedef {import("./types.js").Answer} Answer
 * @typedef {import("./types.js").Candidate} Candidate
 * @typedef {import("./types.js").Ids} Ids
 * @typedef {import("./types.js").Info} Info
 * @typedef {import("./types.js").Health} Health
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").ModelOptions} ModelOptions
 * @typedef {import("./types.js").ModelState} ModelState
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").Piece} Piece
 * @typedef {import("./types.js").Score} Score
 * @typedef {import("./types.js").StartOptions} StartOptions
 * @typedef {import("./types.js").Unfinished} Unfinished
 */

/** A router that does not end by itself is ended. */
const UNLOAD_MS = 2000;
/** What carries nothing of a caller's that could end a router, and waits for nobody. */
const HARMLESS = new Set(["info", "explain", "counters", "report", "health", "metrics", "loaded", "pin", "trace", "unload", "measure", "warm_up"]);

export class InPage {
  /** @type {Link} the router worker that lives now */
  #link;
  /** @type {Promise<void>} settled when the router can be asked */
  #ready;
  /** @type {EngineError | null} why nothing can be asked any more */
  #ended = null;
  #unwatch;
  #stopServing = () => {};
  #turns = new Turns();
  #options;
  /** @type {Map<string, object>} what to tell a router of each model, the default first */
  #models = new Map();
  /** @type {Info} of the default model as it was when it last changed; `refresh` asks again */
  info = /** @type {any} */ (null);

  /** What this origin keeps between visits: `list`, `delete`, `persist`, `estimate`. */
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
    this.#options = options;
    for (const each of [options, ...(options.models ?? [])].map((one) => this.#told(one))) this.#models.set(each.model, each);
    this.#link = this.#open();
    this.#ready = this.#load(1);
    this.#unwatch = onVisibility((seen) => {
      if (!this.#link.ended) this.#link.call({ op: "visibility", ...seen }).answer.catch(() => {});
    });
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
    return streaming(keeping({ op: "chat", messages, model }, rest, (...asked) => this.#answer(...asked)));
  }

  /**
   * Continue a text or token ids, without the chat template.
   * @param {string | Ids} prompt
   * @param {Params} [params]
   * @returns {Answer}
   */
  complete(prompt, params) {
    const { model, ...rest } = requestParams(params);
    return streaming(keeping({ op: "complete", prompt: ids(prompt), model }, rest, (...asked) => this.#answer(...asked)));
  }

  /**
   * As `window.fetch`, for OpenAI's interface: a request for `…/v1/chat/completions`, `…/v1/responses`, `…/v1/models`,
   * `…/health` and so on, at whatever base, is answered by the router; nothing goes over the network. Streams go on where
   * the router dies meanwhile. It needs no `this`: `new OpenAI({ fetch: inpage.fetch, baseURL: "http://inpage/v1", … })`.
   * @type {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}
   */
  fetch = (input, init) => respond(() => this.#connect(), this.#turns, input, init);

  /**
   * Register the service worker `sw.js`, which lies beside the page; with `isolate` the page has threads on a host that
   * sends no headers, after one reload. For pages that start no model themselves, or before they do.
   */
  static register = register;

  /**
   * Answer what the site's pages ask of `v1/…`, `health` and `metrics` below the service worker's scope, until `unload`.
   * Registers the worker; `window.fetch` and every client have the endpoint then.
   * @param {import("./serve.js").ServeOptions} [options]
   * @returns {Promise<boolean>} false where there are no service workers: `fetch` of this object answers all the same
   */
  async serve(options) {
    const registration = await register(options);
    if (this.#ended) throw this.#ended;
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
    return streaming(resuming(id, requestParams(how), (...asked) => this.#answer(...asked)));
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
  score(text, window = 512, model = undefined) {
    return this.#ask({ op: "score", ids: ids(text), window, model });
  }

  /**
   * Read prompts while nobody waits, so that requests which begin like them start at once. Messages may end with the
   * system's.
   * @param {(string | Message[] | Ids)[]} prompts
   * @param {string} [model]
   * @returns {Promise<number[]>} tokens of each that need not be read any more
   */
  prefetch(prompts, model) {
    return this.#ask({ op: "prefetch", prompts: Array.isArray(prompts) ? prompts.map(ids) : prompts, model });
  }

  /**
   * Make the system prompts of `settings.kv` ready, and what was exported: from storage, else by reading them.
   * @param {string} [model]
   * @returns {Promise<{imported: number, read: number}>} tokens
   */
  warmUp(model) {
    return this.#ask({ op: "warm_up", model });
  }

  /**
   * Store what reading a prompt gave, for `importPrefix` or `warmUp` on a later visit. Reads it first where it was not.
   * @param {string | Message[] | Ids} prompt
   * @param {string} [model]
   * @returns {Promise<number>} tokens
   */
  exportPrefix(prompt, model) {
    return this.#ask({ op: "export_prefix", prompt: ids(prompt), model });
  }

  /**
   * @param {string | Message[] | Ids} prompt that was exported
   * @param {string} [model]
   * @returns {Promise<number>} tokens of it that need not be read any more; 0 where nothing fits this engine and version
   */
  importPrefix(prompt, model) {
    return this.#ask({ op: "import_prefix", prompt: ids(prompt), model });
  }

  /**
   * Forget kept answers: those that a request gave this tag, or all.
   * @param {string} [tag] also "model:" and a model's id
   * @returns {Promise<number>} how many went; those of the site's bundle stay
   */
  forget(tag) {
    return this.#ask({ op: "forget", tag });
  }

  /** Record from now on what the router and its engine do when. @param {string} [model] @returns {Promise<void>} */
  async startTrace(model) {
    await this.#ask({ op: "trace", on: true, model });
  }

  /** @param {string} [model] @returns {Promise<string>} what was recorded, a file for chrome://tracing or Perfetto */
  stopTrace(model) {
    return this.#ask({ op: "trace", on: false, model });
  }

  /**
   * Make another model known. It is loaded when it is first asked for; `preload` does it at once.
   * @param {ModelOptions} options
   * @returns {Promise<string>} its name, which requests give as `model`
   * @throws {EngineError} invalid_request where the name is taken
   */
  async add(options) {
    modelOptions(options);
    await this.#connect();
    if (this.#models.has(nameOf(options.model))) throw new EngineError("invalid_request", `there is a model ${options.model} already`, "model");
    const told = this.#told(options);
    const name = await this.#ask({ op: "add", ...told });
    this.#models.set(told.model, told); // only now: a router that is started again must not be told what was refused
    return name;
  }

  /** Load a model now, if it is not. @param {string} [model] @returns {Promise<Info>} */
  preload(model) {
    return this.#ask({ op: "preload", model }, ({ progress }) => this.#options.onProgress?.({ ...progress, model }));
  }

  /** Keep a model once it is loaded, or no longer. @param {string} model @param {boolean} [pinned] */
  async pin(model, pinned = true) {
    await this.#ask({ op: "pin", model, pinned });
    Object.assign(this.#models.get(model) ?? {}, { pinned }); // a router that is started again is told so
  }

  /** The models in memory, the most recently used first. @returns {Promise<ModelState[]>} */
  loaded() {
    return this.#ask({ op: "loaded" });
  }

  /** Which variant runs and why, a line for each: how fast it is, why it cannot run, what went wrong. @param {string} [model] @returns {Promise<string>} */
  explain(model) {
    return this.#ask({ op: "explain", model });
  }

  /** Time each variant that was never timed on this device, now. @param {string} [model] @returns {Promise<Candidate[]>} */
  measure(model) {
    return this.#ask({ op: "measure", model });
  }

  /** A text about this device and what runs on it, for bug reports. @param {string} [model] @returns {Promise<string>} */
  report(model) {
    return this.#ask({ op: "report", model });
  }

  /** Whether all is well, and if not, why. @returns {Promise<Health>} */
  health() {
    return this.#ask({ op: "health" });
  }

  /** Counters, gauges and histograms as Prometheus text. @returns {Promise<string>} */
  metrics() {
    return this.#ask({ op: "metrics" });
  }

  /**
   * What the engine did since it was loaded: steps, launches, rows, sampled and, on a GPU, more.
   * @param {string} [model]
   * @returns {Promise<Record<string, number>>}
   */
  counters(model) {
    return this.#ask({ op: "counters", model });
  }

  /** `info` as it is now. @returns {Promise<Info>} */
  async refresh() {
    this.info = await this.#ask({ op: "info" });
    return this.info;
  }

  /**
   * Free one model, once what it answers has ended; it is loaded again when it is asked for. Without a name: free all,
   * Python and the workers too, and what is in flight rejects with code "cancelled".
   * @param {string} [model]
   */
  async unload(model) {
    if (this.#ended) return;
    if (model !== undefined) {
      await this.#ask({ op: "unload", model });
      return;
    }
    const reason = new EngineError("cancelled", "the model was unloaded");
    this.#ended = reason; // nothing is asked any more
    try {
      await Promise.race([this.#link.call({ op: "unload" }).answer, new Promise((resolve) => setTimeout(resolve, UNLOAD_MS))]);
    } catch (error) {
      if (error !== this.#link.ended) throw error; // a router that died has nothing left to free
    } finally {
      this.#end(reason);
    }
  }

  /**
   * What ends with an answer; asked again where the router died over it, in its turn.
   * @param {{op: string, [name: string]: unknown}} message
   * @param {(message: any) => void} [heard]
   * @returns {Promise<any>}
   */
  async #ask(message, heard) {
    checkMessage(message);
    const turn = HARMLESS.has(message.op) ? null : new Turn();
    try {
      for (let deaths = 1; ; deaths++) {
        if (turn) await this.#turns.enter(turn);
        const link = await this.#connect();
        const { id, answer } = link.call(message, (event) => {
          if (turn) this.#turns.got(turn);
          heard?.(event);
        });
        if (turn) Object.assign(turn, { router: link, call: id });
        try {
          return await answer;
        } catch (error) {
          if (error !== link.ended || this.#ended) throw error;
          if ((turn?.deaths ?? deaths) < DEATHS) continue;
          if (!turn) throw error;
          throw new EngineError("poison_request", `the router died ${DEATHS} times with this request alone: ${link.ended?.message}`);
        }
      }
    } finally {
      if (turn) this.#turns.leave(turn);
    }
  }

  /**
   * @param {object} message
   * @param {Params} params
   */
  #answer(message, params) {
    return answer(() => this.#connect(), this.#turns, message, params);
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
    const link = new Link((heard) => this.#heard(heard), () => this.#turns.died(link, link.blamed));
    return link;
  }

  /**
   * Start Python and load the model. A failure is final.
   * @param {number} attempts how many workers may die over it
   * @returns {Promise<void>}
   */
  async #load(attempts) {
    const { base, onProgress } = this.#options;
    const settings = placed(base, this.#options.settings);
    const [first, ...models] = this.#models.values();
    const link = this.#link;
    try {
      onProgress?.({ phase: "python" });
      const { deviceMemory: device_memory } = /** @type {{deviceMemory?: number}} */ (globalThis.navigator);
      const load = { op: "load", ...first, settings, models, device_memory };
      this.info = await link.call(load, ({ progress }) => onProgress?.(progress)).answer;
    } catch (error) {
      if (attempts > 1 && error === link.ended && !this.#ended) {
        this.#link = this.#open();
        return this.#load(attempts - 1);
      }
      const missing = error instanceof EngineError && error.code === "artifact_invalid" && (await this.#missing());
      this.#end(missing || (error instanceof EngineError ? error : new EngineError("error", String(error))));
      throw this.#ended;
    }
  }

  /** Whether the site says that it does not have the model. @returns {Promise<EngineError | null>} */
  async #missing() {
    const known = await siteModels(this.#options.base);
    const [id] = this.#options.model.split("#");
    return !known || /[/:]/.test(id) || known.includes(id) ? null : unknown("model", id, known);
  }

  /** What belongs to no call. @param {{changed?: Info, progress?: object, model: string, default?: boolean}} heard */
  #heard({ changed, progress, model, default: first }) {
    if (progress) this.#options.onProgress?.(/** @type {any} */ ({ ...progress, model }));
    if (!changed) return;
    if (first) this.info = changed;
    this.#options.onChange?.(changed);
  }

  /** What a router is told of it. @param {ModelOptions} options */
  #told({ model, backend, threads, replicas, pinned }) {
    return { model: nameOf(model), artifact: artifactUrl(this.#options.base, model), backend, threads, replicas, pinned };
  }

  /** @param {EngineError} reason */
  #end(reason) {
    this.#ended ??= reason;
    this.#unwatch?.();
    this.#stopServing();
    this.#link.end(reason);
    this.#turns.close();
  }
}
