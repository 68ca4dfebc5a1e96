/** @file Of what shape a value is that came from outside: another tab, or storage. */

export { isObject } from "../engine/format/check.js";

/**
 * `every` passes over holes, and takes minutes where there are billions.
 *
 * @template T
 * @param {unknown} value
 * @param {(item: any) => item is T} is
 * @returns {value is T[]}
 */
export function areAll(value, is) {
  if (!Array.isArray(value)) return false;
  for (let i = 0; i < value.length; i++) if (!is(value[i])) return false;
  return true;
}

/** @param {unknown} value @returns {value is number[]} */
export function areTokens(value) {
  return areAll(value, /** @returns {id is number} */ (id) => Number.isSafeInteger(id) && id >= 0);
}
