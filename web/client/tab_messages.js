/**
 * @file What tabs say to each other (remote.js, guest.js, tabs.js), checked where it is heard: any script of the origin can
 * post on these channels. What is none of these messages counts as not heard.
 */

import { areAll, areTokens, isObject } from "./shapes.js";

/**
 * @typedef {import("./supervisor.js").ModelEntry} ModelEntry
 * @typedef {import("./turns.js").Standing} Standing
 * @typedef {{hello: string, models: ModelEntry[], hidden: boolean}} Hello
 */

/** Longer names than a tab gives itself are none. */
const NAME = 200;
const MODELS = 1000;
const CALLS = 10_000; // of a tab, under way

/**
 * On the channel of all: who looks for the host, or a new host.
 * @param {unknown} message
 * @returns {Hello | {host: true} | null}
 */
export function toAll(message) {
  const { hello, models, hidden, host } = fields(message);
  if (host === true) return { host };
  const whole = isName(hello) && typeof hidden === "boolean" && areAll(models, isEntry) && models.length <= MODELS;
  return whole ? { hello, models, hidden } : null;
}

/**
 * @param {unknown} message
 * @returns {"ping" | {cancel: number} | {hidden: boolean} | {id: number, call: string, standing: Standing | null} | null}
 */
export function toHost(message) {
  if (message === "ping") return message;
  const { id, call, standing = null, cancel, hidden } = fields(message);
  if (isId(cancel)) return { cancel };
  if (typeof hidden === "boolean") return { hidden };
  return isId(id) && typeof call === "string" && (standing === null || isStanding(standing)) ? { id, call, standing } : null;
}

/**
 * @param {unknown} message
 * @returns {any} "pong", or one of {here}, {welcome}, {bye}, {died, standings}, {admitted}, {event}, {id, heard}, {id, value}
 *   and {id, error}; null
 */
export function toGuest(message) {
  if (message === "pong") return message;
  const { id, here, welcome, bye, died, standings, admitted, event, heard, value, error } = fields(message);
  if (here === true) return { here };
  if (bye === true) return { bye };
  if (isObject(welcome)) return { welcome };
  if (isObject(died)) return { died, standings: standingsOf(fields(standings)) };
  if (isId(admitted)) return { admitted };
  if (isObject(event)) return { event };
  if (!isId(id)) return null;
  if (heard !== undefined) return isHeard(heard) ? { id, heard } : null;
  return error === undefined ? { id, value } : { id, error };
}

/** Of an answer as it comes. @param {unknown} heard */
function isHeard(heard) {
  const { begun, piece, chunk, token_ids: tokens } = fields(heard);
  if (!isObject(heard) || (begun !== undefined && !isObject(begun)) || (chunk !== undefined && typeof chunk !== "string")) return false;
  if (tokens !== undefined && !areTokens(tokens)) return false;
  const { text, token_ids: those, failovers = [] } = fields(piece);
  return piece === undefined || (typeof text === "string" && areTokens(those) && Array.isArray(failovers));
}

/** @param {unknown} value @returns {value is ModelEntry} */
function isEntry(value) {
  const { model, artifact } = fields(value);
  return typeof model === "string" && typeof artifact === "string";
}

/** By the number of the call. @param {Record<string, unknown>} given @returns {Record<string, Standing>} */
function standingsOf(given) {
  /** @type {[string, Standing][]} */
  const found = [];
  for (const id in given) {
    const standing = given[id];
    if (found.length < CALLS && isStanding(standing)) found.push([id, standing]);
  }
  return Object.fromEntries(found);
}

/** @param {unknown} value @returns {value is Standing} */
function isStanding(value) {
  return ["suspicion", "deaths", "rank"].every((name) => Number.isSafeInteger(fields(value)[name]));
}

/** @param {unknown} value @returns {value is number} */
function isId(value) {
  return typeof value === "number" && Number.isSafeInteger(value);
}

/** @param {unknown} value @returns {value is string} */
function isName(value) {
  return typeof value === "string" && value !== "" && value.length <= NAME;
}

/** @param {unknown} value @returns {Record<string, any>} */
function fields(value) {
  return isObject(value) ? value : {};
}
