/**
 * @file Reading untrusted JSON: each function returns the value with its type proven, or throws artifact_invalid that
 * names the field.
 */

import { invalidArtifact } from "./errors.js";

/** With members of its own: a typed array has one for each of its numbers. @param {unknown} value @returns {value is Record<string, any>} */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/**
 * @param {unknown} value
 * @param {string} field
 * @returns {Record<string, unknown>}
 */
export function object(value, field) {
  if (!isObject(value)) throw invalidArtifact("must be an object", field);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} field
 * @param {number} limit most items allowed
 * @returns {unknown[]}
 */
export function array(value, field, limit) {
  if (!Array.isArray(value)) throw invalidArtifact("must be a list", field);
  if (value.length > limit) throw invalidArtifact(`has ${value.length} items, at most ${limit} are allowed`, field);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} field
 * @param {number} low
 * @param {number} high inclusive
 * @returns {number}
 */
export function integer(value, field, low, high) {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) throw invalidArtifact("must be an integer", field);
  if (value < low || value > high) throw invalidArtifact(`is ${value}, must be from ${low} to ${high}`, field);
  return value;
}
