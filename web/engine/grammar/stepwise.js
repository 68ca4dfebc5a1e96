/**
 * @file Steps and bursts of requests whose every token is looked at: those held to a grammar, and those whose likeliest
 * tokens are wanted. One step at a time on any executor, all sequences of the batch together; each is chosen from the
 * same logits by the same sampler as in a burst, so the others' answers do not change.
 */

import { Burst } from "../core/burst.js";
import { MAX_TOP, REPORT } from "../core/protocol.js";
import { finishedOf } from "../core/slices.js";
import { SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";
import { maskWords } from "../format/batch_limits.js";
import { EngineError } from "../format/errors.js";

/** As in wasm/executor.js: what no doorbell can reach ends by itself after this long. */
const SLICE_MS = 20;

/**
 * @typedef {import("../core/protocol.js").StepInput} StepInput
 * @typedef {import("../core/protocol.js").RunInput} RunInput
 * @typedef {import("../core/protocol.js").Constraint} Constraint
 * @typedef {{constraint: Constraint, tokens: number[]}} Held
 */

export class Stepwise {
  #engine;
  #grammars;

  /**
   * @param {import("../load.js").Engine} engine
   * @param {import("./grammars.js").GrammarPorts} grammars
   */
  constructor(engine, grammars) {
    this.#engine = engine;
    this.#grammars = grammars;
  }

  /**
   * @param {StepInput} input
   * @returns {Promise<import("../core/protocol.js").StepResult>}
   */
  async step(input) {
    const { constraints = [], tops, wantLogits, sample = new Int32Array(0), ...rest } = input;
    const n = sample.length / SEQUENCE_WORDS;
    const held = this.#held(constraints, n);
    const structs = Array.from({ length: n }, (_, i) => i);
    const result = await this.#choose({ ...rest, sample, wantLogits }, structs, held, tops);
    if (!wantLogits) delete result.logits;
    return result;
  }

  /**
   * @param {RunInput} input
   * @param {() => boolean} interrupted
   * @param {(slice: import("../core/protocol.js").Slice) => void} tell
   * @returns {Promise<import("../core/protocol.js").RunResult>}
   */
  async run({ n, blockTables, maxSteps, bias, constraints = [], tops, tellMs, ...input }, interrupted, tell) {
    const { doorbell, info } = this.#engine;
    const sliced = !doorbell && !info.adapter;
    let since = performance.now();
    let told = 0;
    const end = since + SLICE_MS;
    const held = this.#held(constraints, n);
    let { sequences } = input;
    const out = [];
    const reports = [];
    while (out.length < maxSteps) {
      const burst = new Burst(sequences, n);
      const { rows } = burst;
      if (rows.length === 0) break;
      const sample = new Int32Array(rows.length * SEQUENCE_WORDS);
      rows.forEach((i, row) => sample.set(structAt(sequences, i), row * SEQUENCE_WORDS));
      const rowSequence = Int32Array.from(rows);
      const logitRows = rowSequence.map((_, row) => row);
      const step = { ...burst.first(), rowSequence, blockTables, logitRows, bias, sample };
      const result = await this.#choose(step, rows, held, tops);
      const chosen = /** @type {Int32Array} */ (result.sequences);
      burst.take(logitRows.map((row) => chosen[row * SEQUENCE_WORDS + SEQUENCE.chosen]));
      out.push(burst.result().out);
      reports.push(spread(result.report, rows, n));
      sequences = burst.sequences;
      this.#forget(sequences, held);
      if (interrupted() || (sliced && performance.now() >= end)) break;
      if (tellMs && out.length < maxSteps && (told === 0 || performance.now() - since >= tellMs)) {
        const report = joined(Float64Array, reports.slice(told));
        tell({ steps: out.length - told, out: joined(Int32Array, out.slice(told)), finished: finishedOf(sequences, 0, n), report });
        [told, since] = [out.length, performance.now()];
      }
    }
    return { steps: out.length, out: joined(Int32Array, out), sequences, report: joined(Float64Array, reports) };
  }

  /**
   * One step in which each row chooses a token.
   * @param {StepInput & {sample: Int32Array}} input
   * @param {number[]} structs which struct each row chooses for
   * @param {Map<number, Held>} held by struct
   * @param {Int32Array | undefined} tops by struct
   */
  async #choose(input, structs, held, tops) {
    const { executor, info } = this.#engine;
    const words = maskWords(info.vocab);
    const masked = structs.flatMap((struct, row) => (held.has(struct) ? [row] : []));
    const asked = masked.map((row) => /** @type {Held} */ (held.get(structs[row])));
    const mask = masked.length ? await this.#grammars.masks(asked, words) : undefined;
    const sample = input.sample.slice();
    masked.forEach((row, i) => {
      sample[row * SEQUENCE_WORDS + SEQUENCE.mask] = i * words;
    });
    const wanted = structs.map((struct) => tops?.[struct] ?? -1);
    const wantLogits = input.wantLogits || wanted.some((top) => top > 0);
    const result = await executor.step({ ...input, sample, mask, wantLogits });
    const chosen = /** @type {Int32Array} */ (result.sequences ?? sample.subarray(0, 0));
    structs.forEach((struct, row) => {
      held.get(struct)?.tokens.push(chosen[row * SEQUENCE_WORDS + SEQUENCE.chosen]);
    });
    if (wanted.some((top) => top >= 0)) result.report = report(chosen, wanted, result.logits, info.vocab);
    return result;
  }

  /**
   * @param {Constraint[]} constraints
   * @param {number} n structs
   * @returns {Map<number, Held>}
   */
  #held(constraints, n) {
    const held = new Map();
    for (const constraint of constraints) {
      const { sequence, tokens } = constraint;
      if (!(sequence >= 0 && sequence < n)) throw new EngineError("invalid_request", `constraints: no struct ${sequence}`, "constraints");
      held.set(sequence, { constraint, tokens: Array.from(tokens) });
    }
    return held;
  }

  /** @param {Int32Array} sequences @param {Map<number, Held>} held */
  #forget(sequences, held) {
    for (const [i, { constraint }] of held) {
      if (sequences[i * SEQUENCE_WORDS + SEQUENCE.finished] === 1) this.#grammars.forget(constraint);
    }
  }
}

