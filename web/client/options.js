/**
 * @file What a caller gives, checked before anything is started: options by name and type, with the nearest name where one
 * is misspelt. Requests' parameters are Python's to check (py/inpage/requests/params.py); here is what never gets there.
 * A caller's object is read once, member by member: getters and proxies may throw, or say something else the next time.
 */

import { EngineError } from "../engine/format/errors.js";
import { copied, guarded, isPlain, member, refused } from "../engine/format/json.js";
import { brief, named } from "../engine/format/quoting.js";

/** @typedef {"text" | "string" | "url" | "flag" | "count" | "object" | "list" | "function" | "signal" | "worker" | "isolation"} Kind */

/** @type {Record<string, Kind>} */
const MODEL = { model: "text", backend: "text", threads: "count", replicas: "count", pinned: "flag" };
/** @type {Record<string, Kind>} */
const START = {
  ...MODEL, base: "url", models: "list", settings: "object", onProgress: "function", onChange: "function",
  onLeak: "function", shared: "flag", signal: "signal",
};
/** @type {Record<string, Kind>} */
const SERVE = { worker: "worker", scope: "text", isolate: "isolation", policy: "string", offline: "flag", onReload: "function", onUpdate: "function" };

/** Of any list of options. */
const ENTRIES = 1000;
/** Token ids that are taken from a typed array. */
const IDS = 1 << 20;

/** @type {Record<Kind, [string, (value: any) => boolean]>} */
const KINDS = {
  text: ["a text that is not empty", (value) => typeof value === "string" && value !== ""],
  string: ["a text", (value) => typeof value === "string"],
  url: ["a URL", (value) => typeof value === "string" || value instanceof URL],
  flag: ["true or false", (value) => typeof value === "boolean"],
  count: ["a whole number above 0", (value) => Number.isSafeInteger(value) && value > 0],
  object: ["an object", isPlain],
  list: [`a list of at most ${ENTRIES}`, (value) => Array.isArray(value) && value.length <= ENTRIES],
  function: ["a function", (value) => typeof value === "function"],
  signal: ["an AbortSignal", (value) => value instanceof AbortSignal],
  worker: ["a URL or a ServiceWorkerRegistration", (value) => typeof value === "string" || isObject(value)],
  isolation: ['true, false, "require-corp" or "credentialless"', (value) => [true, false, "require-corp", "credentialless"].includes(value)],
};

/**
 * @param {unknown} options
 * @returns {import("./types.js").StartOptions}
 * @throws {EngineError} invalid_request
 */
export function startOptions(options) {
  const given = modelOf(options, "options", START);
  const { base, models, settings } = given;
  if (models) given.models = listed(models, "models", ENTRIES).map((each, i) => modelOptions(each, `models[${i}]`));
  if (settings) given.settings = copied(settings, "settings");
  if (typeof base === "object") given.base = guarded("base", () => String(base.href));
  return given;
}

/**
 * @param {unknown} options
 * @param {string} [field]
 * @returns {import("./types.js").ModelOptions}
 * @throws {EngineError} invalid_request
 */
export function modelOptions(options, field = "options") {
  return modelOf(options, field, MODEL);
}

/**
 * @param {unknown} options
 * @returns {import("./serve.js").ServeOptions}
 * @throws {EngineError} invalid_request
 */
export function serveOptions(options) {
  return checked(options ?? {}, "options", "{ isolate: true }", SERVE);
}

/**
 * @param {unknown} params
 * @returns {import("./types.js").Params}
 * @throws {EngineError} invalid_request
 */
export function requestParams(params) {
  if (params === undefined) return {};
  const { signal, resume, ...rest } = /** @type {import("./types.js").Params} */ (members(params, "params", "{ max_tokens: 100 }"));
  if (signal !== undefined) expect(signal, "signal", "signal");
  return { ...rest, ...(resume && { resume: ids(resume, "resume") }), ...(signal && { signal }) };
}

/**
 * Token ids in a typed array as a list; anything else as it is.
 * @template T
 * @param {T} prompt
 * @param {string} field
 * @returns {T extends Uint32Array | Int32Array ? number[] : T}
 * @throws {EngineError} invalid_request
 */
