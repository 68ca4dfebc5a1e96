/**
 * @file The one way by which JSON from outside comes in, and a caller's values go out: depth, size and types are counted
 * before anything recurses over them. Python's parser, and some browsers', end the whole worker where their stack
 * overflows. The limits are those of py/inpage/format/bounded.py.
 */

import { EngineError, invalidArtifact } from "./errors.js";
import { brief, said } from "./quoting.js";

export const DEPTH = 100;
const ITEMS = 1 << 20;
const CHARACTERS = 64 << 20;
/** Python reads no whole number that has more. */
const DIGITS = 4300;

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
    throw new EngineError("artifact_invalid", `${field}: is no JSON: ${said(error)}`, field, error);
  }
}

/** @param {string} text @param {string} field @param {number} items @param {number} most */
function measure(text, field, items, most) {
  const mark = /"|[[\]{},]|\d{100,}/g; // strings are skipped, as they may hold any of these
  let count = 0;
  let depth = 0;
  for (let found = mark.exec(text); found; found = mark.exec(text)) {
    const [sign] = found;
    if (sign === '"') mark.lastIndex = stringEnd(text, found.index + 1);
    else if (sign.length > 1) {
      if (sign.length > DIGITS && isWhole(text, found.index, mark.lastIndex)) throw invalidArtifact(`has a number of more than ${DIGITS} digits`, field);
    } else if (sign === "]" || sign === "}") depth--;
    else {
      if (++count > items) throw invalidArtifact(`holds more than ${items} values`, field);
      if (sign !== "," && ++depth > most) throw invalidArtifact(`is nested more than ${most} deep`, field);
    }
  }
}

/** Whether digits are a whole number, not a part of another. @param {string} text @param {number} from @param {number} to */
function isWhole(text, from, to) {
  return !/[.eE]/.test(text[to] ?? "") && !/[.eE][+-]?$/.test(text.slice(Math.max(0, from - 2), from));
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
 * A message as text.
 * @param {object} message
 * @returns {string}
 * @throws {EngineError} invalid_request
 */
export function toJson(message) {
  return JSON.stringify(plain(message));
}

/**
 * A copy of a message of a caller, as JSON has it: what the caller changes later, and what reads otherwise a second time,
 * changes nothing. What belongs to a request is named by its own name, in `params` by the name there.
 * @template {object} T
 * @param {T} message
 * @returns {T}
 * @throws {EngineError} invalid_request: it holds what JSON cannot, is nested too deeply, or too large
 */
export function plain(message) {
  const whole = Object.entries(message).map(([name, value]) => {
    const byName = name === "params" && guarded(name, () => isPlain(value));
    return [name, byName ? named(value) : copied(value, name)];
  });
  return Object.fromEntries(whole);
}

/** Each member by its name. @param {object} params @returns {object} */
function named(params) {
  const names = guarded("params", () => Object.keys(params));
  return Object.fromEntries(names.map((name) => [name, copied(member(params, name), brief(name))]));
}

/**
 * A member of an object of the caller's own, whatever reading it does.
 * @param {object} holder
 * @param {string} name
 * @returns {unknown}
 * @throws {EngineError} invalid_request
 */
export function member(holder, name) {
  return guarded(brief(name), () => /** @type {Record<string, unknown>} */ (holder)[name]);
}

/**
 * @template T
 * @param {string} field
 * @param {() => T} action
 * @returns {T}
 * @throws {EngineError} invalid_request, whatever the caller's object throws
 */
export function guarded(field, action) {
  try {
    return action();
  } catch (error) {
    throw error instanceof EngineError ? error : refused(field, `cannot be read: ${said(error)}`);
  }
}

/**
 * @param {unknown} value
 * @param {string} field
 * @returns {unknown}
 */
export function copied(value, field) {
  return guarded(field, () => copy(value, 0, { field, items: 0, characters: 0 }));
}

/** @typedef {{field: string, items: number, characters: number}} Sum of all that was copied */

/** @param {unknown} value @param {number} depth @param {Sum} sum @returns {unknown} */
function copy(value, depth, sum) {
  if (typeof value === "string") {
    count(sum, 0, value.length);
    return value;
  }
  if (typeof value === "number" && !Number.isFinite(value)) throw refused(sum.field, `holds ${value}, which JSON cannot: numbers must be finite`);
  if (["function", "symbol", "bigint"].includes(typeof value)) throw refused(sum.field, `holds what JSON cannot (${typeof value})`);
  if (!isObject(value)) return value;
  if (depth > DEPTH) throw refused(sum.field, `is nested more than ${DEPTH} deep`);
  if (Array.isArray(value)) return list(value, depth, sum);
  if (!isPlain(value)) throw refused(sum.field, `holds what JSON cannot (${brief(kindOf(value))})`);
  const { toJSON } = /** @type {{toJSON?: unknown}} */ (value);
  const given = typeof toJSON === "function" ? toJSON.call(value) : value;
  if (!isObject(given)) return copy(given, depth, sum);
  if (Array.isArray(given)) return list(given, depth, sum);
  const names = Object.keys(given);
  count(sum, names.length, names.reduce((all, { length }) => all + length, 0));
  const entries = names.map((name) => [name, copy(/** @type {any} */ (given)[name], depth + 1, sum)]);
  return Object.fromEntries(entries.filter(([, inner]) => inner !== undefined));
}

/** @param {unknown[]} value @param {number} depth @param {Sum} sum @returns {unknown[]} */
function list(value, depth, sum) {
  const { length } = value;
  if (!Number.isSafeInteger(length)) throw refused(sum.field, "is a list without a length"); // a Proxy says what it likes
  count(sum, length, 0); // before it is gone through: a list may have holes only
  return Array.from({ length }, (_, i) => copy(value[i], depth + 1, sum) ?? null);
}

/** @param {Sum} sum @param {number} items @param {number} characters */
function count(sum, items, characters) {
  sum.items += items;
  sum.characters += characters;
  if (sum.items > ITEMS) throw refused(sum.field, `holds more than ${ITEMS} values`);
  if (sum.characters > CHARACTERS) throw refused(sum.field, `is larger than ${CHARACTERS} characters`);
}

/**
 * Whether it has its members by name: a Date, a Map or a typed array would go as something else, or as nothing.
 * @param {unknown} value
 * @returns {value is object}
 */
export function isPlain(value) {
  return isObject(value) && ["Object", "Module"].includes(kindOf(value));
}

/** @param {object} value @returns {string} */
function kindOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

/** @param {unknown} value @returns {value is object} */
function isObject(value) {
  return typeof value === "object" && value !== null;
}

/** @param {string} field @param {string} why */
export function refused(field, why) {
  return new EngineError("invalid_request", `${field} ${why}`, field);
}
