/**
 * @file The exam that a GPU has to pass before a variant is trusted: the manifest's tokens are read, and what the kernels say
 * of those that follow is compared with what float32 on a CPU said when the model was compiled. Drivers that compute
 * wrong numbers, and say nothing, are found here and not by the reader of an answer.
 *
 * Every function of the plan takes part, with keys and values that later tokens look back at, and with answers of its own:
 * the first tokens come alone, then a few together, most in a step of many rows, the last ones in small steps again. Then
 * tokens are chosen (exam_choice.js).
 */

import { SCORE_WORDS } from "../format/abi.js";
import { EngineError } from "../format/errors.js";
import { examineChoices } from "./exam_choice.js";

/** Rows of the first steps: enough of them alone for their keys and values to weigh among the others', and of the last. */
const FIRST = [1, 1, 1, 1, 1, 1, 1, 1, 16];
const LAST = [6, 3, 1];
/**
 * How far off a probability may be, as a part of how far the answers spread: half-precision variants round every number that
 * passes between kernels to 11 bits (on Mesa's lavapipe SmolLM2's answers are off by 0.003, tiny models' by 0.004 at most),
 * int8 ones what matrices are multiplied with to 8. Those do the same on CPUs, where SmolLM2's answers are off by 0.10 at
 * most, and leads by 0.17.
 */
const OFF = { f32: 0.02, f16: 0.03, int8: 0.2 };
/** What variants require that compute with halves, and with bytes. */
const HALVES = "shader-f16", DP4A = "packed_4x8_integer_dot_product"; // prettier-ignore
/** Nats. Answers that are all alike would allow nothing. */
const LEAST_SPREAD = 0.5;

/**
 * @param {readonly string[]} requires a variant's
 * @returns {keyof typeof OFF}
 */
export function precisionOf(requires) {
  return requires.includes(HALVES) ? "f16" : requires.includes(DP4A) ? "int8" : "f32";
}

/**
 * @param {import("./executor.js").GpuExecutor} executor warm
 * @param {import("../format/plan.js").Plan} plan
 * @param {import("../format/manifest.js").Exam} exam
 * @param {keyof typeof OFF} precision of the variant
 * @throws {EngineError} unsupported, with what was wrong
 */
export async function examine(executor, plan, { ids, answers }, precision) {
  const { blockTables, pages } = tablesFor(plan, ids.length);
  await executor.reservePages(pages);
  const scored = ids.length - 1 - answers.length; // the first token that has an answer
  const nlls = answers.map(({ nll }) => nll);
  const mean = nlls.reduce((sum, nll) => sum + nll, 0) / nlls.length;
  const spread = Math.sqrt(nlls.reduce((sum, nll) => sum + (nll - mean) ** 2, 0) / nlls.length);
  const allowed = Math.max(spread, LEAST_SPREAD) * OFF[precision];
  for (const [begin, end] of stepsOf(ids.length - 1, plan.maxima.rows)) {
    const rows = Array.from({ length: end - begin }, (_, i) => begin + i);
    const asked = rows.filter((at) => at >= scored);
    const { scores } = await executor.step({
      tokenIds: Int32Array.from(rows, (at) => ids[at]),
      positions: Int32Array.from(rows),
      rowSequence: new Int32Array(rows.length),
      blockTables,
      logitRows: Int32Array.from(asked, (at) => at - begin),
      targets: Int32Array.from(asked, (at) => ids[at + 1]),
    });
    const words = scores ?? new Int32Array(0);
    const floats = new Float32Array(words.buffer);
    for (const [i, at] of asked.entries()) {
      const { argmax, margin, nll } = answers[at - scored];
      const found = floats[i * SCORE_WORDS + 1];
      const off = Math.abs(found - nll);
      if (!(off <= allowed)) fail(`token ${at + 1} has ${found.toFixed(4)} nats instead of ${nll.toFixed(4)}, ${allowed.toFixed(4)} would do`);
      const best = words[i * SCORE_WORDS];
      const lead = best === argmax ? floats[i * SCORE_WORDS + 2] : -floats[i * SCORE_WORDS + 2];
      if (!(Math.abs(lead - margin) <= 2 * allowed)) fail(`token ${argmax} leads by ${lead.toFixed(4)} after ${at + 1} tokens instead of ${margin.toFixed(4)}`);
    }
  }
  const wrong = await examineChoices(executor, plan, ids, blockTables);
  if (wrong) fail(wrong);
}

/**
 * @param {string} why
 * @returns {never}
 */
function fail(why) {
  throw new EngineError("unsupported", `this GPU computes wrong numbers: ${why}`, "exam");
}

/**
 * From and to which token each step goes.
 * @param {number} tokens
 * @param {number} most a step takes
 * @returns {[number, number][]}
 */
function stepsOf(tokens, most) {
  const [counts, last] = [FIRST, LAST].map((steps) => steps.map((count) => Math.min(count, most)));
  let rest = [...counts, ...last].reduce((left, count) => left - count, tokens);
  for (; rest > 0; rest -= most) counts.push(Math.min(rest, most));
  let end = 0;
  /** @type {[number, number][]} */
  const steps = [...counts, ...last].map((count) => [end, (end = Math.min(end + count, tokens))]);
  return steps.filter(([from, to]) => from < to);
}

/**
 * The block tables of a sequence on the first pages, those of each group of layers behind one another.
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} tokens
 */
function tablesFor({ kvGroups, pageTokens, blocksPerSequence, maxima }, tokens) {
  const blockTables = new Int32Array(blocksPerSequence);
  let column = 0;
  let pages = 0;
  for (const size of kvGroups.length > 0 ? kvGroups.map((group) => group.page_tokens) : [pageTokens]) {
    for (let i = 0; i < Math.ceil(tokens / size); i++) blockTables[column + i] = pages++;
    column += Math.ceil(maxima.context / size);
  }
  return { blockTables, pages };
}
