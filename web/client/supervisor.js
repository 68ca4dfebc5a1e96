/**
 * @file The router of an `InPage`: started, started again where it died, or, where tabs share one, that of another tab.
 * Requests go on where they were (answer.js, exchange.js); what ends with an answer is asked again here.
 */

import { EngineError } from "../engine/format/errors.js";
import { plain } from "../engine/format/json.js";
import { place } from "../engine/host/places.js";
import { unlessAborted } from "./aborted.js";
import { answer } from "./answer.js";
import { Link } from "./link.js";
import { unknown } from "./options.js";
import { artifactUrl, nameOf, placed, siteModels } from "./site.js";
import { DEATHS, HARMLESS, poisoned, Turn, Turns } from "./turns.js";
import { onVisibility } from "./visibility.js";

/**
 * @typedef {import("./remote.js").AnyLink} AnyLink
 * @typedef {import("./types.js").Info} Info
 * @typedef {import("./types.js").ModelOptions} ModelOptions
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").StartOptions} StartOptions
 * @typedef {{model: string, artifact: string, backend?: string, threads?: number, replicas?: number, pinned?: boolean}} ModelEntry
 */

/** A router that does not end by itself is ended. */
const UNLOAD_MS = 2000;

export class Supervisor {
  /** The router that lives; none while it is looked for. @type {AnyLink | null} */
  #link = null;
  /** @type {import("./tabs.js").Tabs | null} where tabs share a router */
  #tabs = null;
  #loading = false;
  /** Why nothing can be asked any more. @type {EngineError | null} */
  ended = null;
  #unwatch;
  #options;
  /** @type {Map<string, ModelEntry>} what to tell a router of each model, the default first */
  #models = new Map();
  /** Those of them that other tabs added. @type {Set<string>} */
  #foreign = new Set();
  turns = new Turns();
  /** @type {Info} of the default model as it was when it last changed */
  info = /** @type {any} */ (null);

  /** @param {StartOptions} options */
  constructor(options) {
    this.#options = options;
    for (const each of [options, ...(options.models ?? [])].map((one) => this.entry(one))) this.#models.set(each.model, each);
    /** Settled when the router can be asked. @type {Promise<void>} */
    this.ready = this.#begin(1);
    this.#unwatch = onVisibility((seen) => (this.#tabs ? this.#tabs.see(seen) : this.tellSeen(seen)));
  }

