/**
 * @file What answers may be held to: regular expressions and EBNF grammars (JSON schemas come as such), through XGrammar.
 * Loaded only when a request asks for it, in a worker of its own, and with it the library (1 MB) and the tokenizer's vocabulary.
 *
 * XGrammar was built to abort on whatever it does not like, which leaves its stack where it was: after any failure a
 * fresh copy takes its place. Nothing is lost by that: a matcher is made anew from the tokens of the answer so far.
 */

import { array, integer, object } from "../format/check.js";
import { EngineError, invalidArtifact } from "../format/errors.js";
import { parsed } from "../format/json.js";
import { described } from "../format/manifest.js";
import { MANIFEST } from "../format/schemas.js";
import { read } from "../format/structure.js";
import { TokenizerTables } from "../format/tokenizer_tables.js";
import { place } from "../host/places.js";
import { imported } from "../host/waits.js";
import { fetchFile } from "../storage/shards.js";

/** Values of a tokenizer.json, as in py/inpage/text/tokenizer.py. */
const ITEMS = 16 << 20;
/** Grammars kept compiled. */
const COMPILED = 32;
/** What a caller calls each kind. */
const FIELDS = Object.freeze({ schema: "schema", regex: "regex", ebnf: "grammar", tag: "tools" });

/**
 * @typedef {Pick<import("../core/protocol.js").Constraint, "id" | "kind" | "source">} Constraint
 * @typedef {Pick<Constraint, "kind" | "source">} Grammar
 * @typedef {typeof import("@mlc-ai/web-xgrammar")} Library
 * @typedef {import("@mlc-ai/web-xgrammar").CompiledGrammar} Compiled
 * @typedef {{kind: "byte_level" | "byte_fallback", texts: string[], stops: number[]}} Vocabulary
 *   kind: what XGrammar calls the ways in which tokens stand for bytes; texts: "" for what no answer may hold
 * @typedef {{key: string, tokens: number[], matcher: import("@mlc-ai/web-xgrammar").GrammarMatcher}} Matching
 */

/** Copies of the library loaded so far: each needs an address of its own. */
let copies = 0;

export class Grammars {
  /** @type {{library: Library, compiler: import("@mlc-ai/web-xgrammar").GrammarCompiler} | null} */
  #loaded = null;
  /** @type {string[]} what the library complained of */
  #complaints = [];
  /** @type {Map<string, Compiled>} the one used last is last */
  #compiled = new Map();
  /** @type {Map<string, Matching>} by request, the one used last is last */
  #matchings = new Map();
  #vocabulary;
  #most;

  /**
   * @param {import("../storage/shards.js").Source} source of the artifact
   * @param {unknown} manifest
   * @param {number} vocab
   * @param {number} most requests whose matchers are kept
   * @returns {Promise<Grammars>}
   */
  static async open(source, manifest, vocab, most) {
    return new Grammars(await readVocabulary(source, manifest, vocab), most);
  }

  /**
   * @param {Vocabulary} vocabulary
   * @param {number} most requests whose matchers are kept
   */
  constructor(vocabulary, most) {
    this.#vocabulary = vocabulary;
    this.#most = most;
  }

  /**
   * Compile it, if it is not.
   * @param {Grammar} grammar
   * @throws {EngineError} invalid_request: it is none
   */
  async prepare(grammar) {
    await this.#guarded(grammar, () => this.#ready(grammar));
  }

