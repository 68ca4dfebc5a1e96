/** @file What this device will make of a model, before anything of it is loaded. */

import { InPage } from "../../client/inpage.js";

/** Python, tokenizer, kernels and the first pages of a conversation, beside the weights. */
const BESIDE = 400e6;
/** Of the device's memory a tab should take at most this; beyond the second it will hardly live. */
const EASY = 0.4;
const HARD = 0.75;
/** Fewer parameters make a very small model. */
export const SMALL = 1e9;

/**
 * @typedef {"fits" | "tight" | "not"} Fit
 * @typedef {{fit: Fit, memory: Fit | null, storage: Fit | null, need: number, free: number | null}} Forecast null: the
 *   browser does not tell
 */

/**
 * @param {number} bytes of the weights
 * @param {number} stored of them already
 * @returns {Promise<Forecast>}
 */
export async function forecast(bytes, stored) {
  const { usage, quota } = await InPage.storage.estimate().catch(() => ({ usage: null, quota: null }));
  const gib = /** @type {{deviceMemory?: number}} */ (navigator).deviceMemory;
  const need = bytes + BESIDE;
  const free = usage === null || quota === null ? null : Math.max(0, quota - usage);
  const missing = Math.max(0, bytes - stored);
  const memory = gib ? graded(need / (gib * 2 ** 30), EASY, HARD) : null;
  const storage = free === null ? null : missing === 0 ? "fits" : graded(missing / Math.max(1, free), 0.8, 1);
  // Without room in storage it runs all the same, and is fetched anew on each visit.
  return { fit: memory === "not" ? "not" : memory === "tight" || (storage && storage !== "fits") ? "tight" : "fits", memory, storage, need, free };
}

/** @param {number} share @param {number} easy @param {number} hard @returns {Fit} */
function graded(share, easy, hard) {
  return share <= easy ? "fits" : share <= hard ? "tight" : "not";
}
