/**
 * @file The tokenizer over its library, for host.js in the router worker and for text_worker.js, which does the same beside
 * it. Where the artifact has tables of it (engine/format/tokenizer_tables.js), vocabulary and merges are ours (bpe.js, or all of
 * a Unigram tokenizer: unigram.js): the
 * library, which takes seconds and 119 MB for 262,144 tokens, then has what stands around them only.
 */

import { Tokenizer } from "../vendor/tokenizers/tokenizers.js";
import { object } from "../engine/format/check.js";
import { invalidArtifact } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";
import { TokenizerTables } from "../engine/format/tokenizer_tables.js";
import { Encoder } from "./bpe.js";
import { unigram } from "./unigram.js";

/** @typedef {{ids: Int32Array, counts: Int32Array}} Encoded ids of several texts behind each other, and how many each has */

/**
 * @typedef {{model?: {vocab?: unknown, merges?: unknown}, tables?: Uint8Array<ArrayBuffer>} & Record<string, unknown>} Description
 *   a tokenizer.json, parsed; tables: where its vocabulary and merges are
 * @typedef {{characters: number, items: number, depth: number, ids?: number}} Bounds at most; ids: of tables
 * @typedef {object} Outlined
 * @property {string} outline all of a tokenizer.json but merges, and of the vocabulary the longest text with the largest id
 * @property {(changed: string) => Description} described `changed`, an outline with changes and more tokens, and the rest as
 *   it was
 * @property {TokenizerTables} [tables]
 */

/** Tables that were read before Python asks for them, and how many ids they might have. @type {WeakMap<Uint8Array, {ids: number, tables: TokenizerTables}>} */
const early = new WeakMap();

/**
 * Read tables while this thread has nothing else to do. What is wrong with them is told to who asks for them.
 * @param {Uint8Array<ArrayBuffer>} file
 * @param {number} ids at most
 */
export function readAhead(file, ids) {
  try {
    early.set(file, { ids, tables: new TokenizerTables(file, ids) });
  } catch {
    // as above
  }
}

/**
 * A tokenizer's file, read once: its tables, or the text of its tokenizer.json. Its outline goes to Python, which has it made
 * as it says then.
 * @param {string | Uint8Array<ArrayBuffer>} file
 * @param {Bounds} bounds
 * @returns {Outlined}
 */
export function outlined(file, bounds) {
  if (typeof file === "string") return outlinedText(file, bounds);
  const found = early.get(file);
  early.delete(file);
  const tables = found && found.ids === bounds.ids ? found.tables : new TokenizerTables(file, bounds.ids);
  return { outline: tables.outline, tables, described: (changed) => ({ ...JSON.parse(changed), tables: file }) };
}

/** @param {string} text @param {Bounds} bounds @returns {Outlined} */
function outlinedText(text, bounds) {
  const whole = /** @type {Description} */ (object(parsed(text, "tokenizer.file", bounds), "tokenizer.file"));
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
  const outline = { ...whole, model: { ...model, vocab: short, merges: [] } };
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
 * @param {TokenizerTables} [tables] those of the description, where they were read already
 * @returns {{encode(texts: string[]): Encoded, decode(ids: number[]): string, piece(id: number): string | undefined}} piece: a
 *   token as the vocabulary has it
 */
export function tokenizer(description, tables) {
  const read = tables ?? (description.tables && new TokenizerTables(description.tables));
  const said = /** @type {Description} */ (literal(description));
  const scored = /** @type {Record<string, any> | undefined} */ (said.model)?.type === "Unigram";
  if (read && scored !== Boolean(read.scores)) throw invalidArtifact(scored ? "have no scores" : "have scores that are not asked for", "tokenizer.tables");
  if (read?.scores) return calls(unigram(description, read));
  return calls(read ? overTables(said, read) : wordByWord(new Tokenizer(said, {})));
}

/**
 * @param {Pick<Tokenizer, "id_to_token"> & {encode(text: string, how?: object): {ids: number[]}, decode(ids: number[], how?: object): string}} library
 * @returns {ReturnType<typeof tokenizer>}
 */
function calls(library) {
  return {
    encode: (texts) => {
      const lists = texts.map((text) => library.encode(text, { add_special_tokens: false }).ids);
      return { ids: Int32Array.from(lists.flat()), counts: Int32Array.from(lists, (ids) => ids.length) };
    },
    decode: (ids) => library.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false }),
    piece: (id) => library.id_to_token(id),
  };
}

/** Where steps stand. */
const STEPS = ["normalizer", "pre_tokenizer", "decoder", "normalizers", "pretokenizers", "decoders"];

/**
 * The library gives what a step puts in to `replaceAll`, to which "$&" is what was found. In the file it is text, as it is to
 * native code. A second text for blanks is the library's own, which nobody else reads.
 * @param {Record<string, any>} step
 * @returns {Record<string, any>}
 */
function literal(step) {
  const said = { ...step };
  delete said.str_rep;
  if (said.type === "Replace" && typeof said.content === "string") said.content = said.content.replaceAll("$", "$$$$");
  for (const name of STEPS) {
    const inner = said[name];
    if (Array.isArray(inner)) said[name] = inner.map((each) => each && literal(each));
    else if (typeof inner === "object" && inner) said[name] = literal(inner);
  }
  return said;
}

/**
 * Unknown characters side by side are one token within a word, as in native code; the library joins those of neighbours, too.
 * @param {Tokenizer} library
 * @returns {Tokenizer}
 */
function wordByWord(library) {
  const { model } = library;
  if (!model?.fuse_unk) return library;
  return Object.assign(library, { model: Object.assign((/** @type {string[]} */ words) => words.flatMap((word) => model([word])), model) });
}

/**
 * The library, with a model of ours in the place of its own. It takes tokens from one to look their ids up in it: here they
 * are ids already.
 * @param {Description} description
 * @param {TokenizerTables} tables
 * @returns {Tokenizer}
 */
function overTables(description, tables) {
  const bytes = new TextEncoder();
  const find = (/** @type {string} */ text) => tables.find(bytes.encode(text), 0, bytes.encode(text).length);
  const { vocab, ...model } = /** @type {Record<string, any>} */ (description.model);
  const more = Object.fromEntries(Object.entries(vocab).filter(([text]) => find(text) < 0)); // what Python added
  const library = new Tokenizer({ ...description, model: { ...model, vocab: more, merges: [] } }, {});
  const { vocab: added, tokens_to_ids: ids } = /** @type {NonNullable<Tokenizer["model"]>} */ (library.model);
  const idOf = (/** @type {string} */ text) => ids.get(text) ?? (find(text) < 0 ? undefined : find(text));
  const piece = (/** @type {number} */ id) => added[id] ?? tables.piece(id);
  const spelled = (/** @type {number} */ byte) => find(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const encoder = new Encoder({
    tables,
    ignoreMerges: Boolean(model.ignore_merges),
    fuseUnknown: Boolean(model.fuse_unk),
    unknown: model.unk_token === null || model.unk_token === undefined ? undefined : idOf(model.unk_token),
    bytes: model.byte_fallback ? Array.from({ length: 256 }, (_, byte) => spelled(byte)) : null,
  });
  const { decoder } = library;
  return Object.assign(library, {
    model: Object.assign((/** @type {string[]} */ words) => encoder.encode(words), { tokens_to_ids: { get: (/** @type {unknown} */ id) => id } }),
    decode: (/** @type {number[]} */ given) => {
      const tokens = given.map((id) => piece(id) ?? model.unk_token);
      return decoder ? decoder.decode(tokens) : tokens.join(" ");
    },
    id_to_token: piece,
  });
}
