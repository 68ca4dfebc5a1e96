/**
 * @file The second part of a GPU's exam: tokens chosen by its kernels, greedily with a bias, by top-k and by top-p, against
 * what follows from the same logits here. Choices that hang on a rounding are not judged.
 */

import { blankSequences } from "../core/trial.js";
import { SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";

/** Choices that are asked for, each of a row of its own. */
const CHOICES = 9;
/** By how much the best token falls behind the next one, with its bias. */
const BEHIND = 0.01;
/** Of all weight: what sums in float32 and in float64 may differ by. */
const SLACK = 1e-3;
const HALF = 0x10000;

/**
 * @typedef {object} Asked
 * @property {number} temperature 0: the best
 * @property {number} k 0: all
 * @property {number} p
 * @property {readonly [number, number]} seed low word, high word
 * @property {boolean} biased the best token falls behind the next one
 */

/**
 * @param {number} rows
 * @returns {Asked[]}
 */
function asked(rows) {
  return Array.from({ length: Math.min(rows, CHOICES) }, (_, i) => {
    const [k, p] = i % 2 ? [2 + i, 1] : [0, 0.2 + 0.05 * i];
    return { temperature: i === 0 ? 0 : 0.7 + 0.1 * (i % 5), k, p, seed: /** @type {const} */ ([1 + i, 0]), biased: i === 0 };
  });
}

/**
 * @param {import("./executor.js").GpuExecutor} executor that has read all ids but the last
 * @param {import("../format/plan.js").Plan} plan
 * @param {readonly number[]} ids
 * @param {Int32Array} blockTables of them
 * @returns {Promise<string>} what was wrong; "": nothing
 */
export async function examineChoices(executor, plan, ids, blockTables) {
  const { rows, sequences, logit_rows: logitRows } = plan.maxima;
  const choices = asked(Math.min(ids.length - 1, rows, sequences, logitRows));
  const every = Int32Array.from(choices, (_, i) => i);
  const first = ids.length - 1 - choices.length;
  const input = {
    tokenIds: every.map((i) => ids[first + i]),
    positions: every.map((i) => first + i),
    rowSequence: new Int32Array(choices.length),
    blockTables,
    logitRows: every,
  };
  const { logits } = await executor.step({ ...input, wantLogits: true });
  const numbers = /** @type {Float32Array} */ (logits);
  const row = (/** @type {number} */ i) => numbers.subarray(i * plan.vocab, (i + 1) * plan.vocab);
  const best = row(0).reduce((found, x, id) => (x > row(0)[found] ? id : found), 0);
  const next = row(0).reduce((found, x, id) => (id !== best && x > found ? x : found), -Infinity);
  const bias = Int32Array.of(best, 0);
  const amount = new Float32Array(bias.buffer).subarray(1);
  amount[0] = next - row(0)[best] - BEHIND;
  const sample = structs(choices, first);
  const { sequences: chosen } = await executor.step({ ...input, sample, bias });
  for (const [i, choice] of choices.entries()) {
    const x = row(i).slice();
    if (choice.biased) x[best] += amount[0];
    const token = /** @type {Int32Array} */ (chosen)[i * SEQUENCE_WORDS + SEQUENCE.chosen];
    if (follows(x, choice, first + i + 1, token)) continue;
    const how = choice.temperature === 0 ? "as the best" : choice.k ? `among the best ${choice.k}` : `among the best ${choice.p.toFixed(2)} of all`;
    return `token ${token} is chosen ${how} after ${first + i + 1} tokens, and another one is due`;
  }
  return "";
}

/**
 * @param {Asked[]} choices
 * @param {number} position of the first
 * @returns {Int32Array}
 */
function structs(choices, position) {
  const words = blankSequences(choices.length);
  const floats = new Float32Array(words.buffer);
  choices.forEach(({ temperature, k, p, seed, biased }, i) => {
    const at = i * SEQUENCE_WORDS;
    floats[at + SEQUENCE.temperature] = temperature;
    floats[at + SEQUENCE.top_p] = p;
    words[at + SEQUENCE.top_k] = k;
    words.set(seed, at + SEQUENCE.seed);
    words[at + SEQUENCE.position] = position + i;
    words[at + SEQUENCE.n_bias] = biased ? 1 : 0;
  });
  return words;
}

/**
 * Whether the token is what sampling.wgsl and choosing.wgsl should draw.
 * @param {Float32Array} x logits, all of them numbers
 * @param {Omit<Asked, "biased">} asked
 * @param {number} position that the token gets
 * @param {number} token
 */
export function follows(x, { temperature, k, p, seed }, position, token) {
  const falling = x.slice().sort().reverse();
  const [top] = falling;
  if (temperature === 0) return x.indexOf(top) === token;
  const count = keptCount(falling, k, p);
  if (count === 0) return true;
  const least = falling[count - 1];
  let equal = count - falling.indexOf(least); // of those that are equal to the last one, the first in order of id stay
  let [total, before, own] = [0, 0, -1];
  x.forEach((value, id) => {
    if (!(value > least || (value === least && equal-- > 0))) return;
    const weight = Math.exp((value - top) / temperature);
    total += weight;
    if (id < token) before += weight;
    if (id === token) own = weight;
  });
  const aim = (philox(seed, position) / 2 ** 32) * total;
  return own >= 0 && aim >= before - SLACK * total && aim <= before + own + SLACK * total;
}

/**
 * How many tokens top-k and top-p leave; 0 where it hangs on a rounding.
 * @param {Float32Array} falling logits
 * @param {number} k
 * @param {number} p
 */
function keptCount(falling, k, p) {
  const most = k > 0 ? Math.min(k, falling.length) : falling.length;
  if (p >= 1) return most;
  const weights = falling.subarray(0, most).map((value) => Math.exp(value - falling[0]));
  const goal = Math.fround(p) * weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  for (const [i, weight] of weights.entries()) {
    sum += weight;
    if (Math.abs(sum - goal) < goal * SLACK) return 0;
    if (sum >= goal) return i + 1;
  }
  return most;
}

/**
 * The first word of Philox4x32-10 (philox.h).
 * @param {readonly [number, number]} seed
 * @param {number} position
 */
function philox(seed, position) {
  let [k0, k1] = [seed[0] >>> 0, seed[1] >>> 0];
  let c = [position >>> 0, 0, 0, 0];
  for (let round = 0; round < 10; round++) {
    const [p0, p1] = [high(0xd2511f53, c[0]), high(0xcd9e8d57, c[2])];
    c = [(p1 ^ c[1] ^ k0) >>> 0, Math.imul(0xcd9e8d57, c[2]) >>> 0, (p0 ^ c[3] ^ k1) >>> 0, Math.imul(0xd2511f53, c[0]) >>> 0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return c[0];
}

/** The high word of a product of two words. @param {number} a @param {number} b */
function high(a, b) {
  const [a0, a1, b0, b1] = [a % HALF, Math.floor(a / HALF), b % HALF, Math.floor(b / HALF)];
  const middle = a1 * b0 + Math.floor((a0 * b0) / HALF);
  return (a1 * b1 + Math.floor(middle / HALF) + Math.floor((a0 * b1 + (middle % HALF)) / HALF)) >>> 0;
}
