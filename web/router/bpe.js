/**
 * @file Byte-pair encoding over flat tables (engine/format/tokenizer_tables.js): of every pair that stands side by side the
 * one of the lowest rank is merged, of equal ones the first, until none can be. Text stays where it is: a pair is the bytes
 * from the one's beginning to the other's end.
 */

const encoder = new TextEncoder();
/** Words whose tokens are kept, and characters of the longest of them. */
const KEPT = 10_000;
const KEPT_CHARACTERS = 255;
/** A place in a word, of which a heap's entry holds the rank in front: both stay whole numbers in a float64. */
const PLACES = 2 ** 27;
const NONE = -1;

/**
 * @typedef {object} Bpe
 * @property {import("../engine/format/tokenizer_tables.js").TokenizerTables} tables
 * @property {boolean} ignoreMerges a word that is a token is that token
 * @property {boolean} fuseUnknown those that stand side by side in a word are one
 * @property {number | undefined} unknown the token of what has none; it is left out where there is none
 * @property {number[] | null} bytes the tokens of what has none, by byte; -1 for one without
 */

export class Encoder {
  #bpe;
  /** @type {Map<string, number[]>} */
  #kept = new Map();
  #bytes = new Uint8Array(1024);

  /** @param {Bpe} bpe */
  constructor(bpe) {
    this.#bpe = bpe;
  }

  /** @param {string[]} words as the pre-tokenizer cut them @returns {number[]} */
  encode(words) {
    return words.flatMap((word) => this.#word(word));
  }

  /** @param {string} word @returns {number[]} */
  #word(word) {
    const kept = this.#kept.get(word);
    if (kept) return kept;
    const ids = this.#merged(word);
    if (word.length > KEPT_CHARACTERS) return ids;
    if (this.#kept.size >= KEPT) this.#kept.clear();
    this.#kept.set(word, ids);
    return ids;
  }

  /** @param {string} word @returns {number[]} */
  #merged(word) {
    const { tables, ignoreMerges } = this.#bpe;
    if (this.#bytes.length < 3 * word.length) this.#bytes = new Uint8Array(6 * word.length);
    const bytes = this.#bytes;
    const { written: end } = encoder.encodeInto(word, bytes);
    const whole = ignoreMerges ? tables.find(bytes, 0, end) : NONE;
    if (whole !== NONE) return [whole];
    // Each character, then what they become: by the place of its first byte where the next begins, where the one before,
    // and the rank of its merge with the next. The last one's next is the end.
    const next = new Int32Array(end + 1);
    const before = new Int32Array(end + 1);
    const ranks = new Int32Array(end + 1).fill(NONE);
    for (let at = 0, last = NONE; at < end; ) {
      let to = at + 1;
      while (to < end && (bytes[to] & 0xc0) === 0x80) to++;
      [next[at], before[at]] = [to, last];
      [last, at] = [at, to];
    }
    const heap = new Heap();
    const look = (/** @type {number} */ at) => {
      ranks[at] = next[at] < end ? tables.rank(bytes, at, next[at], next[next[at]]) : NONE;
      if (ranks[at] !== NONE) heap.push(ranks[at] * PLACES + at);
    };
    for (let at = 0; at < end; at = next[at]) look(at);
    for (let least = heap.pop(); least !== undefined; least = heap.pop()) {
      const at = least % PLACES;
      if (ranks[at] !== (least - at) / PLACES) continue; // it was merged with another since
      const gone = next[at];
      ranks[gone] = NONE;
      next[at] = next[gone];
      before[next[at]] = at;
      look(at);
      if (before[at] !== NONE) look(before[at]);
    }
    /** @type {number[]} */
    const ids = [];
    for (let at = 0, known = true; at < end; at = next[at]) known = this.#append(ids, at, next[at], known);
    return ids;
  }

  /** @param {number[]} ids @param {number} from @param {number} to @param {boolean} known what stood before @returns {boolean} whether this is */
  #append(ids, from, to, known) {
    const { tables, bytes: byByte, fuseUnknown, unknown } = this.#bpe;
    const id = tables.find(this.#bytes, from, to);
    if (id !== NONE) {
      ids.push(id);
      return true;
    }
    const spelled = byByte ? Array.from(this.#bytes.subarray(from, to), (byte) => byByte[byte]) : [NONE];
    if (!spelled.includes(NONE)) {
      ids.push(...spelled);
      return true;
    }
    if (unknown !== undefined && (known || !fuseUnknown)) ids.push(unknown);
    return false;
  }
}

/** The least first. */
class Heap {
  /** @type {number[]} */
  #items = [];

  /** @param {number} item */
  push(item) {
    const items = this.#items;
    let at = items.length;
    while (at > 0 && items[(at - 1) >> 1] > item) {
      items[at] = items[(at - 1) >> 1];
      at = (at - 1) >> 1;
    }
    items[at] = item;
  }

  /** @returns {number | undefined} */
  pop() {
    const items = this.#items;
    const [least] = items;
    const item = items.pop();
    if (item === undefined || !items.length) return least;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child + 1 < items.length && items[child + 1] < items[child]) child++;
      if (child >= items.length || items[child] >= item) break;
      items[at] = items[child];
      at = child;
    }
    items[at] = item;
    return least;
  }
}
