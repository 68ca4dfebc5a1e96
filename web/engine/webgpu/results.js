/** @file What the sampler's kernels report of a row of logits, turned into the words that a step answers with. */

import { SCORE_WORDS, SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";
import { RESULT_WORDS } from "./sampler.js";

const NONE = 0xffffffff;
const MOST = 3.4028234663852886e38; // the largest float32

/**
 * @typedef {object} RowResult of logits as the model made them
 * @property {number} argmax -1: there is no number among them
 * @property {number} max
 * @property {number} margin to the runner-up
 * @property {number} logSum of exp(x - max)
 * @property {number} target logit of the row's target
 */

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** A float from its bits: NaN counts as -inf and +inf as the largest. @param {number} bits */
export function cleaned(bits) {
  word[0] = bits;
  return Number.isNaN(float[0]) ? -Infinity : Math.min(float[0], MOST);
}

/** What sampling.wgsl's key_of says. @param {number} bits of a logit */
export function keyOf(bits) {
  float[0] = cleaned(bits) + 0;
  if (float[0] === -Infinity) return 0;
  return (word[0] & 0x80000000 ? ~word[0] : word[0] | 0x80000000) >>> 0;
}

/** A logit from its key. @param {number} key */
function valueOf(key) {
  if (key === 0) return -Infinity;
  return cleaned(key >= 0x80000000 ? key & 0x7fffffff : ~key);
}

/**
 * @param {Int32Array} words that `merge` wrote
 * @param {number} row
 * @returns {RowResult}
 */
export function rowResult(words, row) {
  const [key, id, second, sum, target] = new Uint32Array(words.buffer, words.byteOffset + row * RESULT_WORDS * 4, 5);
  const max = valueOf(key);
  return {
    argmax: id === NONE ? -1 : id,
    max,
    margin: id === NONE ? 0 : max - valueOf(second),
    logSum: Math.log(cleaned(sum)),
    target: cleaned(target),
  };
}

/**
 * @param {Int32Array} results
 * @param {Int32Array} targets
 * @returns {Int32Array} words of inpage_score_row
 */
export function scoresOf(results, targets) {
  const words = new Int32Array(targets.length * SCORE_WORDS);
  const floats = new Float32Array(words.buffer);
  targets.forEach((id, row) => {
    const { argmax, max, margin, logSum, target } = rowResult(results, row);
    const at = row * SCORE_WORDS;
    words[at] = Math.max(0, argmax);
    if (id >= 0) floats[at + 1] = argmax < 0 ? Infinity : max - target + logSum;
    floats[at + 2] = margin;
  });
  return words;
}

/**
 * The structs with what was chosen for them.
 * @param {Int32Array} sample
 * @param {Int32Array} results
 * @param {Int32Array} tokens
 * @param {(row: number, token: number) => number} logit as the model made it, by row and token
 * @returns {Int32Array}
 */
export function choicesOf(sample, results, tokens, logit) {
  const words = sample.slice();
  const floats = new Float32Array(words.buffer);
  for (let row = 0; row * SEQUENCE_WORDS < words.length; row++) {
    const { argmax, max, margin, logSum } = rowResult(results, row);
    const at = row * SEQUENCE_WORDS;
    words[at + SEQUENCE.chosen] = tokens[row];
    floats[at + SEQUENCE.margin] = margin;
    floats[at + SEQUENCE.logprob] = argmax < 0 ? -Infinity : logit(row, tokens[row]) - max - logSum;
  }
  return words;
}
