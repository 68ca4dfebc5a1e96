/** @file What one step and one burst may carry, whichever executor runs it. */

/** Pairs (token id, bias) one step may carry. */
export const MAX_BIAS_PAIRS = 65536;
/** Tokens of one sequence that one burst may produce. */
export const MAX_BURST = 256;

/** 32-bit words of one sequence's token mask. @param {number} vocab */
export function maskWords(vocab) {
  return Math.ceil(vocab / 32);
}
