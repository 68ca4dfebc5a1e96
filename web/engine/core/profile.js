/** @file What the profiles of all executors have in common: what may be asked for, and what counts of many rounds. */

import { EngineError } from "../format/errors.js";

/** A round that took so many times the median was disturbed by something else. */
const DISTURBED = 1.3;

/**
 * @param {import("./protocol.js").ProfileInput} input
 * @param {import("../format/plan.js").Plan["maxima"]} maxima
 * @throws {EngineError} invalid_request
 */
export function checkProfile({ rows, depth = 0, repeats = 20 }, maxima) {
  check(Number.isInteger(rows) && rows > 0 && rows <= maxima.rows, "rows", `must be 1 to ${maxima.rows}, got ${rows}`);
  check(Number.isInteger(depth) && depth >= 0 && depth + rows <= maxima.context, "depth", "lies outside the context");
  check(Number.isInteger(repeats) && repeats > 0 && repeats <= 10_000, "repeats", `must be 1 to 10000, got ${repeats}`);
}

/**
 * @param {boolean} right
 * @param {string} field
 * @param {string} message
 */
export function check(right, field, message) {
  if (!right) throw new EngineError("invalid_request", `${field} ${message}`, field);
}

/**
 * Of the rounds that nothing disturbed.
 * @param {readonly Float64Array[]} times of each launch, by round
 * @returns {{rounds: number, means: Float64Array}} how many these are; the mean time of each launch
 */
export function undisturbed(times) {
  const totals = times.map((round) => round.reduce((sum, time) => sum + time, 0));
  const most = median(totals) * DISTURBED;
  const kept = times.filter((_, i) => totals[i] <= most);
  const means = times[0].map((_, launch) => kept.reduce((sum, round) => sum + round[launch], 0) / kept.length);
  return { rounds: kept.length, means };
}

/** @param {ArrayLike<number>} values */
export function median(values) {
  const sorted = Float64Array.from(values).sort();
  return sorted[sorted.length >> 1];
}
