/**
 * @file A burst in slices: how long each may be where somebody listens (py/inpage/engines/batch.py, `next_slice`, says the
 * same for the native engine), and what happens between two of them.
 */

import { SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";

/**
 * How many steps to run before telling again, after `steps` that took so long: four times as many, until that takes `tellMs`.
 * @param {number} steps
 * @param {number} tookMs
 * @param {number} tellMs
 * @returns {number}
 */
export function nextSlice(steps, tookMs, tellMs) {
  return Math.max(1, Math.min(4 * steps, Math.round((tellMs * steps) / tookMs) || 4 * steps));
}

/**
 * Whether and why each sequence has finished.
 * @param {Int32Array} words that hold inpage_sequence structs
 * @param {number} first word of the first
 * @param {number} n
 * @returns {Int32Array} [n]
 */
export function finishedOf(words, first, n) {
  return Int32Array.from({ length: n }, (_, i) => words[first + i * SEQUENCE_WORDS + SEQUENCE.finished]);
}

/** Lets messages in. A timer would wait for milliseconds. @returns {Promise<void>} */
export function soon() {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
