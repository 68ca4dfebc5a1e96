/** @file A plan as the flat program that the C runtime replays (abi.h), and what it must know of the plan. */

import { IO, SERIAL } from "../format/abi.js";

/**
 * @param {import("../format/plan.js").Plan} plan
 * @returns {Int32Array} words
 */
export function encodeProgram(plan) {
  /** @type {number[]} */
  const words = [plan.functions.length];
  for (const fn of plan.functions) {
    words.push(fn.maxRows, fn.launches.length);
    for (const launch of fn.launches) {
      words.push(launch.kernel + (launch.serial ? SERIAL : 0), launch.buffers.length, ...launch.buffers, launch.scalars.length);
      for (const [kind, value] of launch.scalars) words.push(kind, value);
    }
  }
  return Int32Array.from(words);
}

/**
 * The words of inpage_io: ids of the buffers that the runtime itself reads or writes, and the sizes of the plan.
 * @param {import("../format/plan.js").Plan} plan
 * @returns {number[]}
 */
export function encodeIo({ io, vocab, maxima, blocksPerSequence }) {
  /** @type {Record<string, number>} */
  const words = {
    ...io,
    vocab,
    max_rows: maxima.rows,
    max_sequences: maxima.sequences,
    max_logit_rows: maxima.logit_rows,
    blocks_per_sequence: blocksPerSequence,
  };
  return Object.keys(IO).map((name) => words[name]);
}
