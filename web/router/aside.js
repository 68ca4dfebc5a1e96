/**
 * @file A worker of texts (text_worker.js) that is there while it is needed: made with the first call, ended some seconds
 * after the last, so that short prompts never cost its memory. Where there can be none, the work is done here.
 */

import { fromWire } from "../engine/errors.js";

const IDLE_MS = 10_000;

/** @typedef {{texts: string[]} | {variables: string}} Asked */

export class Aside {
  #described;
  #here;
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Map<number, {asked: Asked, resolve: (value: any) => void, reject: (error: unknown) => void}>} */
  #pending = new Map();
  #next = 1;
  #idle = 0;

  /**
   * @param {{tokenizer: string} | {template: string}} described what it does
   * @param {(asked: any) => unknown} here the same in this thread
   */
  constructor(described, here) {
    this.#described = described;
    this.#here = here;
  }

  /** @param {Asked} asked @returns {Promise<any>} */
  async call(asked) {
    if (!("Worker" in globalThis)) return this.#here(asked); // Node
    clearTimeout(this.#idle);
    const worker = (this.#worker ??= this.#start());
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { asked, resolve, reject });
      worker.postMessage({ id, ...asked });
    });
  }

  /** @returns {Worker} */
  #start() {
    const worker = new Worker(new URL("./text_worker.js", import.meta.url), { type: "module", name: "inpage-texts" });
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#pending.get(data.id) ?? {};
      this.#pending.delete(data.id);
      if (data.error) reject?.(fromWire(data.error));
      else resolve?.(data.value);
      if (!this.#pending.size) this.#idle = setTimeout(() => this.#end(), IDLE_MS);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end();
    };
    worker.postMessage(this.#described);
    return worker;
  }

  #end() {
    this.#worker?.terminate();
    this.#worker = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { asked, resolve, reject } of pending) {
      new Promise((done) => done(this.#here(asked))).then(resolve, reject);
    }
  }
}