  /**
   * Which tokens may follow.
   * @param {Constraint} constraint
   * @param {number[]} tokens of the answer so far
   * @param {Uint32Array} mask [maskWords] to be filled in
   * @throws {EngineError} invalid_request: the grammar is none, the tokens do not follow it, or nothing may follow
   */
  async mask(constraint, tokens, mask) {
    const field = FIELDS[constraint.kind];
    const bits = await this.#guarded(constraint, async () => {
      const matching = await this.#follow(constraint, tokens);
      return matching && (await matching.matcher.getNextTokenBitmask());
    });
    if (!bits) throw new EngineError("invalid_request", `the answer so far does not follow ${field}`, field);
    let any = 0;
    for (let i = 0; i < mask.length; i++) any |= mask[i] = bits[i];
    if (any === 0) throw new EngineError("invalid_request", `${field} leaves nothing that could be said next`, field);
  }

  /** The request has ended. @param {string} id */
  forget(id) {
    this.#matchings.get(id)?.matcher.dispose();
    this.#matchings.delete(id);
  }

  /**
   * What XGrammar does not like, by the name that the caller gave it.
   * @template T
   * @param {Grammar} grammar
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #guarded({ kind }, work) {
    const field = FIELDS[kind];
    try {
      return await work();
    } catch (error) {
      if (error instanceof EngineError) throw error;
      const fatal = this.#complaints.findLast((complaint) => complaint.includes("[FATAL]"));
      const why = fatal?.replace(/^.*?\.cc:\d+: (Check failed: .*? is false: )?/s, "").trim() ?? String(error);
      this.#discard();
      throw new EngineError("invalid_request", `${field} cannot be followed: ${why.slice(0, 300)}`, field, error);
    }
  }

  /** @param {Grammar} grammar @returns {Promise<Compiled>} */
  async #ready({ kind, source }) {
    const key = `${kind} ${source}`;
    const compiled = this.#compiled.get(key) ?? (await this.#compile(kind, source));
    keep(this.#compiled, key, compiled, COMPILED, (old) => old.dispose());
    return compiled;
  }

  /**
   * A matcher that has seen exactly these tokens; null where they do not follow the grammar.
   * @param {Constraint} constraint
   * @param {number[]} tokens
   * @returns {Promise<Matching | null>}
   */
  async #follow({ id, kind, source }, tokens) {
    const key = `${kind} ${source}`;
    let matching = this.#matchings.get(id);
    if (matching?.key !== key) {
      this.forget(id);
      const compiled = await this.#ready({ kind, source });
      const { library } = await this.#library();
      matching = { key, tokens: [], matcher: await library.GrammarMatcher.createGrammarMatcher(compiled) };
    }
    keep(this.#matchings, id, matching, this.#most, ({ matcher }) => matcher.dispose());
    const seen = matching.tokens;
    const shared = seen.findIndex((token, i) => token !== tokens[i]);
    if (shared >= 0) matching.matcher.rollBack(seen.splice(shared).length);
    for (const token of tokens.slice(seen.length)) {
      if (!matching.matcher.acceptToken(token)) return null;
      seen.push(token);
    }
    return matching;
  }

  /**
   * @param {Constraint["kind"]} kind
   * @param {string} source
   * @returns {Promise<Compiled>}
   */
  async #compile(kind, source) {
    const { compiler } = await this.#library();
    this.#complaints = [];
    if (kind === "ebnf" || kind === "schema") return compiler.compileGrammar(source);
    const format = kind === "regex" ? { type: "regex", pattern: source } : JSON.parse(source);
    return compiler.compileStructuralTag({ type: "structural_tag", format });
  }

  async #library() {
    if (this.#loaded) return this.#loaded;
    const library = await load((complaint) => void this.#complaints.push(complaint), async ({ TokenizerInfo, GrammarCompiler }) => {
      const { kind, texts, stops } = this.#vocabulary;
      const info = await TokenizerInfo.createTokenizerInfo(texts, kind, false, texts.length, stops);
      return GrammarCompiler.createGrammarCompiler(info, false);
    });
    return (this.#loaded = library);
  }

  #discard() {
    this.#loaded = null;
    this.#compiled.clear();
    this.#matchings.clear();
  }
}

/**
 * Put last; the first goes where there are too many.
 * @template T
 * @param {Map<string, T>} map
 * @param {string} key
 * @param {T} value
 * @param {number} most
 * @param {(value: T) => void} [drop]
 */
function keep(map, key, value, most, drop) {
  map.delete(key);
  map.set(key, value);
  if (map.size <= most) return;
  const [first] = map;
  map.delete(first[0]);
  drop?.(first[1]);
}

