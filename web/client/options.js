/**
 * @file What a caller gives, checked before anything is started: options by name and type, with the nearest name where one
 * is misspelt. Requests' parameters are Python's to check (py/inpage/requests/params.py); here is what never gets there.
 */

import { EngineError } from "../engine/format/errors.js";

/** @typedef {"text" | "url" | "flag" | "count" | "object" | "list" | "function" | "signal"} Kind */

/** @type {Record<string, Kind>} */
const MODEL = { model: "text", backend: "text", threads: "count", replicas: "count", pinned: "flag" };
/** @type {Record<string, Kind>} */
const START = {
  ...MODEL, base: "url", models: "list", settings: "object", onProgress: "function", onChange: "function", shared: "flag", signal: "signal",
};

/** @type {Record<Kind, [string, (value: any) => boolean]>} */
const KINDS = {
  text: ["a text that is not empty", (value) => typeof value === "string" && value !== ""],
  url: ["a URL", (value) => typeof value === "string" || value instanceof URL],
  flag: ["true or false", (value) => typeof value === "boolean"],
  count: ["a whole number above 0", (value) => Number.isSafeInteger(value) && value > 0],
  object: ["an object", (value) => isObject(value) && !Array.isArray(value)],
  list: ["a list", Array.isArray],
  function: ["a function", (value) => typeof value === "function"],
  signal: ["an AbortSignal", (value) => value instanceof AbortSignal],
};

/**
 * @param {unknown} options
 * @returns {import("./types.js").StartOptions}
 * @throws {EngineError} invalid_request
 */
export function startOptions(options) {
  const given = checked(options, "options", START);
  given.models?.forEach((/** @type {unknown} */ each, /** @type {number} */ i) => modelOptions(each, `models[${i}]`));
  return given.base instanceof URL ? { ...given, base: given.base.href } : given;
}

/**
 * @param {unknown} options
 * @param {string} [field]
 * @returns {import("./types.js").ModelOptions}
 * @throws {EngineError} invalid_request
 */
export function modelOptions(options, field = "options") {
  return checked(options, field, MODEL);
}

/**
 * @param {unknown} params
 * @returns {import("./types.js").Params}
 * @throws {EngineError} invalid_request
 */
export function requestParams(params) {
  if (params === undefined) return {};
  if (!KINDS.object[1](params)) throw refused("params", `must be an object, such as { max_tokens: 100 }, not ${named(params)}`);
  const { signal, resume, ...rest } = /** @type {import("./types.js").Params} */ (params);
  if (signal !== undefined && !KINDS.signal[1](signal)) throw refused("signal", `must be an AbortSignal, not ${named(signal)}`);
  return { ...rest, ...(resume && { resume: ids(resume) }), ...(signal && { signal }) };
}

/**
 * Token ids in a typed array as a list; anything else as it is.
 * @template T
 * @param {T} prompt
 * @returns {T extends Uint32Array | Int32Array ? number[] : T}
 */
export function ids(prompt) {
  const typed = ArrayBuffer.isView(prompt) && Symbol.iterator in prompt;
  return /** @type {any} */ (typed ? Array.from(/** @type {Uint32Array} */ (/** @type {unknown} */ (prompt)), Number) : prompt);
}

/**
 * @param {unknown} options
 * @param {string} field
 * @param {Record<string, Kind>} known
 * @returns {any}
 */
function checked(options, field, known) {
  if (!KINDS.object[1](options)) throw refused(field, `must be an object, such as { model: "smollm2-135m-instruct" }, not ${named(options)}`);
  const given = /** @type {Record<string, unknown>} */ (options);
  const inside = field === "options" ? "" : `${field}.`;
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(known, name)) throw unknown(inside + name, name, Object.keys(known));
    const [must, is] = KINDS[known[name]];
    if (value !== undefined && !is(value)) throw refused(inside + name, `must be ${must}, not ${named(value)}`);
  }
  if (given.model === undefined) throw refused(`${inside}model`, 'is missing: name a model, such as model: "smollm2-135m-instruct"');
  return given;
}

/**
 * @param {string} field
 * @param {string} name
 * @param {string[]} known
 * @returns {EngineError}
 */
export function unknown(field, name, known) {
  const [near] = known.map((each) => ({ each, far: distance(name, each) })).sort((a, b) => a.far - b.far);
  const meant = near && near.far <= Math.max(2, name.length / 3) ? `did you mean ${near.each}? ` : "";
  const what = field.endsWith(name) ? "" : ` ${name.slice(0, 80)}`;
  return new EngineError("invalid_request", `${field}${what} is unknown: ${meant}known are ${known.join(", ") || "none"}`, field);
}

/** Insertions, deletions and replacements between two words; case counts for nothing. @param {string} a @param {string} b */
function distance(a, b) {
  const [from, to] = [a.slice(0, 50).toLowerCase(), b.toLowerCase()];
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + Number(from[i - 1] !== to[j - 1]));
    }
    row = next;
  }
  return row[to.length];
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null;
}

/** @param {unknown} value @returns {string} */
function named(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? `a ${value.constructor?.name ?? "object"}` : `${typeof value} ${String(value).slice(0, 40)}`;
}

/** @param {string} field @param {string} why */
function refused(field, why) {
  return new EngineError("invalid_request", `${field} ${why}`, field);
}
