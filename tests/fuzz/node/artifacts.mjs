/** @file Readers of what comes with a model or a site, over the network or from storage. */

import { readFileSync } from "node:fs";

import { headOf, progressOf } from "../../../web/client/unfinished_records.js";
import { modelsIn } from "../../../web/client/site.js";
import { fromWire, toWire } from "../../../web/engine/format/errors.js";
import { parsed } from "../../../web/engine/format/json.js";
import { described, readManifest } from "../../../web/engine/format/manifest.js";
import { parseJson, readPlan } from "../../../web/engine/format/plan.js";
import { named, said } from "../../../web/engine/format/quoting.js";
import { TokenizerTables } from "../../../web/engine/format/tokenizer_tables.js";
import { vocabularyOf } from "../../../web/engine/grammar/grammar.js";
import { download } from "../../../web/engine/storage/download.js";
import { readRecord } from "../../../web/engine/storage/opfs.js";
import { importedMemory } from "../../../web/engine/wasm/memory.js";
import { Encoder } from "../../../web/router/bpe.js";
import { outlined } from "../../../web/router/texts.js";
import { Fault } from "./harness.mjs";

/** @param {string} name @returns {any} */
const corpus = (name) => JSON.parse(readFileSync(new URL(`../../../format/corpus/${name}.json`, import.meta.url), "utf8"));

const MANIFEST = { ...corpus("manifest").good, revision: "0".repeat(64) };
const { good: PLANS, tensors: TENSORS } = corpus("plan");
const KNOWN = new Map(TENSORS.map((/** @type {{name: string}} */ t) => [t.name, t]));
const BACKENDS = /** @type {("wasm" | "webgpu")[]} */ (Object.keys(PLANS));
const HASH = "ab".repeat(32);

/** @param {string} text @returns {Uint8Array} lone surrogates become U+FFFD */
const bytes = (text) => new TextEncoder().encode(text);

const TOKENIZERS = [
  {
    added_tokens: [{ id: 0, content: "<|im_end|>", special: true }, { id: 1, content: "x" }], normalizer: null, pre_tokenizer: { type: "ByteLevel" },
    decoder: { type: "ByteLevel" }, model: { type: "BPE", vocab: { "<|im_end|>": 0, x: 1, a: 2, "Ġa": 3 }, merges: [["Ġ", "a"]] },
  },
  { decoder: { type: "Sequence", decoders: [{ type: "ByteFallback" }] }, model: { type: "BPE", vocab: { "<unk>": 0, "▁": 1 }, merges: [] } },
  { decoder: { type: "Metaspace" }, model: { type: "Unigram", vocab: [["<unk>", 0], ["▁", -1.5]], unk_id: 0 } },
];
/** What tables.py writes of a vocabulary of eight texts and three merges. */
const TABLES = Uint8Array.from(Buffer.from(
  "494e544b01d3017b2261646465645f746f6b656e73223a5b7b226964223a302c22636f6e74656e74223a223c7c696d5f656e647c3e222c227370656369616c223a747275657d5d2c226e6f726d616c697a6572223a6e756c6c2c227072655f746f6b656e697a6572223a7b2274797065223a22427974654c6576656c227d2c226465636f646572223a7b2274797065223a22427974654c6576656c227d2c226d6f64656c223a7b2274797065223a22425045222c22766f636162223a7b223c7c696d5f656e647c3e223a377d2c226d6572676573" +
  "223a5b5d7d7d080a010102020402033c7c696d5f656e647c3e6162c4a06162c4a06162c3a961626103080204010202",
  "hex",
));
const ENTRY = { eos: [0, 2], special: { "<|im_end|>": 0 } };

/** A module that imports a function, a table, a global and env.memory. */
const WASM = Uint8Array.from([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 2, 41, 4, 3, 101, 110, 118, 1, 102, 0, 0, 3, 101, 110, 118, 1, 116, 1, 0x70, 0, 1, 3, 101, 110, 118,
  1, 103, 3, 0x7f, 0, 3, 101, 110, 118, 6, 109, 101, 109, 111, 114, 121, 2, 3, 17, 0x80, 0x80, 4,
]);

const HEAD = { id: "1-2", keep: "chat", began: 5, message: { op: "chat", messages: [{ role: "user", content: "x" }] }, params: { resume: [5, 6], seed: 3 } };
const PROGRESS = { at: 5, tokens: [5, 6], text: "ab" };
const SITE = { models: [{ id: "smollm2-135m-instruct", name: "x", bytes: 5 }, { id: "b" }], version: 1 };

/** @param {[string, unknown]} given */
function unfinished([text, id]) {
  const head = headOf(text, "1-2");
  if (head && !Array.isArray([...(head.params.resume ?? [])])) throw new Fault("not read");
  const { tokens, text: said, at } = progressOf(id);
  if (!tokens.every(Number.isSafeInteger) || typeof said !== "string" || !Number.isFinite(at)) throw new Fault("a damaged record is believed");
}

/** @param {Uint8Array<ArrayBuffer>} file */
function tabled(file) {
  const tables = new TokenizerTables(file);
  const ids = new Encoder({ tables, ignoreMerges: false, fuseUnknown: false, unknown: 0, bytes: null }).encode(["aba", "\u0120ab\u0120ab", "\u00e9\ud800", ""]);
  if (ids.some((id) => !(id >= 0 && id < Math.max(1, tables.size)))) throw new Fault(`no token: ${ids}`);
  if (tables.pieces().length !== tables.size) throw new Fault("pieces are missing");
  vocabularyOf(ENTRY, file, 8);
}

