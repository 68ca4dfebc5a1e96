/** @file Of what shape a value is that came from outside: another tab, or storage. */

/** @param {unknown} value @returns {value is Record<string, any>} */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value @returns {value is number[]} */
export function areTokens(value) {
  return Array.isArray(value) && value.every((id) => Number.isSafeInteger(id) && id >= 0);
}
