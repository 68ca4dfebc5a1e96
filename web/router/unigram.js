/**
 * @file Unigram tokenizers over flat tables (engine/format/tokenizer_tables.js), with the steps around them that
 * compile/inpage_compile/tokenizers/unigram.py writes: of all ways to cut a word into tokens the one whose scores sum up to
 * the most, as PyPI's tokenizers finds it (Kudo, "Subword Regularization", 2018).
 */

import { invalidArtifact } from "../engine/format/errors.js";
import { Charsmap } from "./charsmap.js";

const BLANK = "\u2581";
/** One unit: none of them takes two. */
const WHITE = /\p{White_Space}/u;
/** What a character costs that no token is, below the least score. */
const PENALTY = 10;
const NONE = -1;
/** Words whose tokens are kept, and characters of the longest of them. */
const KEPT = 10_000;
const KEPT_CHARACTERS = 255;

/**
 * @typedef {import("../engine/format/tokenizer_tables.js").TokenizerTables} TokenizerTables
 * @typedef {Record<string, any>} Step
 */

/**
 * @param {Step} description a tokenizer.json without its vocabulary
 * @param {TokenizerTables} tables
 * @returns {{encode(text: string): {ids: number[]}, decode(ids: number[]): string, id_to_token(id: number): string | undefined}}
 */
export function unigram(description, tables) {
  const normal = stepsOf(description.normalizer, "normalizers").map(normalizer);
  const cuts = stepsOf(description.pre_tokenizer, "pretokenizers").map(cutter);
  const words = new Words(tables, description.model.unk_id);
  return {
    encode: (text) => {
      const said = normal.reduce((now, step) => step(now), text);
      return { ids: cuts.reduce((parts, cut) => parts.flatMap(cut), [said]).flatMap((word) => words.encode(word)) };
    },
    decode: (ids) => ids.map((id) => tables.piece(id) ?? "").join("").replaceAll(BLANK, " ").replace(/^ /, ""),
    id_to_token: (id) => tables.piece(id),
  };
}

/** @param {Step | null | undefined} found @param {string} inner @returns {Step[]} a step, or those of a sequence in order */
function stepsOf(found, inner) {
  if (!found) return [];
  return found.type === "Sequence" ? found[inner].flatMap((/** @type {Step} */ step) => stepsOf(step, inner)) : [found];
}

/** @param {Step} step @returns {(text: string) => string} */
function normalizer({ type, precompiled_charsmap: charsmap, pattern, content, strip_left: left, strip_right: right }) {
  if (type === "Precompiled") {
    const map = new Charsmap(charsmap);
    return (text) => map.normalize(text);
  }
  if (/^NFK?[CD]$/.test(type)) return (text) => text.normalize(type);
  if (type === "Strip") return (text) => stripped(text, left, right);
  if (type === "Replace" && pattern?.Regex === " {2,}") return (text) => text.replace(/ {2,}/g, () => content);
  if (type === "Replace" && typeof pattern?.String === "string") return (text) => text.replaceAll(pattern.String, () => content);
  throw unknown(type, "normalizer");
}

/**
 * Character by character: an expression that ends in "$" would begin anew at each blank inside the text.
 * @param {string} text
 * @param {boolean} left
 * @param {boolean} right
 */
function stripped(text, left, right) {
  let start = 0;
  let end = text.length;
  if (left) while (start < end && WHITE.test(text[start])) start++;
  if (right) while (end > start && WHITE.test(text[end - 1])) end--;
  return text.slice(start, end);
}

/** @param {Step} step @returns {(text: string) => string[]} */
function cutter({ type, prepend_scheme: scheme }) {
  if (type === "WhitespaceSplit") return (text) => text.split(/\p{White_Space}+/u).filter(Boolean);
  if (type !== "Metaspace") throw unknown(type, "pre_tokenizer");
  return (text) => {
    const said = text.replaceAll(" ", BLANK);
    const whole = scheme === "always" && said && !said.startsWith(BLANK) ? BLANK + said : said;
    return whole.split(/(?=\u2581)/);
  };
}

/** @param {string} type @param {string} part */
function unknown(type, part) {
  return invalidArtifact(`has a step that is not known with a Unigram vocabulary: ${type}`, `tokenizer.${part}`);
}

class Words {
  #tables;
  #scores;
  #unknown;
  #least;
  /** @type {Map<string, number[]>} */
  #kept = new Map();
  #encoder = new TextEncoder();
  #bytes = new Uint8Array(1024);

  /** @param {TokenizerTables} tables @param {number} unknown the token of what has none */
  constructor(tables, unknown) {
    const { scores } = tables;
    if (!scores || !(unknown >= 0 && unknown < tables.size)) throw invalidArtifact("has no scores", "tokenizer.tables");
    this.#tables = tables;
    this.#scores = scores;
    this.#unknown = unknown;
    let least = Infinity;
    for (const score of scores) least = Math.min(least, score);
    this.#least = least - PENALTY;
  }

  /** @param {string} word @returns {number[]} */
  encode(word) {
    const kept = this.#kept.get(word);
    if (kept) return kept;
    const ids = this.#best(word);
    if (word.length > KEPT_CHARACTERS) return ids;
    if (this.#kept.size >= KEPT) this.#kept.clear();
    this.#kept.set(word, ids);
    return ids;
  }

  /** By Viterbi: of every place the best way there, by its last token. @param {string} word @returns {number[]} */
  #best(word) {
    if (this.#bytes.length < 3 * word.length) this.#bytes = new Uint8Array(6 * word.length);
    const bytes = this.#bytes;
    const { written: end } = this.#encoder.encodeInto(word, bytes);
    const totals = new Float64Array(end + 1);
    const from = new Int32Array(end + 1).fill(NONE);
    const tokens = new Int32Array(end + 1);
    const reach = (/** @type {number} */ at, /** @type {number} */ to, /** @type {number} */ token, /** @type {number} */ score) => {
      const total = score + totals[at];
      if (from[to] !== NONE && total <= totals[to]) return;
      [totals[to], from[to], tokens[to]] = [total, at, token];
    };
    for (let at = 0; at < end; ) {
      const next = after(bytes, at, end);
      let alone = false;
      this.#tables.prefixes(bytes, at, end, (to, token) => {
        reach(at, to, token, this.#scores[token]);
        alone ||= to === next;
      });
      if (!alone) reach(at, next, this.#unknown, this.#least);
      at = next;
    }
    /** @type {number[]} */
    const ids = [];
    for (let to = end; to > 0; to = from[to]) {
      // Unknown characters side by side are one.
      if (tokens[to] !== this.#unknown || ids.at(-1) !== this.#unknown) ids.push(tokens[to]);
    }
    return ids.reverse();
  }
}

/** @param {Uint8Array} bytes UTF-8 @param {number} at @param {number} end @returns {number} where the next character begins */
function after(bytes, at, end) {
  let to = at + 1;
  while (to < end && (bytes[to] & 0xc0) === 0x80) to++;
  return to;
}
