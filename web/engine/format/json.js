/**
 * @file The one way by which JSON from outside comes in: depth, size and types are counted before anything recurses over
 * it. Python's parser, and some browsers', end the whole worker where their stack overflows. The limits are those of
 * py/inpage/format/bounded.py.
 */

import { EngineError, invalidArtifact } from "./errors.js";

export const DEPTH = 100;
const ITEMS = 1 << 20;
const CHARACTERS = 64 << 20;

/**
 * What a text of JSON holds. Depth and values are counted before it is parsed.
 * @param {string} text
 * @param {string} field for errors
 * @param {{characters?: number, items?: number, depth?: number}} [most]
 * @returns {unknown}
 * @throws {EngineError} artifact_invalid
 */
export function parsed(text, field, { characters = CHARACTERS, items = ITEMS, depth = DEPTH } = {}) {
  if (text.length > characters) throw invalidArtifact(`is larger than ${characters} characters`, field);
  measure(text, field, items, depth);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new EngineError("artifact_invalid", `${field}: is no JSON: ${String(error)}`, field, error);
  }
}

/** @param {string} text @param {string} field @param {number} items @param {number} most */
function measure(text, field, items, most) {
  const mark = /"|[[\]{},]/g; // strings are skipped, as they may hold any of these
  let count = 0;
  let depth = 0;
  for (let found = mark.exec(text); found; found = mark.exec(text)) {
    const [sign] = found;
    if (sign === '"') mark.lastIndex = stringEnd(text, found.index + 1);
    else if (sign === "]" || sign === "}") depth--;
    else {
      if (++count > items) throw invalidArtifact(`holds more than ${items} values`, field);
      if (sign !== "," && ++depth > most) throw invalidArtifact(`is nested more than ${most} deep`, field);
    }
  }
}

/** @param {string} text @param {number} from @returns {number} behind the string's closing quote */
function stringEnd(text, from) {
  for (let at = text.indexOf('"', from); at >= 0; at = text.indexOf('"', at + 1)) {
    let escapes = 0;
    while (text[at - 1 - escapes] === "\\") escapes++;
    if (escapes % 2 === 0) return at + 1;
  }
  return text.length;
}

/**
 * A message as text. What belongs to a request is named by its own name, in `params` by the name there.
 * @param {Record<string, any>} message
 * @returns {string}
 * @throws {EngineError} invalid_request
 */
export function toJson(message) {
  checkMessage(message);
  return written(message, "message");
}

/**
 * @param {unknown} message
 * @throws {EngineError} invalid_request
 */
export function checkMessage(message) {
  for (const [name, value] of members(message)) {
    if (name !== "params") check(value, name);
    else for (const [inner, its] of members(value)) check(its, inner);
  }
}

/**
 * @param {unknown} value
 * @param {string} field for errors
 * @throws {EngineError} invalid_request
 */
function check(value, field) {
  /** @type {unknown[]} */
  let level = [value];
  let items = 0;
  let characters = 0;
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > DEPTH) throw refused(field, `is nested more than ${DEPTH} deep`);
    /** @type {unknown[]} */
    const next = [];
    for (const each of level) {
      if (typeof each === "string") characters += each.length;
      else if (["function", "symbol", "bigint"].includes(typeof each) || ArrayBuffer.isView(each)) {
        throw refused(field, `holds what JSON cannot (${ArrayBuffer.isView(each) ? each.constructor.name : typeof each})`);
      } else if (typeof each === "object" && each !== null) {
        for (const [name, inner] of members(each, field)) {
          if (typeof inner !== "number") next.push(inner);
          items++;
          characters += name.length;
          if (items > ITEMS) throw refused(field, `holds more than ${ITEMS} values`);
        }
      }
    }
    if (characters > CHARACTERS) throw refused(field, `is larger than ${CHARACTERS} characters`);
    level = next;
  }
}

/**
 * @param {unknown} value
 * @param {string} [field]
 * @returns {Iterable<[string, unknown]>}
 */
function* members(value, field = "message") {
  if (typeof value !== "object" || value === null) return;
  try {
    const own = /** @type {{toJSON?: unknown}} */ (value);
    const plain = typeof own.toJSON === "function" ? own.toJSON() : value;
    if (Array.isArray(plain)) for (const inner of plain) yield ["", inner];
    else if (typeof plain === "object" && plain !== null) for (const name of Object.keys(plain)) yield [name, plain[name]];
    else yield ["", plain];
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw refused(field, `cannot be read: ${String(error)}`);
  }
}

/** @param {unknown} value @param {string} field @returns {string} */
function written(value, field) {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw refused(field, `is not JSON: ${String(error)}`);
  }
}

/** @param {string} field @param {string} why */
function refused(field, why) {
  return new EngineError("invalid_request", `${field} ${why}`, field);
}
