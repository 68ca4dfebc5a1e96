/**
 * @file How answers are made. The page's address says it for one visit (`?temperature=`…), what a person chooses is kept.
 * Whatever is no value of its kind counts as not given.
 */

import { isObject } from "./data/records.js";

/** @typedef {import("./types.js").Settings} Settings */

/** Name → least, most. */
export const NUMBERS = /** @type {const} */ ({ temperature: [0, 2], top_p: [0.01, 1], max_tokens: [1, 1_000_000], seed: [0, 2 ** 53 - 1], max_repeats: [0, 1000], threads: [1, 256] });
export const WHOLE = ["max_tokens", "seed", "max_repeats", "threads"];
const TEXTS = /** @type {const} */ (["model", "level", "backend", "lang"]);
/** Also empty, and long. */
const PROSE = /** @type {const} */ (["system", "schema"]);

/** A small model that lost its way should not ramble on to the context's end, and one that goes in circles ends. */
export const OURS = { max_tokens: 1024, max_repeats: 8 };

/** @type {Readonly<Settings>} */
export const NONE = Object.freeze({
  system: "", schema: "", temperature: null, top_p: null, max_tokens: null, seed: null, max_repeats: null, threads: null,
  model: null, level: null, backend: null, lang: null,
});

/** @param {unknown} value of storage @returns {Settings} */
export function readSettings(value) {
  const given = isObject(value) ? value : {};
  const read = /** @type {Record<string, unknown>} */ ({ ...NONE });
  for (const [name, [least, most]] of Object.entries(NUMBERS)) {
    const number = given[name];
    if (typeof number === "number" && number >= least && number <= most && (!WHOLE.includes(name) || Number.isSafeInteger(number))) read[name] = number;
  }
  for (const name of TEXTS) if (typeof given[name] === "string" && given[name] && given[name].length < 200) read[name] = given[name];
  for (const name of PROSE) if (typeof given[name] === "string" && given[name].length < 100_000) read[name] = given[name];
  if (schemaFault(String(read.schema))) read.schema = NONE.schema;
  return /** @type {Settings} */ (/** @type {unknown} */ (read));
}

/** @param {string} schema as text @returns {string | null} why it is no JSON; null where it is, or empty */
export function schemaFault(schema) {
  try {
    if (schema.trim()) JSON.parse(schema);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** @param {URLSearchParams} query @returns {Partial<Settings>} what the address says */
export function fromAddress(query) {
  const given = Object.fromEntries([...query].map(([name, value]) => [name, name in NUMBERS && value.trim() ? Number(value) : value]));
  const read = readSettings(given);
  return Object.fromEntries(Object.entries(read).filter(([name, value]) => value !== null && (value !== "" || query.get(name) === "") && query.has(name)));
}

/**
 * The address that says the same, but for what a person wrote, which no server should read; what it says beside settings
 * stays.
 * @param {URLSearchParams} query
 * @param {Settings} settings
 */
export function toAddress(query, settings) {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(settings)) {
    if (value === null || value === "" || PROSE.some((each) => each === name)) next.delete(name);
    else next.set(name, String(value));
  }
  return next;
}

/** @param {Settings} settings @returns {Record<string, unknown>} parameters of a request */
export function requestParams({ temperature, top_p, seed, max_repeats, schema }) {
  const given = { temperature, top_p, seed, max_repeats: max_repeats ?? OURS.max_repeats, schema: schema.trim() ? JSON.parse(schema) : null };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
}
