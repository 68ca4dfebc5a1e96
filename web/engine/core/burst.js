/**
 * @file The books of a burst: which sequences go on, and what each token that was read back does to them. The GPU keeps the
 * same books (`commit` in choosing.wgsl, runtime/run.c), so that only token ids have to come back.
 */

import { HISTORY, SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";
import { finishedOf } from "./slices.js";

export class Burst {
  /** Steps that were read back and count. */
  steps = 0;
  /** Structs, updated. @type {Int32Array} */
  sequences;
  /** Which sequences have a row, in order. @type {number[]} */
  rows = [];
  /** @type {Int32Array[]} */
  #out = [];
  #n;
  #told = 0;

  /**
   * @param {Int32Array} sequences words of n inpage_sequence structs
   * @param {number} n
   */
  constructor(sequences, n) {
    this.sequences = sequences.slice();
    this.#n = n;
    for (let i = 0; i < n; i++) {
      this.#checkEnd(i);
      if (!this.#get(i, "finished")) this.rows.push(i);
    }
  }

  /** The longest that any sequence can go on. */
  get longest() {
    const left = this.rows.map((i) => Math.min(this.#get(i, "remaining"), this.#get(i, "reserved") - this.#get(i, "position")));
    return Math.max(0, ...left);
  }

  get finished() {
    return this.rows.every((i) => this.#get(i, "finished") !== 0);
  }

  /** Tokens to feed first, their positions. */
  first() {
    return {
      tokenIds: Int32Array.from(this.rows, (i) => this.#get(i, "token")),
      positions: Int32Array.from(this.rows, (i) => this.#get(i, "position")),
    };
  }

  /**
   * Take in what was read back, up to the step with which all have finished.
   * @param {Int32Array} tokens [steps, rows]
   */
  take(tokens) {
    for (let at = 0; at < tokens.length && !this.finished; at += this.rows.length) {
      const out = new Int32Array(this.#n).fill(-1);
      this.rows.forEach((i, row) => {
        const token = tokens[at + row];
        if (this.#get(i, "finished")) return;
        out[i] = token;
        this.#commit(i, token);
      });
      this.#out.push(out);
      this.steps++;
    }
  }

  /** @returns {import("./protocol.js").RunResult} */
  result() {
    return { steps: this.steps, out: this.#since(0), sequences: this.sequences };
  }

  /** What came since the last slice. @returns {import("./protocol.js").Slice} */
  slice() {
    const [out, steps] = [this.#since(this.#told), this.steps - this.#told];
    this.#told = this.steps;
    return { steps, out, finished: finishedOf(this.sequences, 0, this.#n) };
  }

  /** @param {number} step @returns {Int32Array} */
  #since(step) {
    const out = new Int32Array((this.steps - step) * this.#n);
    for (let i = step; i < this.steps; i++) out.set(this.#out[i], (i - step) * this.#n);
    return out;
  }

  /**
   * @param {number} i
   * @param {number} token
   */
  #commit(i, token) {
    const at = i * SEQUENCE_WORDS;
    const words = this.sequences;
    words[at + SEQUENCE.token] = words[at + SEQUENCE.chosen] = token;
    words[at + SEQUENCE.history + (words[at + SEQUENCE.n_history]++ % HISTORY)] = token;
    words[at + SEQUENCE.position]++;
    words[at + SEQUENCE.remaining]--;
    const stops = words.subarray(at + SEQUENCE.stop, at + SEQUENCE.stop + words[at + SEQUENCE.n_stop]);
    if (stops.includes(token)) words[at + SEQUENCE.finished] = 1;
    this.#checkEnd(i);
  }

  /** @param {number} i */
  #checkEnd(i) {
    if (this.#get(i, "finished")) return;
    const at = i * SEQUENCE_WORDS + SEQUENCE.finished;
    if (this.#get(i, "remaining") <= 0) this.sequences[at] = 2;
    else if (this.#get(i, "position") >= this.#get(i, "reserved")) this.sequences[at] = 3;
  }

  /**
   * @param {number} i
   * @param {keyof typeof SEQUENCE} field
   */
  #get(i, field) {
    return this.sequences[i * SEQUENCE_WORDS + SEQUENCE[field]];
  }
}
