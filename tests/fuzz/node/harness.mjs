/** @file Runs readers on mutated documents, as harness.py does: a result, or an error of inpage's own that is short. */

import { EngineError } from "../../../web/engine/format/errors.js";
import { Mutator, random } from "./mutate.mjs";

const KILOBYTES = 64 << 10;
const [MESSAGE, FIELD] = [4000, 200];
const QUOTED = /([^\\])\1{80}/; // of the fillers that mutations put in; escapes are doubled
const CODE = /^(?!error$)[a-z_]{3,40}$/;

/**
 * @typedef {object} Reader
 * @property {string} name
 * @property {(m: Mutator) => any} make a document from the seed
 * @property {(document: any) => unknown} run reads it; may be a promise
 * @property {boolean} [wild] values that no JSON text can hold come too
 * @property {number} [share] of a usual run's documents, relative to other readers
 */

/** A reader did what it must not. */
export class Fault extends Error {}

/** @param {Reader} reader @param {number} seed @param {number} number */
export function documentOf({ name, make, wild = false }, seed, number) {
  return make(new Mutator(random(`${name} ${seed} ${number}`), wild));
}

/** @param {Reader} reader @param {number} seed @param {number} number @throws {Fault} */
export async function one(reader, seed, number) {
  const document = documentOf(reader, seed, number);
  const before = process.resourceUsage().maxRSS;
  try {
    await reader.run(document);
  } catch (error) {
    if (error instanceof Fault) throw error;
    checkError(error);
  }
  const grown = process.resourceUsage().maxRSS - before;
  if (number && grown > KILOBYTES) throw new Fault(`took ${grown >> 10} MB of memory`);
}

/** It can be shown and sent, and repeats little of what it was given. @param {unknown} error @throws {Fault} */
export function checkError(error) {
  if (!(error instanceof EngineError)) throw new Fault(`untyped: ${shown(error)}`);
  if (!CODE.test(error.code)) throw new Fault(`untyped: code ${error.code}\n${shown(error)}`);
  for (const [what, text, most] of /** @type {[string, unknown, number][]} */ ([["message", error.message, MESSAGE], ["field", error.field ?? "", FIELD]])) {
    if (typeof text !== "string") throw new Fault(`the ${what} is ${typeof text}\n${shown(error)}`);
    if (text.length > most || QUOTED.test(text)) throw new Fault(`the ${what} quotes too much (${text.length} characters): ${text.slice(0, 300)}\n${shown(error)}`);
    if (/\p{Cs}/u.test(text)) throw new Fault(`the ${what} has half a character\n${shown(error)}`);
  }
}

/** @param {unknown} error */
function shown(error) {
  try {
    return (error instanceof Error ? (error.stack ?? String(error)) : String(error)).slice(0, 3000);
  } catch {
    return "it cannot be shown";
  }
}
