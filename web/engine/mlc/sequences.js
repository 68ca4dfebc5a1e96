/** @file Whose keys and values a library has, which keeps those of one sequence, and what it is fed to have another's. */

import { startBeyond } from "../sequential/sequences.js";

export class Sequences {
  /** By number. @type {Map<number, number[]>} */
  #tokens = new Map();
  #current = -1;

  /**
   * A sequence goes on behind its first `start` tokens. What is kept cannot be taken back.
   * @param {number} slot
   * @param {number} start
   * @returns {number[] | null} what is fed again, after a reset; null where the library has just these
   */
  goOn(slot, start) {
    const known = this.#tokens.get(slot) ?? [];
    if (start > known.length) throw startBeyond(slot, start, known.length);
    if (slot === this.#current && start === known.length) return null;
    this.#current = slot;
    this.#tokens.set(slot, []);
    return known.slice(0, start);
  }

  /** The library has these too, of the sequence that went on last. @param {readonly number[]} ids */
  add(ids) {
    this.#tokens.get(this.#current)?.push(...ids);
  }

  /** @param {number} slot */
  drop(slot) {
    this.#tokens.delete(slot);
    if (slot === this.#current) this.#current = -1;
  }
}

/**
 * A call gives the logits of its last token, so each token whose logits are wanted ends one.
 * @param {readonly number[]} ids
 * @param {Iterable<number>} wanted rows of `ids`
 * @returns {{ids: number[], end: number}[]} end: the row of the last of them
 */
export function callsOf(ids, wanted) {
  const ends = [...new Set([...wanted, ids.length - 1])].sort((a, b) => a - b);
  return ends.map((end, i) => ({ ids: ids.slice(i ? ends[i - 1] + 1 : 0, end + 1), end }));
}
