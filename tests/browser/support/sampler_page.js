/**
 * @file Runs the cases of sampler_cases.py through the sampler's kernels in the page, and says what is not as numpy says.
 * The only module of the engine that is driven without its worker here: its answers are checked down to the cut.
 */

import { SEQUENCE, SEQUENCE_WORDS } from "../../../web/engine/format/abi.js";
import { COUNTERS } from "../../../web/engine/webgpu/counters.js";
import { openDevice, USAGE } from "../../../web/engine/webgpu/device.js";
import { follows } from "../../../web/engine/webgpu/exam_choice.js";
import { choicesOf, cleaned, keyOf } from "../../../web/engine/webgpu/results.js";
import { needsOf, RESULT_WORDS, Sampler, workOf } from "../../../web/engine/webgpu/sampler.js";
import { ReadBack } from "../../../web/engine/webgpu/transfer.js";

/** Vocabularies below this go through the exam's own choice as well. */
const EXAMINED = 10_000;
/** Position of the first row's token (sampler_cases.py). */
const FIRST = 100;

/**
 * @typedef {object} Row
 * @property {[number, number]} tokens the lowest and the highest that rounding lets be chosen, nearly always the same
 * @property {{count: number[], last: number} | null} kept how many may stay; one that does
 * @property {number | null} best logit, as the model made it; null where there is no number
 * @property {number} log_sum of exp(x - best)
 * @property {number} changed bits of the last kept token's logit after bias and penalties
 * @typedef {{name: string, vocab: number, at: number, sequences: number[], bias: number[], mask: number[], rows: Row[]}} Group
 * @typedef {{rows: number, cuts: number, failures: string[], refused: number}} Report refused: wrong tokens, by the exam
 */

/**
 * @param {string} base URL of the cases' folder
 * @returns {Promise<Report>}
 */
export async function run(base) {
  /** @type {Group[]} */
  const groups = await (await fetch(`${base}/cases.json`)).json();
  const logits = await (await fetch(`${base}/logits.bin`)).arrayBuffer();
  const gpu = await openDevice({ features: [], binding: 0, power: "high-performance" });
  /** @type {Map<number, Awaited<ReturnType<typeof bench>>>} */
  const benches = new Map();
  /** @type {Report} */
  const report = { rows: 0, cuts: 0, failures: [], refused: 0 };
  for (const group of groups) {
    let tools = benches.get(group.vocab);
    if (!tools) benches.set(group.vocab, (tools = await bench(gpu, group.vocab)));
    await check(gpu, tools, group, new Uint32Array(logits, group.at, group.vocab * group.rows.length), report);
  }
  gpu.destroy();
  return report;
}

/**
 * @param {import("../../../web/engine/webgpu/device.js").Gpu} gpu
 * @param {number} vocab
 */
async function bench(gpu, vocab) {
  const maxima = { rows: 24, sequences: 24, logit_rows: 24, context: 1 };
  const io = (/** @type {string} */ name) =>
    gpu.buffer(name, name === "logits" ? maxima.rows * vocab * 4 : 256, USAGE.STORAGE | USAGE.COPY_DST | USAGE.COPY_SRC);
  const plan = /** @type {import("../../../web/engine/format/plan.js").Plan} */ (/** @type {unknown} */ ({ vocab, maxima }));
  const buffers = /** @type {import("../../../web/engine/webgpu/buffers.js").Buffers} */ (/** @type {unknown} */ ({ io }));
  const sampler = await Sampler.create(gpu, plan, buffers, 2);
  const { size } = sampler.buffers.work;
  return { sampler, results: new ReadBack(gpu, "results", maxima.rows * (RESULT_WORDS + 2) * 4), work: new ReadBack(gpu, "work", size) };
}

/**
 * @param {import("../../../web/engine/webgpu/device.js").Gpu} gpu
 * @param {Awaited<ReturnType<typeof bench>>} tools
 * @param {Group} group
 * @param {Uint32Array<ArrayBuffer>} logits bits
 * @param {Report} report
 */
