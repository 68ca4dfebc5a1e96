/**
 * @file A tokenizer as compile/inpage_compile/tokenizers/tables.py writes it, which describes the file: a vocabulary and its
 * merges in flat arrays, found by hash. Of 262,144 tokens they are ready in a tenth of a second and take 11 MB.
 */

import { invalidArtifact } from "./errors.js";
import { TOKENIZER_TABLES, UNIGRAM_BYTES, VOCAB } from "./limits.js";

const FIELD = "tokenizer.tables";
const MAGIC = "INTK";
const SEVEN = 0x7f;
const CONTINUES = 0x80;
/** Slots that a token passes on its way, on average, at most: a third is usual. */
const PASSED = 16;

/** Reads a file's numbers in order. */
class Numbers {
  at = 0;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
  }

  /** @param {number} most @returns {number} */
  next(most) {
    let number = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.bytes[this.at++]; // undefined behind the end
      number += (byte & SEVEN) * 2 ** shift;
      if (byte < CONTINUES) {
        if (number > most) throw invalidArtifact(`has ${number}, at most ${most} is allowed`, FIELD);
        return number;
      }
    }
    throw invalidArtifact("ends too soon, or is damaged", FIELD);
  }

  /**
   * Before room is made for what is counted.
   * @param {number} most
   * @param {number} bytes that each of them takes at least
   * @returns {number}
   */
  count(most, bytes) {
    const count = this.next(most);
    if (count * bytes > this.bytes.length - this.at) throw invalidArtifact("ends too soon", FIELD);
    return count;
  }

  /** @param {number} count @returns {Uint8Array} */
  take(count) {
    if (count > this.bytes.length - this.at) throw invalidArtifact("ends too soon", FIELD);
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }
}

export class TokenizerTables {
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #text;
  /** Where each token's text begins; it ends where the next one does. */
  #starts;
  /** Token plus 1, by the hash of its text. */
  #slots;
  #mask;
  /** Of a token's merges in those two. */
  #ways;
  #cuts;
  #ranks;
  /** Bytes of the longest token. */
  #longest = 0;

