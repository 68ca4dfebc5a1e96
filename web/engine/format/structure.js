/**
 * @file Untrusted JSON against the structure that it must have, which schemas.js declares for this and for
 * py/inpage/format/structure.py. What comes back is a copy with the declared fields alone; an optional field that is
 * missing is null. What must hold between fields is for those who read the copy.
 */

import { invalidArtifact } from "./errors.js";
import { LINE } from "./limits.js";
import { brief, quoted } from "./quoting.js";

/**
 * @typedef {Record<string, any>} Rule
 * @typedef {Record<string, Record<string, Rule>>} Schema
 * @typedef {any} Checked its fields are what the schema says
 */

/** Control characters, separators of lines, what turns the direction of a text, lone surrogates. */
const NOT_IN_A_LINE = /[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]/u;
/** @type {Record<string, RegExp>} */
const TEXTS = {
  any: /^[^]*$/,
  hash: /^[0-9a-f]{64}$/,
  name: /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/,
  path: /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(\/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,7}$/,
  label: /^[A-Za-z0-9][A-Za-z0-9@._-]{0,199}$/, // of a buffer: a tensor's name, or a slice of it
  access: /^[rwx]*$/,
};
const OPERATORS = ["*", "+", "ceildiv"];

/**
 * @param {unknown} value
 * @param {Schema} schema
 * @param {string} name of the object's kind
 * @param {string} [path] where the object stands
 * @returns {Checked}
 * @throws {import("./errors.js").EngineError} artifact_invalid, naming the field
 */
export function read(value, schema, name, path = "") {
  const given = object(value, path);
  let rules = schema[name];
  for (const [field, rule] of Object.entries(rules)) {
    if (rule.kind) rules = schema[`${name}.${check(get(given, field, path), rule, schema, at(path, field))}`];
  }
  /** @type {Record<string, unknown>} */
  const out = {};
  for (const [field, rule] of Object.entries(rules)) {
    if (field === "*") {
      const others = Object.entries(given).filter(([key]) => !Object.hasOwn(rules, key));
      out[field] = Object.fromEntries(others.map(([key, item]) => [key, check(item, rule, schema, at(path, key))]));
    } else if (rule.optional && !Object.hasOwn(given, field)) {
      out[field] = null;
    } else {
      out[field] = check(get(given, field, path), rule, schema, at(path, field));
    }
  }
  return out;
}

/**
 * @param {unknown} value
 * @param {string} path
 * @returns {Record<string, unknown>}
 */
function object(value, path) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidArtifact("must be an object", path || "the document");
  }
  return /** @type {Record<string, unknown>} */ (value);
}

/** @param {Record<string, unknown>} given @param {string} field @param {string} path */
function get(given, field, path) {
  if (!Object.hasOwn(given, field)) throw invalidArtifact("is missing", at(path, field));
  return given[field];
}

/** @param {string} path @param {string} key */
function at(path, key) {
  return path ? `${path}.${brief(key)}` : brief(key);
}

/**
 * @param {unknown} value
 * @param {Rule} rule
 * @param {Schema} schema
 * @param {string} path
 * @returns {any}
 */
function check(value, rule, schema, path) {
  if ((value ?? null) === null && rule.null) return null; // Python's None arrives as undefined
  if (rule.or && typeof value === "string") return choice(value, rule.or, path);
  switch (rule.is) {
    case "int":
      return whole(value, rule, path);
    case "text":
      return text(value, rule.of, path);
    case "object":
      return read(value, schema, rule.of, path);
    case "list":
      return list(value, rule, path).map((item, i) => check(item, rule.of, schema, `${path}[${i}]`));
    case "choice":
      return choice(value, rule.of, path);
    case "flag":
      if (typeof value !== "boolean") throw invalidArtifact("must be true or false", path);
      return value;
    case "number":
      if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) throw invalidArtifact("must be a positive number", path);
      return value;
    case "map": {
      const entries = Object.entries(object(value, path));
      for (const [key] of entries) {
        if (!TEXTS[rule.keys].test(key)) throw invalidArtifact(`${quoted(key)} is not a valid name`, path);
      }
      return Object.fromEntries(entries.map(([key, item]) => [key, check(item, rule.of, schema, at(path, key))]));
    }
    case "exactly":
      if (!Array.isArray(value) || value.length !== rule.of.length || !rule.of.every((/** @type {unknown} */ each, /** @type {number} */ i) => value[i] === each)) {
        throw invalidArtifact(`must be ${rule.of.join(", ")}`, path);
      }
      return value;
    default:
      return extent(value, rule, path, 0);
  }
}

/** @param {unknown} value @param {Rule} rule @param {string} path @returns {number} */
function whole(value, { low, high, why }, path) {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) throw invalidArtifact("must be a whole number", path);
  if (value >= low && value <= high) return value;
  throw invalidArtifact(low === high ? `${value} is not the supported ${low}: ${why}` : `${value} is outside ${low}..${high}`, path);
}

/** @param {unknown} value @param {string} kind @param {string} path @returns {string} */
function text(value, kind, path) {
  if (typeof value !== "string") throw invalidArtifact("must be a string", path);
  if (kind === "line") {
    const length = [...value.slice(0, 2 * LINE + 2)].length;
    if (length > LINE) throw invalidArtifact(`has more than ${LINE} characters`, path);
    if (NOT_IN_A_LINE.test(value)) throw invalidArtifact("must be one line of text", path);
  } else if (kind !== "any" && (value.length > 8 * LINE || !TEXTS[kind].test(value))) {
    throw invalidArtifact(`${quoted(value)} is not allowed here`, path);
  }
  return value;
}

/** @param {unknown} value @param {string[]} allowed @param {string} path @returns {string} */
function choice(value, allowed, path) {
  if (typeof value !== "string") throw invalidArtifact("must be a string", path);
  if (!allowed.includes(value)) throw invalidArtifact(`${quoted(value)} is not one of ${allowed.join(", ")}`, path);
  return value;
}

/** @param {unknown} value @param {Rule} rule @param {string} path @returns {unknown[]} */
function list(value, { low, high }, path) {
  if (!Array.isArray(value)) throw invalidArtifact("must be a list", path);
  if (value.length >= low && value.length <= high) return value;
  throw invalidArtifact(`has ${value.length} items; there must be ${low === high ? low : `${low} to ${high}`}`, path);
}

/**
 * @param {unknown} value a number, a variable's name, or an operator and two of these
 * @param {Rule} rule
 * @param {string} path
 * @param {number} depth
 * @returns {any}
 */
function extent(value, rule, path, depth) {
  if (typeof value === "string") return choice(value, rule.or, path);
  if (!Array.isArray(value)) return whole(value, { low: depth ? 1 : 0, high: rule.high }, path);
  if (value.length !== 3 || depth > rule.depth) throw invalidArtifact("must be an operator and two extents", path);
  const operator = choice(value[0], OPERATORS, `${path}[0]`);
  if (operator === "ceildiv" && (typeof value[2] === "string" || Array.isArray(value[2]))) {
    throw invalidArtifact("must be a whole number", `${path}[2]`);
  }
  return [operator, ...[1, 2].map((i) => extent(value[i], rule, `${path}[${i}]`, depth + 1))];
}
