/** @file A plan as the flat program that the C runtime replays (abi.h). */

/**
 * @param {import("./plan.js").Plan} plan
 * @returns {Int32Array} words
 */
export function encodeProgram(plan) {
  /** @type {number[]} */
  const words = [plan.functions.length];
  for (const fn of plan.functions) {
    words.push(fn.maxRows, fn.launches.length);
    for (const launch of fn.launches) {
      words.push(launch.kernel, launch.buffers.length, ...launch.buffers, launch.scalars.length);
      for (const [kind, value] of launch.scalars) words.push(kind, value);
    }
  }
  return Int32Array.from(words);
}
