/**
 * @file Batches that nobody asked for, to warm kernels up and to time them: made-up tokens on KV pages that belong to no
 * sequence. Whoever gets those pages later writes every position before reading it, so nothing of a trial is ever seen.
 */

import { SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";

/**
 * @typedef {object} Trial
 * @property {import("./protocol.js").StepInput} input
 * @property {number} sequences
 * @property {number} pages how many it uses, from `first` on
 */

/**
 * As many sequences as rows (decoding together), or one sequence's next `rows` tokens (of a prompt).
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} rows
 * @param {number} depth tokens that come before
 * @param {number} first page
 * @param {boolean} [together] where it is not given: if the plan takes so many sequences
 * @returns {Trial}
 */
export function trial(plan, rows, depth, first, together = rows <= Math.min(plan.maxima.sequences, plan.maxima.logit_rows)) {
  if (!plan.paged) return wholeText(plan, rows);
  const { blocksPerSequence } = plan;
  const sequences = together ? rows : 1;
  const columns = plan.blockTables.flatMap((table) => {
    const pages = Math.ceil((depth + (together ? 1 : rows)) / table.pageTokens);
    return Array.from({ length: pages }, (_, i) => table.first + i);
  });
  const each = columns.length;
  const blockTables = new Int32Array(sequences * blocksPerSequence).fill(-1);
  for (let s = 0; s < sequences; s++) {
    for (const [i, column] of columns.entries()) blockTables[s * blocksPerSequence + column] = first + s * each + i;
  }
  const every = Int32Array.from({ length: rows }, (_, i) => i);
  const input = {
    tokenIds: every.map((i) => (i * 37 + 1) % plan.vocab),
    positions: every.map((i) => depth + (together ? 0 : i)),
    rowSequence: together ? every : new Int32Array(rows),
    blockTables,
    logitRows: together ? every : Int32Array.of(rows - 1),
  };
  return { input, sequences, pages: sequences * each };
}

/**
 * Words of sequences that choose greedily, without a mask, a bias or a penalty.
 * @param {number} count
 */
export function blankSequences(count) {
  const words = new Int32Array(count * SEQUENCE_WORDS);
  const floats = new Float32Array(words.buffer);
  for (let at = 0; at < words.length; at += SEQUENCE_WORDS) {
    floats[at + SEQUENCE.top_p] = 1;
    floats[at + SEQUENCE.repetition_penalty] = 1;
    words[at + SEQUENCE.mask] = -1;
  }
  return words;
}

/**
 * For an encoder.
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} rows
 * @returns {Trial}
 */
function wholeText(plan, rows) {
  const positions = Int32Array.from({ length: rows }, (_, i) => i);
  const tokenIds = positions.map((i) => (i * 37 + 1) % plan.vocab);
  const blockTables = Int32Array.of(0, rows, rows);
  const input = { tokenIds, positions, rowSequence: new Int32Array(rows), blockTables, logitRows: Int32Array.of(0) };
  return { input, sequences: 1, pages: 0 };
}
