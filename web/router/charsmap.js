/**
 * @file SentencePiece's map of characters ("Precompiled" of a tokenizer.json) as PyPI's tokenizers applies it: a cluster of
 * characters that a reader takes for one becomes what the map has for it, if it is short; what has nothing there goes
 * character by character. (npm's library has an expression of its own in the place of the map.)
 */

import { invalidArtifact } from "../engine/format/errors.js";

const FIELD = "tokenizer.normalizer";
/** Bytes that a character becomes at most: NFKC makes 33 of one. */
const LONGEST = 256;
/** UTF-8 bytes of a cluster that is looked up as a whole. */
const SHORT = 5;
const PLAIN = /^[\x20-\x7e]*$/;

export class Charsmap {
  #trie;
  #texts;
  #bytes = new Uint8Array(16);
  #encoder = new TextEncoder();
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #clusters = new Intl.Segmenter("und", { granularity: "grapheme" });
  /** Whether ASCII's visible characters stay. */
  #keeps;

  /** @param {string} base64 how many bytes the trie has, the trie (a double array, as darts-clone writes it), and the texts */
  constructor(base64) {
    const data = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const view = new DataView(data.buffer);
    const size = data.length < 8 ? 0 : view.getUint32(0, true);
    if (size < 4 || size % 4 || size + 4 > data.length) throw invalidArtifact("has a map of characters that is cut off", FIELD);
    this.#trie = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = data.subarray(4 + size);
    for (let at = 0, start = 0; at < this.#texts.length; at++) {
      if (this.#texts[at] === 0) start = at + 1;
      if (at - start >= LONGEST) throw invalidArtifact(`has a map of characters that writes over ${LONGEST} bytes for one`, FIELD);
    }
    const visible = Array.from({ length: 0x5f }, (_, i) => String.fromCharCode(0x20 + i));
    this.#keeps = visible.every((letter) => this.#find(letter) === undefined);
  }

  /** @param {string} text @returns {string} */
  normalize(text) {
    if (this.#keeps && PLAIN.test(text)) return text;
    let out = "";
    for (const { segment } of this.#clusters.segment(text)) {
      const whole = segment.length <= SHORT ? this.#find(segment, SHORT) : undefined;
      if (whole === undefined) for (const letter of segment) out += this.#find(letter) ?? letter;
      else out += whole;
    }
    return out;
  }

  /**
   * What the shortest beginning of `text` that the map has becomes.
   * @param {string} text
   * @param {number} [most] bytes; a longer one is not looked for
   * @returns {string | undefined}
   */
  #find(text, most = 4) {
    const { read, written } = this.#encoder.encodeInto(text, this.#bytes);
    if (read < text.length || written > most) return undefined;
    const trie = this.#trie;
    let node = offset(trie[0]);
    for (let i = 0; i < written; i++) {
      const byte = this.#bytes[i];
      if (byte === 0) return undefined;
      node ^= byte;
      const unit = trie[node]; // undefined behind the end
      if (unit === undefined || (unit & 0x800000ff) !== byte) return undefined;
      node ^= offset(unit);
      if ((unit >>> 8) & 1) return this.#text((trie[node] ?? 0) & 0x7fffffff);
    }
    return undefined;
  }

  /** @param {number} start @returns {string} up to the next zero */
  #text(start) {
    const end = this.#texts.indexOf(0, start);
    return this.#decoder.decode(this.#texts.subarray(start, end < 0 ? undefined : end));
  }
}

/** @param {number} unit of the trie @returns {number} */
function offset(unit) {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