const BODY = bytes("x".repeat(300));
const HEADERS = { "content-range": "bytes 100-299/300", "content-length": "300", "content-encoding": "gzip", "content-type": "multipart/byteranges" };

/** Answers of a server, one after the other. @param {import("./mutate.mjs").Mutator} m */
function answers(m) {
  return Array.from({ length: m.choice([1, 2, 4]) }, () => {
    const headers = Object.entries(HEADERS).filter(() => m.chance(0.3)).map(([name, value]) => [name, m.chance(0.6) ? m.text(value).replace(/[^\x20-\x7e]/g, "?").slice(0, 200) : value]);
    const body = m.chance(0.3) ? BODY : m.chance(0.5) ? BODY.slice(m.draw(300)) : m.bytes(BODY);
    return { status: m.choice([200, 200, 206, 206, 404, 410, 416, 429, 500, 501, 503, 304, 302]), headers, body, breaks: m.chance(0.2) };
  });
}

/** @param {ReturnType<typeof answers>} served */
async function downloaded(served) {
  const { fetch } = globalThis;
  /** @type {number[]} */
  let held = [];
  const sink = { get received() { return held.length; }, push: (/** @type {Uint8Array} */ chunk) => void held.push(...chunk), reset: () => void (held = []) };
  let n = 0;
  globalThis.fetch = async () => {
    const { status, headers, body, breaks } = served[n++ % served.length];
    if (breaks) throw new TypeError("cut off");
    return new Response([204, 304].includes(status) ? null : body, { status, headers: /** @type {[string, string][]} */ (headers) });
  };
  try {
    const entry = { file: "w.bin", bytes: 300, sha256: HASH, field: "weights.shards[0]" };
    await download("http://a/w.bin", entry, sink, { policy: { connections: 1, attempts: 3, backoffMs: 0, stallMs: 20_000 }, signal: new AbortController().signal, cache: "default" });
    if (held.length !== 300) throw new Fault(`${held.length} bytes count as 300`);
    if (n > 60) throw new Fault(`${n} requests`);
  } finally {
    globalThis.fetch = fetch;
  }
}

/** What `toWire`, `fromWire` and messages make of anything. @param {unknown} thrown */
function crossed(thrown) {
  for (const text of [said(thrown), named(thrown)]) if (typeof text !== "string" || text.length > 400) throw new Fault(`${text}`);
  const { code, message, field } = fromWire(toWire(thrown));
  if (typeof code !== "string" || message.length > 4000 || (field !== null && field.length > 200)) throw new Fault(`${code} ${field} ${message.slice(0, 100)}`);
  let wire;
  try {
    wire = structuredClone(thrown);
  } catch {
    return; // nobody can post it
  }
  const told = fromWire(wire);
  JSON.stringify([told.code, told.message, told.field]);
}

/** @type {import("./harness.mjs").Reader[]} */
export const READERS = [
  { name: "js-json", make: (m) => m.json(m.choice([MANIFEST, HEAD, SITE])), run: (text) => parsed(text, "it") },
  { name: "js-manifest", make: (m) => (m.chance(0.5) ? m.value(MANIFEST, [MANIFEST]) : m.json(MANIFEST, [MANIFEST])), run: (given) => readManifest(described(given), "wasm-simd") },
  {
    name: "js-plan",
    make: (m) => [m.choice(BACKENDS), m.value(PLANS[m.choice(BACKENDS)], Object.values(PLANS))],
    run: ([backend, document]) => readPlan(document, KNOWN, backend),
  },
  {
    name: "js-plan-text",
    make: (m) => (m.chance(0.8) ? bytes(m.json(PLANS[m.choice(BACKENDS)])) : m.bytes(bytes(JSON.stringify(PLANS.wasm).slice(0, 3000)))),
    run: (given) => BACKENDS.forEach((backend) => readPlan(parseJson(given), KNOWN, backend)),
    share: 0.5,
  },
  {
    name: "js-tokenizer",
    make: (m) => m.json(m.choice(TOKENIZERS), TOKENIZERS),
    run: (text) => {
      const { outline, described: changed } = outlined(text, { characters: 1 << 26, items: 1 << 24, depth: 100 });
      changed(outline);
    },
  },
  {
    name: "js-vocabulary",
    make: (m) => [m.chance(0.3) ? m.value(ENTRY) : ENTRY, m.json(m.choice(TOKENIZERS), TOKENIZERS)],
    run: ([entry, text]) => vocabularyOf(entry?.special && typeof entry.special === "object" ? entry : ENTRY, text, 4),
  },
  { name: "js-tables", make: (m) => m.bytes(TABLES), run: tabled },
  { name: "js-kernels", make: (m) => m.bytes(WASM), run: importedMemory },
  { name: "js-record", make: (m) => m.json({ sha256: HASH, bytes: 5, xxh32: 7 }), run: (text) => readRecord(text, HASH) },
  { name: "js-unfinished", make: (m) => [m.chance(0.9) ? m.json(HEAD, [HEAD, PROGRESS]) : m.atom(), m.chance(0.9) ? m.json(PROGRESS) : m.atom()], run: unfinished, wild: true },
  { name: "js-site", make: (m) => m.json(SITE, [SITE]), run: modelsIn },
  { name: "js-download", make: answers, run: downloaded, share: 0.3 },
  { name: "js-errors", make: (m) => (m.chance(0.5) ? m.atom() : m.value({ code: "network", message: "x", field: "y" })), run: crossed, wild: true },
];