/** @param {Int32Array} sequences @param {number} i */
function structAt(sequences, i) {
  return sequences.subarray(i * SEQUENCE_WORDS, (i + 1) * SEQUENCE_WORDS);
}

/**
 * How likely the chosen tokens were, and which were likelier.
 * @param {Int32Array} sequences structs after the choice
 * @param {number[]} tops by struct
 * @param {Float32Array | undefined} logits [structs, vocab]
 * @param {number} vocab
 * @returns {Float64Array} [structs, REPORT]
 */
function report(sequences, tops, logits, vocab) {
  const floats = new Float32Array(sequences.buffer, sequences.byteOffset, sequences.length);
  const out = new Float64Array(tops.length * REPORT).fill(-1);
  tops.forEach((top, i) => {
    const logprob = floats[i * SEQUENCE_WORDS + SEQUENCE.logprob];
    out[i * REPORT] = logprob;
    if (!(top > 0) || !logits) return;
    const row = logits.subarray(i * vocab, (i + 1) * vocab);
    const logSum = row[sequences[i * SEQUENCE_WORDS + SEQUENCE.chosen]] - logprob;
    likeliest(row, Math.min(top, MAX_TOP)).forEach((id, k) => {
      out.set([id, row[id] - logSum], i * REPORT + 1 + 2 * k);
    });
  });
  return out;
}

/** @param {Float32Array} row @param {number} count @returns {number[]} ids, the likeliest first, the lower id of equals */
function likeliest(row, count) {
  /** @type {number[]} */
  const best = [];
  let least = -Infinity;
  for (let id = 0; id < row.length; id++) {
    if (best.length === count && !(row[id] > least)) continue;
    let at = best.length;
    while (at > 0 && row[best[at - 1]] < row[id]) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
    least = row[best[best.length - 1]];
  }
  return best;
}

/** Rows of a report to where their sequences stand. @param {Float64Array | undefined} rowsReport @param {number[]} rows @param {number} n */
function spread(rowsReport, rows, n) {
  if (!rowsReport) return new Float64Array(0);
  const out = new Float64Array(n * REPORT).fill(-1);
  rows.forEach((i, row) => out.set(rowsReport.subarray(row * REPORT, (row + 1) * REPORT), i * REPORT));
  return out;
}

/**
 * @template {Int32Array | Float64Array} T
 * @param {new (length: number) => T} kind
 * @param {T[]} arrays
 * @returns {T}
 */
function joined(kind, arrays) {
  const whole = new kind(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    whole.set(/** @type {any} */ (array), at);
    at += array.length;
  }
  return whole;
}
