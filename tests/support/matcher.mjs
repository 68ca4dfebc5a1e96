/**
 * @file Grammars through the real matcher, as a grammar worker compiles and follows them, but in Node: for pytest. Reads
 * a list of jobs from standard input, `{source, kind, texts, walks, seed}`, and writes what came of each:
 * `{accepted: boolean[], said: string[]}` or `{error}`; `accepted`: which texts are whole answers, however they are cut
 * into tokens; `said`: answers of allowed tokens chosen at random. A job with `trace` gets `traces` too: of each such answer
 * its tokens, and a hash of the masks before each. `{vocabulary: true}` asks for `{texts, stops}`.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { Grammars } from "../../web/engine/grammar/grammar.js";
import { random } from "../browser/support/killer.js";

// XGrammar's script looks for these where it finds no page.
Object.assign(globalThis, { require: createRequire(import.meta.url), __filename: import.meta.filename, __dirname: import.meta.dirname });

const MOST = 300;
/** Tokens beside those of one byte: pieces across the borders of JSON's parts, words, numbers, pieces of characters. */
const PIECES = [
  '{"', '"}', '": ', '", "', '",', '":', '["', '"]', "], ", "}, ", "[]", "{}", "]}", "}]", ", ", ': "', ': {', ': [', ' "', '""',
  '\\"', "\\\\", "\\n", "\\u", "\\u00", "true", "false", "null", "the", " the", "ing", "ab", "abc", "aaa", "name", "value",
  "id", "2024", "-01", "T10", ":00", "Z", "10", "100", "00", "0.", ".5", "1e", "e-", "-1", "12", "99", "@", ".com", "http://",
  "é", "éé", "あ", "い", "😀", "ä", "\u00e3\u0081".slice(0, 1), "a\"", "é\"", ".\"", "1, ", "0}", "5]", "x\": ", "a\": ", "b\": ",
];
const CLOSING = /["\]}]/;

/** The alphabet of byte-level BPE. */
const alphabet = (() => {
  const direct = [...range(33, 126), ...range(161, 172), ...range(174, 255)];
  const others = range(0, 255).filter((byte) => !direct.includes(byte));
  const map = new Map(direct.map((byte) => [byte, String.fromCharCode(byte)]));
  others.forEach((byte, i) => map.set(byte, String.fromCharCode(256 + i)));
  return map;
})();
/** @type {Uint8Array[]} */
const tokens = [...range(0, 255).map((byte) => Uint8Array.of(byte)), ...PIECES.map((piece) => new TextEncoder().encode(piece))];
tokens.push(Uint8Array.of(0xe3, 0x81), Uint8Array.of(0xc3), Uint8Array.of(0xa9, 0x22), Uint8Array.of(0xf0, 0x9f, 0x98));
const STOP = tokens.length;
const WORDS = Math.ceil((STOP + 1) / 32);
const texts = tokens.map((bytes) => Array.from(bytes, (byte) => alphabet.get(byte)).join(""));
const vocabulary = { texts: [...texts, "<end>"], stops: [STOP] };
const grammars = new Grammars({ kind: "byte_level", ...vocabulary }, 4);
const closing = new Set(tokens.flatMap((bytes, id) => (CLOSING.test(Buffer.from(bytes).toString("latin1")) ? [id] : [])));

/** @param {number} from @param {number} to */
function range(from, to) {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

/** The longest token each time, or bytes. @param {string} text @param {boolean} long */
function cut(text, long) {
  const bytes = Buffer.from(text);
  if (!long) return [...bytes];
  const ids = [];
  for (let at = 0; at < bytes.length; ) {
    let best = bytes[at];
    for (let id = 256; id < STOP; id++) {
      if (tokens[id].length > tokens[best].length && bytes.subarray(at, at + tokens[id].length).equals(tokens[id])) best = id;
    }
    ids.push(best);
    at += tokens[best].length;
  }
  return ids;
}

/** @param {{id: string, kind: any, source: string}} grammar @param {number[]} ids @returns {Promise<Uint32Array | null>} null: they do not follow it */
async function mask(grammar, ids) {
  const words = new Uint32Array(WORDS);
  try {
    await grammars.mask(grammar, ids, words);
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    if (/does not follow|leaves nothing/.test(message)) return null;
    throw error;
  }
  return words;
}

/** @param {Uint32Array | null} words @param {number} id */
function has(words, id) {
  return Boolean(words && (words[id >> 5] >>> (id & 31)) & 1);
}

/** @param {any} grammar @param {() => number} next @param {(ids: number[], masks: string) => void} trace @returns {Promise<string | null>} null: without end */
async function walk(grammar, next, trace) {
  /** @type {number[]} */
  const ids = [];
  const masks = createHash("sha256");
  while (ids.length < MOST) {
    const words = await mask(grammar, ids);
    if (words) masks.update(words);
    if (!words) throw new Error(`nothing may follow ${JSON.stringify(text(ids))}`);
    const may = range(0, STOP).filter((id) => has(words, id));
    const ends = may.filter((id) => id === STOP || closing.has(id));
    const among = ends.length && next() < 0.25 + ids.length / 100 ? ends : may;
    const id = ends.includes(STOP) && next() < 0.5 ? STOP : among[Math.floor(next() * among.length)];
    if (id === STOP) {
      trace(ids, masks.digest("hex"));
      return text(ids);
    }
    ids.push(id);
  }
  return null;
}

/** @param {number[]} ids */
function text(ids) {
  const bytes = Buffer.concat(ids.map((id) => tokens[id]));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`no UTF-8: ${JSON.stringify(bytes.toString("latin1"))}`);
  }
}

const results = [];
let count = 0;
for (const { kind = "schema", source, texts = [], walks = 0, seed = 1, trace = false, vocabulary: asked } of JSON.parse(readFileSync(0, "utf8"))) {
  if (asked) {
    results.push(vocabulary);
    continue;
  }
  const grammar = { id: String(count++), kind, source };
  try {
    await grammars.prepare(grammar);
    const accepted = [];
    for (const each of texts) {
      const ends = [];
      for (const long of [true, false]) ends.push(has(await mask(grammar, cut(each, long)), STOP));
      if (ends[0] !== ends[1]) throw new Error(`how ${JSON.stringify(each)} is cut decides`);
      accepted.push(ends[0]);
    }
    const said = [];
    const next = random(seed);
    /** @type {{ids: number[], masks: string}[]} */
    const traces = [];
    for (let i = 0; i < walks; i++) said.push(await walk(grammar, next, (ids, masks) => void traces.push({ ids, masks })));
    results.push({ accepted, said, ...(trace && { traces }) });
  } catch (error) {
    results.push({ error: String(error) });
  }
  grammars.forget(grammar.id);
}
process.stdout.write(JSON.stringify(results), () => process.exit(0));
