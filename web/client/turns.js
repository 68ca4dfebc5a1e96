/**
 * @file Whose turn it is, and who is to blame: requests run together until a router dies. Those that were in flight then
 * are suspects, and each goes on only when every other that runs has shown, by a token, that it does no harm. Where the
 * router had said whom it worked for, or a lone suspect's router died again, that one is accused: it runs when nothing else
 * does. Two routers that died over it alone, without a token in between, make it the poison. Requests that had no part in
 * it go first.
 */

import { EngineError } from "../engine/format/errors.js";

/** Deaths with nothing else in flight. */
export const DEATHS = 2;
/** Requests that may pass one that waits because it is under suspicion. */
const PASSES = 16;
/** Operations that carry nothing of a caller's that could end a router, and wait for nobody. */
export const HARMLESS = new Set(["info", "explain", "counters", "report", "health", "metrics", "loaded", "pin", "target_memory", "trace", "unload", "measure", "warm_up"]);
const FREE = 0;
const SUSPECT = 1;
const ACCUSED = 2;

/** A request, for as long as it has no answer. */
export class Turn {
  /** It came this far with the router that lives. */
  proven = false;
  suspicion = FREE;
  /** How often a router died over it alone since its last token. */
  deaths = 0;
  /** Waiting requests that are free have rank 0. */
  rank = 0;
  passed = 0;
  /** @type {unknown} the router that has it */
  router = null;
  /** @type {number | null} the call's there */
  call = null;
  admit = () => {};
}

/** @param {EngineError | null} last what the router died of the last time @returns {EngineError} of a request with so many deaths */
export function poisoned(last) {
  return new EngineError("poison_request", `the router died ${DEATHS} times with this request alone: ${last?.message}`);
}

/** @typedef {{suspicion: number, deaths: number, rank: number}} Standing what a turn takes along to another router's turns */

/** @param {Turn} turn @returns {Standing} */
export function standing({ suspicion, deaths, rank }) {
  return { suspicion, deaths, rank };
}

export class Turns {
  /** @type {Set<Turn>} */
  #running = new Set();
  /** @type {Turn[]} by rank */
  #waiting = [];
  #closed = false;
  /** Who was lost has not come again yet: the least suspicious are to be first. */
  #gathering = false;

  /** @param {Turn} turn @returns {Promise<void>} settled when it may be asked for */
  enter(turn) {
    this.#running.delete(turn);
    Object.assign(turn, { proven: false, passed: 0, router: null, call: null });
    const at = this.#waiting.findIndex(({ rank }) => rank > turn.rank);
    this.#waiting.splice(at < 0 ? this.#waiting.length : at, 0, turn);
    const admitted = new Promise((resolve) => (turn.admit = () => resolve(undefined)));
    this.#admit();
    return /** @type {Promise<void>} */ (admitted);
  }

  /** It has an answer, or wants none. @param {Turn} turn */
  leave(turn) {
    this.#waiting = this.#waiting.filter((each) => each !== turn);
    this.#running.delete(turn);
    this.#admit();
  }

  /** It gets on. @param {Turn} turn */
  got(turn) {
    if (turn.proven && !turn.suspicion) return;
    Object.assign(turn, { proven: true, suspicion: FREE, deaths: 0, rank: 0 });
    this.#admit();
  }

  /**
   * A router died. Who was in flight there comes again by `enter`.
   * @param {unknown} router
   * @param {number | null} blamed the call that it worked for, where that is known
   */
  died(router, blamed) {
    const lost = [...this.#running].filter((turn) => turn.router === router);
    for (const turn of lost) this.#running.delete(turn);
    const known = lost.find(({ call }) => call !== null && call === blamed);
    // It worked for a request that nobody waits for any more: those that were in flight beside it are free.
    const abandoned = blamed !== null && !known && lost.length > 1;
    const unproven = lost.filter(({ proven }) => !proven);
    const caught = lost.length === 1 ? lost[0] : (known ?? (unproven.length === 1 && unproven[0].suspicion ? unproven[0] : null));
    if (lost.length === 1) lost[0].deaths++;
    for (const turn of lost) {
      if (turn === caught) turn.suspicion = ACCUSED;
      else if (!caught && !abandoned) turn.suspicion = Math.max(turn.suspicion, SUSPECT);
      turn.rank = 2 * turn.suspicion - Number(turn.proven && turn.suspicion === SUSPECT);
    }
    this.#gathering = true;
    setTimeout(() => {
      this.#gathering = false;
      this.#admit();
    });
    this.#admit();
  }

  /** Nothing is answered any more: who waits may learn so. */
  close() {
    this.#closed = true;
    this.#admit();
  }

  #admit() {
    const admitted = this.#waiting.filter((turn) => {
      const may = this.#may(turn);
      if (may) this.#running.add(turn);
      return may;
    });
    if (!admitted.length) return;
    this.#waiting = this.#waiting.filter((turn) => !this.#running.has(turn));
    const free = admitted.filter(({ suspicion }) => !suspicion).length;
    for (const turn of this.#waiting) if (turn.suspicion) turn.passed += free;
    for (const turn of admitted) turn.admit();
  }

  /** @param {Turn} turn */
  #may({ suspicion }) {
    if (this.#closed) return true;
    if (suspicion && this.#gathering) return false;
    const running = [...this.#running];
    if (suspicion === ACCUSED) return running.length === 0;
    if (suspicion === SUSPECT) return running.every(({ proven }) => proven);
    return running.every((other) => other.proven || !other.suspicion) && !this.#waiting.some((other) => other.suspicion && other.passed >= PASSES);
  }
}
