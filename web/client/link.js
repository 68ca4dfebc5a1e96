/**
 * @file One life of the router worker: calls go in as JSON, answers come back (py/inpage/page.py says which). However it
 * ends, all pending calls reject, and `lost` is told once.
 */

import { EngineError, fromWire } from "../engine/errors.js";
import { whenFree } from "../engine/site_data.js";

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {(message: any) => void} [heard] progress, the beginning and pieces
 */

export class Link {
  #worker;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #next = 1;
  /** @type {EngineError | null} */
  #ended = null;
  #heard;

  /**
   * @param {(message: any) => void} heard what belongs to no call
   */
  constructor(heard) {
    this.#heard = heard;
    const name = `inpage-router-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    this.#worker = new Worker(new URL("../router/worker.js", import.meta.url), { type: "module", name });
    const lost = (/** @type {string} */ why) => this.end(new EngineError("device_lost", `the router worker is gone: ${why}`));
    this.#worker.onmessage = (event) => {
      // It holds the lock for as long as it lives: getting it means that it is gone.
      if (event.data === "alive") whenFree(name, () => lost("it ended without a word"));
      else this.#receive(JSON.parse(event.data));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      lost(event.message || "its script cannot be loaded");
    };
  }

  /** Why nothing can be asked any more. @returns {EngineError | null} */
  get ended() {
    return this.#ended;
  }

  /**
   * @param {object} message
   * @param {(message: any) => void} [heard]
   * @returns {{id: number, answer: Promise<any>}}
   */
  call(message, heard) {
    const id = this.#next++;
    const ended = this.#ended;
    if (ended) return { id, answer: Promise.reject(ended) };
    const answer = new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, heard });
      this.#worker.postMessage(JSON.stringify({ id, ...message }));
    });
    return { id, answer };
  }

  /** End a request from outside. @param {number} id */
  cancel(id) {
    if (this.#pending.has(id)) this.#worker.postMessage(JSON.stringify({ op: "cancel", id }));
  }

  /** @param {EngineError} reason */
  end(reason) {
    if (this.#ended) return;
    this.#ended = reason;
    this.#worker.terminate();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(reason);
  }

  /** @param {any} message */
  #receive(message) {
    if (message.fatal) {
      this.end(new EngineError("device_lost", message.fatal));
      return;
    }
    if (message.id === undefined) {
      this.#heard(message);
      return;
    }
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.progress || message.begun || message.piece) {
      pending.heard?.(message);
      return;
    }
    this.#pending.delete(message.id);
    if (message.error) pending.reject(fromWire(message.error));
    else pending.resolve(message.value);
  }
}
