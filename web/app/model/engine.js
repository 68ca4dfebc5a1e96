/**
 * @file The model that answers: not loaded before a person says so, loaded again after it failed, changed for another.
 * Whoever needs it waits for `ready`, however often loading fails meanwhile.
 */

import { InPage } from "../../client/inpage.js";
import { EngineError } from "../../engine/format/errors.js";

/**
 * @typedef {import("../../client/inpage.js").Info} Info
 * @typedef {import("../types.js").Settings} Settings
 * @typedef {import("../types.js").Site} Site
 * @typedef {"idle" | "loading" | "ready" | "failed"} State
 * @typedef {{phase: string, loaded?: number, total?: number, fromCache?: boolean | number}} Progress
 */

/** What the service worker does: the site works offline after this visit, and its pages have the endpoint. */
export const OFFLINE = { offline: true, isolate: true };

export class Engine {
  /** @type {State} */
  state = "idle";
  /** @type {unknown} why it failed */
  error = null;
  /** @type {InPage | null} */
  inpage = null;
  #site;
  #on;
  /** @type {((inpage: InPage) => void)[]} */
  #waiting = [];
  /** Of the load that counts: an earlier one's end is nobody's. */
  #load = 0;
  /** @type {AbortController | null} */
  #stop = null;
  /** Until what was loaded before is gone: another start in this tab would find its router still there, and join it. @type {Promise<void>} */
  #left = Promise.resolve();

  /**
   * @param {Site} site
   * @param {{change: () => void, progress: (event: Progress) => void, info: (info: Info) => void, update: () => void}} on
   */
  constructor(site, on) {
    this.#site = site;
    this.#on = on;
  }

  /** @returns {Info | null} */
  get info() {
    return this.inpage?.info ?? null;
  }

  /** Load what the settings say; what is loaded goes first. @param {Settings} settings */
  async start({ model, level, backend, threads }) {
    const load = ++this.#load;
    this.#stop?.abort();
    this.#leave();
    const stop = (this.#stop = new AbortController());
    this.#set("loading", null);
    this.#on.progress({ phase: "python" });
    try {
      await this.#left;
      const inpage = await InPage.start({
        base: new URL("./", document.baseURI).href,
        model: level ? `${model}#${level}` : /** @type {string} */ (model),
        backend: backend ?? undefined,
        threads: threads ?? undefined,
        shared: true, // a second tab costs no second copy of the model
        settings: this.#site.answers ? { answers: { enabled: true, bundle: this.#site.answers } } : undefined,
        signal: stop.signal,
        onProgress: (event) => load === this.#load && this.#on.progress(event),
        onChange: (info) => load === this.#load && this.inpage && this.#on.info(info),
      });
      if (load !== this.#load) {
        await inpage.unload();
        return;
      }
      this.inpage = inpage;
      this.#set("ready", null);
      this.#on.info(inpage.info);
      for (const go of this.#waiting.splice(0)) go(inpage);
      void inpage.serve({ ...OFFLINE, onUpdate: this.#on.update }).catch(() => {}); // without a service worker all else works
    } catch (error) {
      if (load === this.#load) this.#set("failed", error);
    }
  }

  /** It is gone: it has to be loaded again. @param {unknown} error */
  lost(error) {
    this.#leave();
    this.#set("failed", error);
  }

  #leave() {
    const { inpage } = this;
    this.inpage = null;
    if (inpage) this.#left = this.#left.then(() => inpage.unload()).catch(() => {}); // one that cannot be freed any more is gone as well
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<InPage>} rejects only when the signal says so
   */
  ready(signal) {
    if (this.inpage) return Promise.resolve(this.inpage);
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve);
      signal.addEventListener("abort", () => {
        this.#waiting = this.#waiting.filter((each) => each !== resolve);
        reject(new EngineError("cancelled", "stopped before the model was loaded"));
      }, { once: true });
    });
  }

  /** @param {State} state @param {unknown} error */
  #set(state, error) {
    this.state = state;
    this.error = error;
    this.#on.change();
  }
}
