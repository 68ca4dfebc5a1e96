/**
 * @file The tokenizer over its library, for host.js in the router worker and for text_worker.js, which does the same beside
 * it.
 */

import { Tokenizer } from "../vendor/tokenizers/tokenizers.js";
import { object } from "../engine/format/check.js";
import { invalidArtifact } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";

/** @typedef {{ids: Int32Array, counts: Int32Array}} Encoded ids of several texts behind each other, and how many each has */

/**
 * @typedef {{model?: {vocab?: unknown, merges?: unknown}} & Record<string, unknown>} Description a tokenizer.json, parsed
 */

/**
 * A tokenizer.json, parsed once. Its outline goes to Python, which has it made as it says then.
 * @param {string} text
 * @param {number} characters at most
 * @param {number} items values at most
 * @param {number} depth at most
 * @returns {{outline: string, described(changed: string): Description}} outline: all of it but merges, and of the
 *   vocabulary the longest text with the largest id, all of it where tokens spell bytes out; described: `changed`, an
 *   outline with changes and more tokens, and the rest as it was
 */
export function outlined(text, characters, items, depth) {
  const whole = /** @type {Description} */ (object(parsed(text, "tokenizer.file", { characters, items, depth }), "tokenizer.file"));
  const model = whole.model ? object(whole.model, "tokenizer.model") : undefined;
  if (!model) return { outline: text, described: (changed) => JSON.parse(changed) };
  const { vocab, merges } = model;
  const list = Array.isArray(vocab);
  const named = list ? {} : object(vocab ?? {}, "tokenizer.model.vocab");
  const texts = list ? vocab.map((entry) => entry?.[0]) : Object.keys(named);
  const longest = longestOf(texts);
  const ids = /** @type {number[]} */ (Object.values(named));
  if (!ids.every((id) => Number.isSafeInteger(id))) throw invalidArtifact("must hold whole numbers", "tokenizer.model.vocab");
  const short = list ? [[longest, 0]] : { [longest]: ids.reduce((most, id) => Math.max(most, id), 0) };
  const spelled = JSON.stringify(whole.decoder ?? null).includes('"ByteFallback"');
  const outline = { ...whole, model: { ...model, vocab: spelled ? vocab : short, merges: [] } };
  return {
    outline: JSON.stringify(outline),
    described: (changed) => {
      const description = JSON.parse(changed);
      const all = list ? vocab : { ...description.model.vocab, .../** @type {object} */ (vocab) };
      return { ...description, model: { ...description.model, vocab: all, merges } };
    },
  };
}

/** By characters, as Python counts them. @param {unknown[]} texts @returns {string} */
function longestOf(texts) {
  let longest = "";
  let most = 0;
  for (const text of texts) {
    if (typeof text !== "string") throw invalidArtifact("must hold texts", "tokenizer.model.vocab");
    if (text.length <= most) continue;
    const count = [...text].length;
    if (count > most) [longest, most] = [text, count];
  }
  return longest;
}

/**
 * @param {Description} description
 * @returns {{encode(texts: string[]): Encoded, decode(ids: number[]): string, piece(id: number): string | undefined}} piece: a
 *   token as the vocabulary has it
 */
export function tokenizer(description) {
  const library = new Tokenizer(description, {});
  return {
    encode: (texts) => {
      const lists = texts.map((text) => library.encode(text, { add_special_tokens: false }).ids);
      return { ids: Int32Array.from(lists.flat()), counts: Int32Array.from(lists, (ids) => ids.length) };
    },
    decode: (ids) => library.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false }),
    piece: (id) => library.id_to_token(id),
  };
}