export function ids(prompt, field) {
  if (!ArrayBuffer.isView(prompt) || prompt instanceof DataView) return /** @type {any} */ (prompt);
  const typed = /** @type {Uint32Array} */ (/** @type {unknown} */ (prompt));
  if (typed.length > IDS) throw refused(field, `has ${typed.length} ids, at most ${IDS} are taken`);
  return /** @type {any} */ (Array.from({ length: typed.length }, (_, i) => Number(typed[i])));
}

/**
 * Prompts, of which some may be ids in typed arrays.
 * @param {unknown} prompts
 * @param {string} field
 * @returns {unknown}
 * @throws {EngineError} invalid_request
 */
export function idsOfEach(prompts, field) {
  if (!guarded(field, () => Array.isArray(prompts))) return prompts;
  return listed(/** @type {unknown[]} */ (prompts), field, IDS).map((each, i) => ids(each, `${field}[${i}]`));
}

/** Its items, read once: it may have holes only, or be a Proxy. @param {unknown[]} items @param {string} field @param {number} most */
function listed(items, field, most) {
  return guarded(field, () => {
    const { length } = items;
    if (!(length <= most)) throw refused(field, `has ${length} items, at most ${most} are taken`);
    return Array.from({ length }, (_, i) => items[i]);
  });
}

/**
 * @param {unknown} options
 * @param {string} field
 * @param {Record<string, Kind>} known
 * @returns {any}
 */
function modelOf(options, field, known) {
  const given = checked(options, field, '{ model: "smollm2-135m-instruct" }', known);
  const inside = field === "options" ? "" : `${field}.`;
  if (given.model === undefined) throw refused(`${inside}model`, 'is missing: name a model, such as model: "smollm2-135m-instruct"');
  return given;
}

/**
 * @param {unknown} options
 * @param {string} field
 * @param {string} such an example
 * @param {Record<string, Kind>} known
 * @returns {any}
 */
function checked(options, field, such, known) {
  const given = members(options, field, such);
  const inside = field === "options" ? "" : `${field}.`;
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(known, name)) throw unknown(inside + brief(name), name, Object.keys(known));
    if (value !== undefined) expect(value, inside + name, known[name]);
  }
  return given;
}

/** @param {unknown} value @param {string} field @param {Kind} kind @throws {EngineError} invalid_request */
export function expect(value, field, kind) {
  const [must, is] = KINDS[kind];
  if (!guarded(field, () => is(value))) throw refused(field, `must be ${must}, not ${named(value)}`);
}

/** Each member, read once. @param {unknown} holder @param {string} field @param {string} such @returns {Record<string, unknown>} */
function members(holder, field, such) {
  if (!guarded(field, () => KINDS.object[1](holder))) throw refused(field, `must be an object, such as ${such}, not ${named(holder)}`);
  const whole = /** @type {object} */ (holder);
  const names = guarded(field, () => Object.keys(whole));
  if (names.length > ENTRIES) throw refused(field, `has ${names.length} members, at most ${ENTRIES} are taken`);
  return Object.fromEntries(names.map((name) => [name, member(whole, name)]));
}

/**
 * @param {string} field
 * @param {string} name
 * @param {string[]} known
 * @returns {EngineError}
 */
export function unknown(field, name, known) {
  const [near] = known.map((each) => ({ each, far: distance(name, each) })).sort((a, b) => a.far - b.far);
  const meant = near && near.far <= Math.max(2, name.length / 3) ? `did you mean ${brief(near.each)}? ` : "";
  const what = field.endsWith(brief(name)) ? "" : ` ${brief(name)}`;
  return new EngineError("invalid_request", `${field}${what} is unknown: ${meant}known are ${known.map(brief).join(", ") || "none"}`, field);
}

/** Insertions, deletions and replacements between two words; case counts for nothing. @param {string} a @param {string} b */
function distance(a, b) {
  const [from, to] = [a, b].map((word) => word.slice(0, 50).toLowerCase());
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