  /** @returns {ModelEntry[]} the default first */
  get models() {
    return [...this.#models.values()];
  }

  /** A model as a router's op "add" takes it. @param {ModelOptions} options @returns {ModelEntry} */
  entry({ model, backend, threads, replicas, pinned }) {
    return { model: nameOf(model), artifact: artifactUrl(this.#options.base, model), backend, threads, replicas, pinned };
  }

  /** The router that lives; one that died is started again. @returns {Promise<AnyLink>} */
  async connect() {
    for (;;) {
      if (this.ended) throw this.ended;
      if (this.#link?.ended && !this.#loading) this.ready = this.#begin(2);
      await this.ready;
      if (this.#link) return this.#link;
    }
  }

  /**
   * What ends with an answer; asked again where the router died over it, in its turn.
   * @param {{op: string, [name: string]: unknown}} asked
   * @param {(message: any) => void} [heard]
   * @param {AbortSignal} [signal] rejects with code "cancelled" at once, whatever was waited for, and ends it at the router
   * @returns {Promise<any>}
   */
  async ask(asked, heard, signal) {
    const message = plain(asked);
    const turn = HARMLESS.has(message.op) ? null : new Turn();
    try {
      for (let deaths = 1; ; deaths++) {
        if (turn) await unlessAborted(this.turns.enter(turn), signal);
        const link = await unlessAborted(this.connect(), signal);
        const { id, answer } = link.call(message, (event) => {
          if (signal?.aborted) return;
          if (turn) this.turns.got(turn);
          heard?.(event);
        }, turn);
        if (turn) Object.assign(turn, { router: link, call: id });
        try {
          return await unlessAborted(answer, signal, () => link.cancel(id));
        } catch (error) {
          if (error !== link.ended || this.ended) throw error;
          if ((turn?.deaths ?? deaths) < DEATHS) continue;
          if (!turn) throw error;
          throw poisoned(link.ended);
        }
      }
    } finally {
      if (turn) this.turns.leave(turn);
    }
  }

  /**
   * @param {object} message
   * @param {Params} params
   */
  answer(message, params) {
    return answer(() => this.connect(), this.turns, message, params);
  }

  /** @param {ModelEntry} entry @returns {Promise<string>} the model's name */
  async add(entry) {
    await this.connect();
    if (this.#foreign.delete(entry.model) && this.knows(entry)) return entry.model;
    if (this.#models.has(entry.model)) throw new EngineError("invalid_request", `there is a model ${entry.model} already`, "model");
    const name = await this.ask({ op: "add", ...entry });
    this.#models.set(entry.model, entry); // only now: a router that is started again must not be told what was refused
    return name;
  }

  /** Whether another tab added the very same model. @param {ModelEntry} entry */
  knows({ model, artifact, backend, threads, replicas }) {
    const known = this.#models.get(model);
    return known?.artifact === artifact && known.backend === backend && known.threads === threads && known.replicas === replicas;
  }

  /** The router did what a router that is started again must be told. @param {any} message */
  noted({ op, ...message }) {
    if (op === "add" && !this.#models.has(message.model)) {
      this.#models.set(message.model, message);
      this.#foreign.add(message.model);
    }
    if (op === "target_memory") {
      const { settings } = this.#options;
      this.#options = { ...this.#options, settings: { ...settings, models: { ...settings?.models, target_memory: message.bytes } } };
    }
    if (op === "pin") Object.assign(this.#models.get(message.model) ?? {}, { pinned: message.pinned });
  }

  /** Models that another tab knows. @param {ModelEntry[]} models */
  async learn(models) {
    for (const entry of models.filter(({ model }) => !this.#models.has(model))) {
      await this.add(entry).then(
        () => this.#foreign.add(entry.model),
        () => {}, // whoever asks for it is told
      );
    }
  }

  /** Free all. What is in flight rejects with code "cancelled", or goes on in another tab where that asked for it. */
  async unload() {
    if (this.ended) return;
    const reason = new EngineError("cancelled", "the model was unloaded");
    const link = this.#link;
    this.ended = reason; // nothing is asked any more
    try {
      if (link instanceof Link && !this.#tabs?.shared) {
        await Promise.race([link.call({ op: "unload" }).answer, new Promise((resolve) => setTimeout(resolve, UNLOAD_MS))]);
      }
    } catch (error) {
      if (error !== link?.ended) throw error; // a router that died has nothing left to free
    } finally {
      this.end(reason);
    }
  }

  /** @param {EngineError} reason */
  end(reason) {
    this.ended ??= reason;
    this.#unwatch?.();
    this.#tabs?.close();
    this.#link?.end(reason);
    this.turns.close();
  }

  /** @returns {Link} a router of this tab's own */
  open() {
    /** @type {Link} */
    const link = new Link(
      (heard) => {
        this.heard(heard);
        this.#tabs?.tell(heard);
      },
      () => {
        this.turns.died(link, link.blamed);
        this.#tabs?.died(link);
      },
    );
    return link;
  }

  /** Another tab is to have the router. */
  leave() {
    if (this.#link instanceof Link) this.#link.end(this.ended ?? new EngineError("device_lost", "this tab gave its router up"), true);
  }

  /** There is to be a router, though nobody here asks for anything. */
  wake() {
    this.connect().catch(() => {}); // who asks is told
  }

  /** @param {import("./visibility.js").Seen} seen */
  tellSeen(seen) {
    if (this.#link instanceof Link && !this.#link.ended) this.#link.call({ op: "visibility", ...seen }).answer.catch(() => {});
  }

  /** What belongs to no call. @param {{changed?: Info, progress?: object, leak?: any, model?: string, default?: boolean}} heard */
  heard({ changed, progress, leak, model, default: first }) {
    if (leak) void this.#suspect(leak);
    if (progress) this.#options.onProgress?.(/** @type {any} */ (model === undefined ? progress : { ...progress, model }));
    if (!changed) return;
    if (first) this.info = changed;
    this.#options.onChange?.(changed);
  }

  /** @param {any} report */
  async #suspect(report) {
    const { withHeap } = await import("./leak.js");
    const leak = await withHeap(report);
    console.warn(`inpage: ${leak.suspicion}`, leak);
    this.#options.onLeak?.(leak);
  }

  /** @param {number} attempts how many workers may die over it @returns {Promise<void>} */
  #begin(attempts) {
    this.#loading = true;
    this.#link = null;
    return this.#load(attempts).finally(() => (this.#loading = false));
  }

  /** Start Python and load the model, or find the tab that has. A failure is final. @param {number} attempts @returns {Promise<void>} */
  async #load(attempts) {
    /** @type {AnyLink | null} */
    let link = null;
    try {
      link = this.#options.shared ? await this.#join() : this.open();
      this.#link = link;
      if (this.ended) throw (link.end(this.ended), this.ended);
      this.info = await (link instanceof Link ? this.#start(link) : link.welcome);
      this.#tabs?.loaded();
    } catch (error) {
      const lost = link !== null && error === link.ended && !this.ended;
      // Another tab's router that ended while this one waited for it counts for nothing.
      const own = link instanceof Link && !link.left;
      if (lost && (!own || attempts > 1)) {
        this.#link = null;
        return this.#load(own ? attempts - 1 : attempts);
      }
      const missing = error instanceof EngineError && error.code === "artifact_invalid" && (await this.#missing());
      this.end(missing || (error instanceof EngineError ? error : new EngineError("error", String(error))));
      throw this.ended;
    }
  }

  /** @param {Link} link @returns {Promise<Info>} */
  #start(link) {
    const { base } = this.#options;
    const settings = placed(base, this.#options.settings);
    const [first, ...models] = this.#models.values();
    const progressed = (/** @type {object} */ progress) => {
      this.heard({ progress });
      this.#tabs?.tell({ progress });
    };
    progressed({ phase: "python" });
    const { deviceMemory: device_memory } = /** @type {{deviceMemory?: number}} */ (globalThis.navigator);
    const load = { op: "load", ...first, settings, models, device_memory };
    return link.call(load, ({ progress }) => progressed(progress)).answer;
  }

  /** Where tabs share a router: that of another tab, or one for all. @returns {Promise<AnyLink>} */
  async #join() {
    if (!this.#tabs) {
      const { base, model, settings = {} } = this.#options;
      const entries = this.models; // as they were when it started
      const { joined } = await import("./tabs.js");
      this.#tabs = await joined({ code: place("router/worker.js").href, model, entries, settings: placed(base, settings) }, this);
      if (this.ended) this.#tabs?.close();
    }
    return this.#tabs ? this.#tabs.open() : this.open();
  }

  /** Whether the site says that it does not have the model. @returns {Promise<EngineError | null>} */
  async #missing() {
    const known = await siteModels(this.#options.base);
    const [id] = this.#options.model.split("#");
    return !known || /[/:]/.test(id) || known.includes(id) ? null : unknown("model", id, known);
  }
}
