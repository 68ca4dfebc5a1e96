/** @file What the synthetic model (kernels.c) computes, said again in JavaScript, and batches to feed it. */

import { readFileSync } from "node:fs";
import path from "node:path";

import { SEQUENCE, SEQUENCE_WORDS } from "../../../web/engine/format/abi.js";

export const VOCAB = 64;
export const BLOCKS = 8;
export const PAGE_TOKENS = 16;
/** Token ids that make a kernel trap on its last thread, or wait until the doorbell rings. */
export const TRAP = 63;
export const WAIT = 62;

/** @typedef {{weights: {shards: {file: string, offset: number, bytes: number, sha256: string}[]}, variants: any[], tensors: any[]}} Manifest */

export class SyntheticModel {
  /** @param {string} folder of the artifact */
  constructor(folder) {
    /** @type {Manifest} */
    this.manifest = JSON.parse(readFileSync(path.join(folder, "manifest.json"), "utf8"));
    const space = Buffer.concat(this.manifest.weights.shards.map(({ file }) => readFileSync(path.join(folder, file))));
    /** @param {string} name */
    const tensor = (name) => {
      const { offset, bytes } = this.manifest.tensors.find((item) => item.name === name);
      return new Float32Array(space.buffer.slice(space.byteOffset + offset, space.byteOffset + offset + bytes));
    };
    this.table = tensor("table");
    this.bias = tensor("bias");
  }

  /**
   * @param {number[]} tokens of one sequence so far
   * @returns {number[]} logits of the last position
   */
  logits(tokens) {
    return Array.from({ length: VOCAB }, (_, v) =>
      tokens.reduce((sum, token, p) => sum + this.table[token * VOCAB + v] * ((7 * p + token) % 5), this.bias[v]),
    );
  }

  /**
   * @param {number[]} prompt
   * @param {number} n
   * @returns {number[]} the greedy continuation: the lowest id wins a tie
   */
  greedy(prompt, n) {
    const tokens = [...prompt];
    for (let i = 0; i < n; i++) {
      const logits = this.logits(tokens);
      tokens.push(logits.indexOf(Math.max(...logits)));
    }
    return tokens.slice(prompt.length);
  }
}

/**
 * Block tables of sequences that own consecutive runs of pages.
 * @param {number} n sequences
 * @param {number} [pagesEach]
 */
export function blockTables(n, pagesEach = BLOCKS) {
  return Array.from({ length: n * BLOCKS }, (_, i) => {
    const block = i % BLOCKS;
    return block < pagesEach ? Math.floor(i / BLOCKS) * pagesEach + block : -1;
  });
}

/**
 * A batch that feeds each sequence its tokens from position `start` on, with logits of every row.
 * @param {number[][]} sequences
 * @param {number} [start]
 */
export function feed(sequences, start = 0) {
  const tokenIds = sequences.flat();
  return {
    tokenIds,
    positions: sequences.flatMap((tokens) => tokens.map((_, i) => start + i)),
    rowSequence: sequences.flatMap((tokens, s) => tokens.map(() => s)),
    blockTables: blockTables(sequences.length),
    logitRows: tokenIds.map((_, row) => row),
  };
}

/**
 * Words of a greedy inpage_sequence.
 * @param {Partial<Record<keyof typeof SEQUENCE, number>>} fields integers
 * @returns {number[]}
 */
export function sequenceStruct(fields) {
  const words = new Int32Array(SEQUENCE_WORDS);
  const floats = new Float32Array(words.buffer);
  floats[SEQUENCE.top_p] = 1;
  floats[SEQUENCE.repetition_penalty] = 1;
  words[SEQUENCE.mask] = -1;
  for (const [name, value] of Object.entries(fields)) {
    words[SEQUENCE[/** @type {keyof typeof SEQUENCE} */ (name)]] = value;
  }
  return Array.from(words);
}

/** @param {number} word @returns {number} the float32 whose bits these are */
export function asFloat(word) {
  return new Float32Array(Int32Array.of(word).buffer)[0];
}
