/**
 * @file What storage has of an answer that was under way (unfinished.js), checked: what is damaged counts as not there.
 */

import { parsed } from "../engine/format/json.js";
import { REQUEST_CHARS } from "../engine/format/limits.js";
import { areTokens, isObject } from "./shapes.js";

/**
 * @typedef {import("./types.js").Params} Params
 * @typedef {{op: string, model?: string, [name: string]: unknown}} Message
 * @typedef {{id: string, keep: string, began: number, message: Message, params: Params}} Head
 * @typedef {{at: number, tokens: number[], text: string}} Progress
 */

/** @param {unknown} text @param {string} id @returns {Head | null} */
export function headOf(text, id) {
  const { id: own, keep, began, message, params } = read(text);
  const whole = own === id && typeof keep === "string" && Number.isFinite(began) && ["chat", "complete"].includes(message?.op);
  return whole && isObject(params) && (params.resume === undefined || areTokens(params.resume)) ? { id, keep, began, message, params } : null;
}

/** Without it the answer begins anew, with its seed. @param {unknown} text @returns {Progress} */
export function progressOf(text) {
  const { at, tokens, text: said } = read(text);
  return Number.isFinite(at) && typeof said === "string" && areTokens(tokens) ? { at, tokens, text: said } : { at: 0, tokens: [], text: "" };
}

/** @param {unknown} text @returns {Record<string, any>} empty where it is none */
function read(text) {
  try {
    const found = typeof text === "string" ? parsed(text, "unfinished", { characters: 2 * REQUEST_CHARS }) : null;
    return isObject(found) ? found : {};
  } catch {
    return {};
  }
}
