/**
 * @file A worker of texts (text_worker.js) that is there while it is needed: made with the first call, ended some seconds
 * after the last, so that short prompts never cost its memory. Where there can be none, or its script does not come, the
 * work is done here; where one is at a text for too long, which a tokenizer's regular expression can be for ever, that text
 * alone fails.
 */

import { EngineError, fromWire } from "../engine/format/errors.js";
import { place } from "../engine/host/places.js";
import { STALL_MS } from "../engine/host/waits.js";
import { startWorker } from "../engine/host/workers.js";

const IDLE_MS = 10_000;
/** What a worker may take, its start included (STALL_MS at most), and more for each character: a phone takes ten times a desktop's time. */
const LONG_MS = 20_000;
const CHARACTER_MS = 0.05;

/** @typedef {{texts: string[]}} Asked */

export class Aside {
  #described;
  #here;
  /** @type {import("../engine/host/workers.js").Started | null} */
  #worker = null;
  /** Its script did not come: nobody waits for it a second time. */
  #none = false;
  /** @type {Map<number, {asked: Asked, resolve: (value: any) => void, reject: (error: unknown) => void}>} */
  #pending = new Map();
  #next = 1;
  #idle = 0;
  /** Of the call that the worker is at: it takes them in order. */
  #limit = 0;

  /**
   * @param {{tokenizer: import("./texts.js").Description}} described what it does
   * @param {(asked: Asked) => unknown} here the same in this thread
   */
  constructor(described, here) {
    this.#described = described;
    this.#here = here;
  }

  /** @param {Asked} asked @returns {Promise<any>} */
  async call(asked) {
    if (this.#none || !("Worker" in globalThis)) return this.#here(asked); // Node
    clearTimeout(this.#idle);
    const { worker } = (this.#worker ??= this.#start());
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { asked, resolve, reject });
      worker.postMessage({ id, ...asked });
      if (this.#pending.size === 1) this.#watch();
    });
  }

  #watch() {
    clearTimeout(this.#limit);
    const [first] = this.#pending;
    if (!first) return;
    const [id, { asked, reject }] = first;
    const ms = LONG_MS + CHARACTER_MS * asked.texts.reduce((sum, { length }) => sum + length, 0);
    this.#limit = setTimeout(() => {
      this.#pending.delete(id);
      reject(new EngineError("timeout", `the prompt was not tokenized within ${Math.round(ms / 1000)} s: shorten it`, "prompt"));
      this.#worker?.end();
      this.#worker = this.#pending.size ? this.#start() : null;
      for (const [next, { asked }] of this.#pending) this.#worker?.worker.postMessage({ id: next, ...asked });
      this.#watch();
    }, ms);
  }

  /** @returns {import("../engine/host/workers.js").Started} */
  #start() {
    const lost = (/** @type {EngineError} */ { code }) => {
      this.#none ||= code === "network";
      this.#end();
    };
    const started = startWorker(place("router/text_worker.js"), "text", lost, STALL_MS);
    const { worker } = started;
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#pending.get(data.id) ?? {};
      this.#pending.delete(data.id);
      if (data.error) reject?.(fromWire(data.error));
      else resolve?.(data.value);
      this.#watch();
      if (!this.#pending.size) this.#idle = setTimeout(() => this.#end(), IDLE_MS);
    };
    worker.postMessage(this.#described);
    return started;
  }

  #end() {
    clearTimeout(this.#limit);
    this.#worker?.end();
    this.#worker = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { asked, resolve, reject } of pending) {
      new Promise((done) => done(this.#here(asked))).then(resolve, reject);
    }
  }
}