/**
 * A copy of the library of one's own. It says what is wrong to the console that it finds when it starts.
 * @param {(complaint: string) => void} complain
 * @param {(library: Library) => Promise<import("@mlc-ai/web-xgrammar").GrammarCompiler>} start
 */
async function load(complain, start) {
  const scope = /** @type {{xgrammar?: Library}} */ (globalThis);
  const { error, log } = console;
  console.error = console.log = (...words) => complain(words.join(" "));
  try {
    const script = import(`${place("vendor/xgrammar/xgrammar.js").href}#${copies++}`);
    await imported(script, "loading the grammar library", "vendor/xgrammar/xgrammar.js");
    const library = /** @type {Library} */ (scope.xgrammar);
    return { library, compiler: await start(library) };
  } catch (cause) {
    if (cause instanceof EngineError) throw cause;
    throw new EngineError("network", `the grammar library cannot be loaded: ${String(cause)}`, "vendor/xgrammar", cause);
  } finally {
    Object.assign(console, { error, log });
    delete scope.xgrammar;
  }
}

/**
 * @param {import("../storage/shards.js").Source} source
 * @param {unknown} manifest
 * @param {number} size
 * @returns {Promise<Vocabulary>}
 */
async function readVocabulary(source, manifest, size) {
  const entry = read(object(described(manifest), "manifest").tokenizer, MANIFEST, "tokenizer", "tokenizer");
  const { file, bytes, sha256 } = entry.tables ?? entry;
  const content = await fetchFile(source, { file, bytes, sha256, field: "tokenizer" }, () => undefined);
  return vocabularyOf(entry, entry.tables ? content : new TextDecoder().decode(content), size);
}

/**
 * @param {{eos: unknown, special: Record<string, unknown>}} entry of the manifest
 * @param {string | Uint8Array<ArrayBuffer>} file text of the tokenizer.json, or its tables
 * @param {number} size of the vocabulary
 * @returns {Vocabulary}
 * @throws {EngineError} artifact_invalid, unsupported
 */
export function vocabularyOf(entry, file, size) {
  const token = (/** @type {unknown} */ id) => integer(id, "tokenizer", 0, size - 1);
  const stops = array(entry.eos, "tokenizer.eos", size).map(token);
  const tables = typeof file === "string" ? null : new TokenizerTables(file, size);
  const text = tables ? tables.outline : /** @type {string} */ (file);
  const description = object(parsed(text, "tokenizer", { items: ITEMS }), "tokenizer");
  const kind = kindOf(object(description.decoder ?? {}, "tokenizer.decoder"), size);
  const texts = new Array(size).fill("");
  const vocab = tables ? {} : object(object(description.model, "tokenizer.model").vocab, "tokenizer.model.vocab");
  for (const [piece, id] of Object.entries(vocab)) texts[token(id)] = piece;
  for (const [id, piece] of (tables?.pieces() ?? []).entries()) texts[token(id)] = piece;
  for (const added of array(description.added_tokens ?? [], "tokenizer.added_tokens", size)) {
    const { id, content, special } = object(added, "tokenizer.added_tokens");
    if (typeof content !== "string") throw invalidArtifact("must be a text", "tokenizer.added_tokens.content");
    texts[token(id)] = special ? "" : content;
  }
  for (const id of Object.values(entry.special)) texts[token(id)] = "";
  return { kind, texts, stops };
}

/**
 * @param {Record<string, any>} decoder of a tokenizer.json
 * @param {number} most steps
 * @returns {Vocabulary["kind"]}
 */
function kindOf(decoder, most) {
  if (decoder.type === "ByteLevel") return "byte_level";
  const steps = array(decoder.decoders ?? [], "tokenizer.decoder.decoders", most);
  if (steps.some((step) => object(step, "tokenizer.decoder.decoders").type === "ByteFallback")) return "byte_fallback";
  const message = "answers can be held to a grammar only where the tokenizer is byte-level BPE or SentencePiece with bytes";
  throw new EngineError("unsupported", message, "tokenizer.decoder");
}