  /**
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {number} [most] ids: as many as the model knows
   * @throws {import("./errors.js").EngineError} artifact_invalid
   */
  constructor(bytes, most = VOCAB) {
    const numbers = new Numbers(bytes);
    if (new TextDecoder().decode(numbers.take(MAGIC.length)) !== MAGIC) throw invalidArtifact("are no tokenizer's", FIELD);
    const version = numbers.next(Infinity);
    if (version !== TOKENIZER_TABLES) throw invalidArtifact(`have version ${version}, not ${TOKENIZER_TABLES}: compile the model again`, FIELD);
    /** JSON of the tokenizer without merges and, but for one token, vocabulary. */
    this.outline = new TextDecoder().decode(numbers.take(numbers.next(bytes.length)));
    this.size = numbers.count(most, 1);
    this.#starts = startsOf(numbers, this.size, bytes.length);
    this.#text = numbers.take(this.#starts[this.size]).slice(); // or it would keep the whole file
    this.#mask = 2 ** Math.ceil(Math.log2(2 * this.size + 1)) - 1;
    this.#slots = new Int32Array(this.#mask + 1);
    let passed = 0;
    for (let token = 0; token < this.size; token++) {
      this.#longest = Math.max(this.#longest, this.#starts[token + 1] - this.#starts[token]);
      passed += this.#insert(token);
      if (passed > PASSED * (token + PASSED)) throw invalidArtifact("hold texts that were made to collide", FIELD);
    }
    const count = numbers.count(this.#text.length, 2); // a place to cut a token
    const made = new Int32Array(count);
    for (let rank = 0, token = 0; rank < count; rank++) {
      const step = numbers.next(2 * VOCAB);
      token += step % 2 ? -(step + 1) / 2 : step / 2;
      if (!(token >= 0 && token < this.size)) throw invalidArtifact("has a merge that makes no token", FIELD);
      made[rank] = token;
    }
    [this.#ways, this.#cuts, this.#ranks] = this.#merges(made, numbers);
    /** Of each token, of Unigram's tables; null of BPE's. */
    this.scores = numbers.at === bytes.length ? null : this.#scoresOf(numbers);
    if (this.scores && this.#longest > UNIGRAM_BYTES) throw invalidArtifact(`has a token of ${this.#longest} bytes, at most ${UNIGRAM_BYTES} are allowed`, FIELD);
    if (numbers.at !== bytes.length) throw invalidArtifact("hold more than they say", FIELD);
  }

  /** @param {number} token @returns {string | undefined} its text as the vocabulary has it */
  piece(token) {
    const [start, end] = [this.#starts[token], this.#starts[token + 1]];
    return start < end ? this.#decoder.decode(this.#text.subarray(start, end)) : undefined;
  }

  /** @returns {string[]} the text of every token, empty where there is none */
  pieces() {
    const all = this.#decoder.decode(this.#text);
    const pieces = [];
    for (let token = 0, at = 0; token < this.size; token++) {
      const from = at;
      for (let i = this.#starts[token]; i < this.#starts[token + 1]; i++) {
        const byte = this.#text[i];
        at += (byte & 0xc0) === CONTINUES ? 0 : byte >= 0xf0 ? 2 : 1; // UTF-16 units
      }
      pieces.push(all.slice(from, at));
    }
    return pieces;
  }

  /**
   * @param {Uint8Array} bytes UTF-8
   * @param {number} from
   * @param {number} to
   * @returns {number} the token whose text is bytes[from:to]; -1 where there is none
   */
  find(bytes, from, to) {
    return this.#at(hashOf(bytes, from, to), bytes, from, to);
  }

  /** @param {number} hash of the text @param {Uint8Array} bytes @param {number} from @param {number} to @returns {number} as `find` */
  #at(hash, bytes, from, to) {
    const [text, starts, slots] = [this.#text, this.#starts, this.#slots];
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const token = slots[slot] - 1;
      if (token < 0) return -1;
      const start = starts[token];
      if (starts[token + 1] - start !== to - from) continue;
      let i = from;
      while (i < to && text[start + i - from] === bytes[i]) i++;
      if (i === to) return token;
    }
  }

  /**
   * Every token that a text begins with, the shortest first.
   * @param {Uint8Array} bytes UTF-8
   * @param {number} from
   * @param {number} end
   * @param {(to: number, token: number) => void} found
   */
  prefixes(bytes, from, end, found) {
    const last = Math.min(end, from + this.#longest);
    let hash = HASH;
    for (let to = from + 1; to <= last; to++) {
      hash = Math.imul(hash ^ bytes[to - 1], PRIME);
      const token = this.#at(hash ^ (hash >>> 15), bytes, from, to);
      if (token >= 0) found(to, token);
    }
  }

  /**
   * @param {Uint8Array} bytes UTF-8
   * @param {number} from of one token's text
   * @param {number} cut where the next one's begins
   * @param {number} to
   * @returns {number} of the merge of the two; -1 where there is none
   */
  rank(bytes, from, cut, to) {
    const token = this.find(bytes, from, to);
    if (token < 0) return -1;
    for (let way = this.#ways[token]; way < this.#ways[token + 1]; way++) {
      if (this.#cuts[way] === cut - from) return this.#ranks[way];
    }
    return -1;
  }

  /** @param {number} token @returns {number} slots that were taken on the way to its own */
  #insert(token) {
    const [start, end] = [this.#starts[token], this.#starts[token + 1]];
    if (start === end) return 0;
    const first = hashOf(this.#text, start, end) & this.#mask;
    let passed = 0;
    while (this.#slots[(first + passed) & this.#mask]) passed++;
    this.#slots[(first + passed) & this.#mask] = token + 1;
    return passed;
  }

  /** @param {Numbers} numbers @returns {Float32Array | Float64Array} in single precision or double, by how many bytes are left */
  #scoresOf(numbers) {
    const left = numbers.bytes.length - numbers.at;
    const Kind = left === 4 * this.size ? Float32Array : Float64Array;
    const scores = new Kind(numbers.take(Kind.BYTES_PER_ELEMENT * this.size).slice().buffer);
    if (!scores.every(Number.isFinite)) throw invalidArtifact("has a score that is no number", FIELD);
    return scores;
  }

  /**
   * @param {Int32Array} made by each merge
   * @param {Numbers} numbers
   * @returns {[Uint32Array, Uint32Array, Uint32Array]} by token: where its merges begin; of each where it is cut, and its rank
   */
  #merges(made, numbers) {
    const ways = new Uint32Array(this.size + 2); // one ahead, so that each is at its beginning in the end
    for (const token of made) ways[token + 2]++;
    for (let token = 0; token < this.size; token++) ways[token + 2] += ways[token + 1];
    const cuts = new Uint32Array(made.length);
    const ranks = new Uint32Array(made.length);
    for (let rank = 0; rank < made.length; rank++) {
      const token = made[rank];
      const cut = numbers.next(this.#starts[token + 1] - this.#starts[token] - 1);
      const way = ways[token + 1]++;
      cuts[way] = cut;
      ranks[way] = rank;
    }
    return [ways, cuts, ranks];
  }
}

/** @param {Numbers} numbers @param {number} size @param {number} most bytes of all texts @returns {Uint32Array} */
function startsOf(numbers, size, most) {
  const starts = new Uint32Array(size + 1);
  for (let token = 0; token < size; token++) starts[token + 1] = starts[token] + numbers.next(most - starts[token]);
  return starts;
}

const HASH = 0x811c9dc5;
const PRIME = 0x01000193;

/** FNV-1a. @param {Uint8Array} bytes @param {number} from @param {number} to @returns {number} */
function hashOf(bytes, from, to) {
  let hash = HASH;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i], PRIME);
  return hash ^ (hash >>> 15);
}
