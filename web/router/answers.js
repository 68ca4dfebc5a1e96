/**
 * @file Answers kept in IndexedDB, for py/inpage/responses/indexeddb.py: compressed bytes under a key, with the tags they
 * depend on.
 */

import { Rows } from "./rows.js";

const answers = new Rows("inpage-answers");

/**
 * @param {string} key
 * @returns {Promise<Uint8Array | null>}
 */
export async function answerGet(key) {
  return (await answers.get([key]))[0];
}

/**
 * @param {string} key
 * @param {Uint8Array<ArrayBuffer>} value
 * @param {string[]} tags
 * @param {number} budget bytes that all values together may have
 */
export async function answerPut(key, value, tags, budget) {
  await answers.put([{ key, value, tags }], budget);
}

/** @param {string[]} keys */
export async function answerRemove(keys) {
  await answers.remove(keys);
}

/**
 * @param {string | null | undefined} tag all answers if not given
 * @returns {Promise<number>} how many went
 */
export async function answerInvalidate(tag) {
  const keys = await (tag ? answers.tagged(tag) : answers.beginning(""));
  await answers.remove(keys);
  return keys.length;
}