async function check(gpu, { sampler, results, work }, group, logits, report) {
  const { buffers, masksAt } = sampler;
  const { queue } = gpu.device;
  const n = group.rows.length;
  const sample = Int32Array.from(group.sequences);
  queue.writeBuffer(buffers.logits, 0, logits);
  queue.writeBuffer(buffers.sequences, 0, sample);
  queue.writeBuffer(buffers.rows, 0, Int32Array.from({ length: n * 4 }, (_, i) => (i % 4 === 0 ? i / 4 : 0)));
  if (group.bias.length) queue.writeBuffer(buffers.tables, 0, Int32Array.from(group.bias));
  if (group.mask.length) queue.writeBuffer(buffers.tables, masksAt * 4, Uint32Array.from(group.mask));
  const needs = needsOf(sample);
  const before = gpu.counters[COUNTERS.dispatches];
  const encoder = gpu.device.createCommandEncoder();
  const pass = gpu.pass(encoder);
  sampler.recordResults(pass, n);
  sampler.recordChoice(pass, n, needs);
  pass.end();
  const told = results.record(encoder, [
    { source: buffers.results, offset: 0, bytes: n * RESULT_WORDS * 4 },
    { source: buffers.tokens, offset: 0, bytes: n * 4 },
  ]);
  const cuts = work.record(encoder, [{ source: buffers.work, offset: 0, bytes: buffers.work.size }]);
  gpu.submit(encoder);
  const words = await results.read(told);
  const state = new Uint32Array((await work.read(cuts)).buffer);

  const fail = (/** @type {number} */ row, /** @type {string} */ why) => report.failures.push(`${group.name}, row ${row}: ${why}`);
  const searches = (needs.topK ? 1 : 0) + (needs.topP ? 1 : 0);
  const dispatches = 4 + (needs.adjust ? 1 : 0) + (needs.draw ? 2 : 0) + 5 * searches;
  if (gpu.counters[COUNTERS.dispatches] - before !== dispatches) fail(-1, "dispatches");
  const logit = (/** @type {number} */ row, /** @type {number} */ token) => cleaned(logits[row * group.vocab + token]);
  const chosen = choicesOf(sample, words, words.subarray(n * RESULT_WORDS), logit);
  const floats = new Float32Array(chosen.buffer);
  const { words: rowWords, cut } = workOf(group.vocab);
  group.rows.forEach(({ tokens, kept, best, log_sum, changed }, row) => {
    report.rows++;
    const at = row * SEQUENCE_WORDS;
    const token = chosen[at + SEQUENCE.chosen];
    if (token < tokens[0] || token > tokens[1]) fail(row, `chose ${token}, must be ${tokens.join(" to ")}`);
    const expected = best === null ? null : logit(row, token) - best - log_sum;
    if (expected !== null && !(Math.abs(floats[at + SEQUENCE.logprob] - expected) < 1e-5 * Math.max(1, Math.abs(expected)))) {
      fail(row, `logprob ${floats[at + SEQUENCE.logprob]}, must be ${expected}`);
    }
    const given = new Float32Array(sample.buffer, at * 4);
    if (group.vocab < EXAMINED && !needs.adjust && best !== null && given[SEQUENCE.min_p] === 0) {
      const [low, high] = sample.subarray(at + SEQUENCE.seed);
      const asked = { temperature: given[SEQUENCE.temperature], k: sample[at + SEQUENCE.top_k], p: given[SEQUENCE.top_p], seed: /** @type {const} */ ([low, high]) };
      const x = new Float32Array(logits.buffer, logits.byteOffset + row * group.vocab * 4, group.vocab);
      const numbers = x.every(Number.isFinite);
      if (numbers && !follows(x, asked, FIRST + row, tokens[0])) fail(row, `the exam refuses ${tokens[0]}`);
      if (numbers && !follows(x, asked, FIRST + row, (tokens[0] + (group.vocab >> 1)) % group.vocab)) report.refused++;
    }
    if (!kept) return;
    report.cuts++;
    const [key, end] = state.subarray(row * rowWords + cut);
    const stays = (/** @type {number} */ own, /** @type {number} */ id) => own > key || (own === key && own > 0 && id < end);
    if (!stays(keyOf(changed), kept.last)) fail(row, `${kept.last} does not stay`);
    if (needs.adjust) return;
    let count = 0;
    for (let id = 0; id < group.vocab; id++) if (stays(keyOf(logits[row * group.vocab + id]), id)) count++;
    if (!kept.count.includes(count)) fail(row, `${count} stay, must be ${kept.count.join(" or ")}`);
  });
}
