/**
 * @file One life of the router worker: calls go in as JSON, answers come back (py/inpage/worker/messages.py says
 * which). However it ends, hung workers included (watch.js), all pending calls reject.
 */

import { EngineError, fromWire } from "../engine/format/errors.js";
import { toJson } from "../engine/format/json.js";
import { place } from "../engine/host/places.js";
import { startWorker } from "../engine/host/workers.js";
import { Watch } from "./watch.js";

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {(message: any) => void} [heard] progress, the beginning and pieces
 */

export class Link {
  #worker;
  #endWorker;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #next = 1;
  /** @type {EngineError | null} */
  #ended = null;
  #heard;
  #died;
  #watch = new Watch(() => this.#worker.postMessage("ping"), (why) => this.end(gone(why)));
  /** The call that the worker was at when it died, where that is known. @type {number | null} */
  blamed = null;
  /** It ended because this page gave its router up, for another to start one. */
  left = false;

  /**
   * @param {(message: any) => void} heard what belongs to no call
   * @param {() => void} [died] called before what is pending rejects
   */
  constructor(heard, died = () => {}) {
    this.#heard = heard;
    this.#died = died;
    const { worker, end } = startWorker(place("router/worker.js"), "router", (error) => this.end(error));
    worker.onmessage = (event) => {
      this.#watch.heard();
      if (event.data !== "pong") this.#receive(JSON.parse(event.data));
    };
    this.#worker = worker;
    this.#endWorker = end;
  }

  /** Why nothing can be asked any more. @returns {EngineError | null} */
  get ended() {
    return this.#ended;
  }

  /**
   * @param {object} message
   * @param {(message: any) => void} [heard]
   * @param {import("./turns.js").Turn | null} [_turn] the caller's: a link to another tab's router takes it along
   * @returns {{id: number, answer: Promise<any>}} the answer rejects with `ended` where the worker died over it
   */
  call(message, heard, _turn = null) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => {
      const text = toJson({ id, ...message });
      if (this.#ended) throw this.#ended;
      this.#pending.set(id, { resolve, reject, heard });
      this.#worker.postMessage(text);
      this.#watch.on = true;
    });
    return { id, answer };
  }

  /** End a request from outside. @param {number} id */
  cancel(id) {
    if (this.#pending.has(id)) this.#worker.postMessage(JSON.stringify({ op: "cancel", id }));
  }

  /**
   * @param {EngineError} reason
   * @param {boolean} [left] nothing went wrong: what is pending is asked elsewhere, and nobody is to blame
   */
  end(reason, left = false) {
    if (this.#ended) return;
    this.#ended = reason;
    this.left = left;
    this.#watch.on = false;
    this.#endWorker();
    this.blamed ??= this.#watch.job?.id ?? null;
    if (!left) this.#died();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(reason);
  }

  /** @param {any} message */
  #receive(message) {
    if (message.fatal) {
      if (Number.isInteger(message.id)) this.blamed = message.id;
      this.end(fromWire({ field: null, ...message.fatal }));
      return;
    }
    if (message.job !== undefined) {
      this.#watch.job = message.job;
      return;
    }
    if (message.id === undefined) {
      this.#heard(message);
      return;
    }
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.progress || message.begun || message.piece || message.chunk !== undefined) {
      pending.heard?.(message);
      return;
    }
    this.#pending.delete(message.id);
    if (!this.#pending.size) this.#watch.on = false;
    if (message.error) pending.reject(fromWire(message.error));
    else pending.resolve(message.value);
  }
}

/** @param {string} why */
function gone(why) {
  return new EngineError("device_lost", `the router worker is gone: ${why}`);
}
