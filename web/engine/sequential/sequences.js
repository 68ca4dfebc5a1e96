/** @file The sequences of a step, for engines that keep the cache of each themselves. */

import { EngineError } from "../format/errors.js";

/**
 * @typedef {import("../core/protocol.js").StepInput} StepInput
 * @typedef {{slot: number, first: number, count: number}} Sequence its rows in a step
 */

/**
 * Rows that belong together.
 * @param {StepInput} input
 * @returns {Sequence[]}
 */
export function sequencesOf({ positions, rowSequence, blockTables }) {
  /** @type {Sequence[]} */
  const found = [];
  const seen = new Set();
  rowSequence.forEach((sequence, row) => {
    const last = found.at(-1);
    const fits = last && row > 0 && rowSequence[row - 1] === sequence;
    if (fits && positions[row] === positions[row - 1] + 1) {
      last.count++;
      return;
    }
    const slot = blockTables[sequence];
    if (seen.has(slot)) throw new EngineError("invalid_request", `rowSequence: the rows of sequence ${sequence} are apart`, "rowSequence");
    seen.add(slot);
    found.push({ slot, first: row, count: 1 });
  });
  return found;
}

/**
 * @param {Int32Array} logitRows of a step
 * @param {number} first row of a sequence
 * @param {number} count
 * @returns {Map<number, number>} index among the step's logits → row of the sequence
 */
export function wantedOf(logitRows, first, count) {
  /** @type {Map<number, number>} */
  const wanted = new Map();
  logitRows.forEach((row, i) => {
    if (row >= first && row < first + count) wanted.set(i, row - first);
  });
  return wanted;
}

/** @param {number} slot @param {number} start @param {number} known tokens of it @returns {EngineError} */
export function startBeyond(slot, start, known) {
  return new EngineError("invalid_request", `positions: sequence ${slot} has ${known} tokens, not ${start}`, "positions");
}

/** @returns {EngineError} */
export function withoutPages() {
  return new EngineError("invalid_request", "this engine has no KV pages", "pages");
}
