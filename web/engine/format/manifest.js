/**
 * @file The parts of manifest.json that an engine needs, checked: weights and their shards, tensors, one variant's
 * files. The schema itself stands in py/inpage/format/manifest.py; the manifest is untrusted input here as there.
 */

import { EngineError, invalidArtifact } from "./errors.js";
import { bitsOf, rawBytes, rowsBytes } from "./formats.js";
import { parsed } from "./json.js";
import { ALIGN } from "./limits.js";
import { brief, quoted } from "./quoting.js";
import { MANIFEST } from "./schemas.js";
import { read } from "./structure.js";

/** wasm32 addresses this much. */
export const ADDRESSABLE = 2 ** 32;

/**
 * @typedef {{file: string, bytes: number, sha256: string, field: string}} FileEntry
 * @typedef {FileEntry & {offset: number}} Shard
 * @typedef {{offset: number, bytes: number}} Tensor
 * @typedef {{name: string, backend: string, requires: string[], files: Record<string, FileEntry>}} Variant
 * @typedef {object} Graph of a model that ONNX Runtime computes
 * @property {number} bytes of the .onnx file, with which the weights begin
 * @property {{path: string, offset: number, bytes: number}[]} files of tensors, by the names that the graph has for them
 * @property {string[]} inputs beside the cache's
 * @property {{past: string, present: string}[]} cache keys and values of each layer in turn
 * @property {"float32" | "float16"} cache_type
 * @property {string} logits
 * @typedef {object} Mlc of a model that a library of MLC's computes
 * @property {number} bytes of tensor-cache.json, with which the weights begin
 * @property {{path: string, offset: number, bytes: number}[]} files that it names
 * @typedef {object} Manifest
 * @property {string} id
 * @property {number} layers
 * @property {number} context
 * @property {number} vocab
 * @property {{heads: number, dim: number}} kv of each layer's cache
 * @property {Graph | null} graph
 * @property {Mlc | null} mlc
 * @property {number} width numbers that it gives for a row: logits, or an encoder's vector or scores
 * @property {number} weightBytes of what the variant loads
 * @property {Shard[]} shards
 * @property {Map<string, Tensor>} tensors
 * @property {Variant} variant
 * @property {Exam | null} exam what a GPU has to get right
 * @typedef {{ids: number[], answers: {argmax: number, margin: number, nll: number}[]}} Exam answers: to the tokens before each of the
 *   last ids, by float32 on a CPU: the likeliest token, its logit's lead, nats of the token that follows
 */

/**
 * @param {unknown} manifest the text of manifest.json, or what stands in it
 * @returns {unknown}
 */
export function described(manifest) {
  return typeof manifest === "string" ? parsed(manifest, "manifest") : manifest;
}

/**
 * All that Python checks of a manifest but its revision, which only Python can compute.
 * @param {unknown} value what stands in manifest.json
 * @param {string} variantName which of its variants will run
 * @returns {Manifest}
 */
export function readManifest(value, variantName) {
  const m = read(value, MANIFEST, "manifest");
  const formats = new Map(Object.entries(m.formats).map(([name, format]) => [name, bitsOf(format, `formats.${brief(name)}`)]));
  checkArchitecture(m.architecture);
  checkTokenizer(m.tokenizer, m.architecture.vocab);
  const apart = { graph: apartOf(m.graph, "graph"), mlc: apartOf(m.mlc, "mlc") };
  const manifest = {
    id: m.id,
    layers: m.architecture.layers,
    context: m.architecture.context,
    vocab: m.architecture.vocab,
    kv: { heads: m.architecture.kv_heads, dim: m.architecture.head_dim },
    graph: m.graph && graphOf(m.graph, m.architecture.layers, apart.graph?.weightBytes ?? m.weights.bytes),
    mlc: m.mlc && mlcOf(m.mlc, apart.mlc?.weightBytes ?? m.weights.bytes),
    width: widthOf(m.architecture),
    weightBytes: m.weights.bytes,
    shards: shardsOf(m.weights, "weights"),
    tensors: tensorsOf(m.tensors, formats, m.weights.bytes),
    variant: variantOf(m.variants, variantName),
    exam: m.exam ? examOf(m.exam, m.architecture.vocab) : null,
  };
  const { library, plan } = manifest.variant.files;
  if (library) Object.assign(manifest, apart.mlc);
  else if (!plan) Object.assign(manifest, apart.graph);
  checkLevels(m);
  checkFilesDistinct(m);
  return manifest;
}

/** @param {import("./structure.js").Checked} architecture */
function checkArchitecture({ heads, kv_heads: kvHeads, head_dim: headDim }) {
  if (heads % kvHeads) throw invalidArtifact(`${heads} heads do not divide among ${kvHeads} key/value heads`, "architecture.kv_heads");
  if (headDim % 2) throw invalidArtifact("must be even", "architecture.head_dim");
}

/**
 * @param {import("./structure.js").Checked} tokenizer
 * @param {number} vocab
 */
function checkTokenizer({ bos, eos, special }, vocab) {
  /** @type {[string, number][]} */
  const ids = [["bos", bos ?? 0], ...eos.map((/** @type {number} */ id, /** @type {number} */ i) => [`eos[${i}]`, id])];
  for (const [text, id] of Object.entries(special)) ids.push([`special.${brief(text)}`, id]);
  for (const [where, id] of ids) {
    if (id >= vocab) throw invalidArtifact(`${id} is outside the vocabulary of ${vocab}`, `tokenizer.${where}`);
  }
}

/**
 * Shards are consecutive slices of the weight space: together exactly weights.bytes, without gap or overlap.
 * @param {import("./structure.js").Checked} weights
 * @param {string} at
 * @returns {Shard[]}
 */
function shardsOf({ bytes: total, shards }, at) {
  let end = 0;
  const out = shards.map((/** @type {Shard} */ shard, /** @type {number} */ i) => {
    const field = `${at}.shards[${i}]`;
    if (shard.offset !== end) throw invalidArtifact(`starts at ${shard.offset}, the previous one ends at ${end}`, `${field}.offset`);
    end += shard.bytes;
    if (shard.bytes % ALIGN && end !== total) throw invalidArtifact(`is not a multiple of ${ALIGN}`, `${field}.bytes`);
    return { ...shard, field };
  });
  if (end !== total) throw invalidArtifact(`is ${total}, the shards hold ${end}`, `${at}.bytes`);
  return out;
}

/**
 * Weights of its own, where there are.
 * @param {import("./structure.js").Checked | undefined} part a graph, or MLC's
 * @param {string} name
 * @returns {Pick<Manifest, "shards" | "weightBytes"> | null}
 */
function apartOf(part, name) {
  return part?.weights ? { shards: shardsOf(part.weights, `${name}.weights`), weightBytes: part.weights.bytes } : null;
}

/**
 * @param {import("./structure.js").Checked} exam
 * @param {number} vocab
 * @returns {Exam}
 */
function examOf({ ids, answers }, vocab) {
  if (answers.length >= ids.length) throw invalidArtifact(`${answers.length} answers to ${ids.length} ids; the first id is not guessed`, "exam.answers");
  for (const [i, id] of ids.entries()) if (id >= vocab) throw invalidArtifact(`${id} is outside the vocabulary of ${vocab}`, `exam.ids[${i}]`);
  return { ids, answers };
}

/** @param {import("./structure.js").Checked} architecture */
function widthOf({ encoder, hidden, labels, vocab }) {
  return encoder ? (labels ?? hidden) : vocab;
}

/**
 * @param {import("./structure.js").Checked} graph
 * @param {number} layers
 * @param {number} space
 * @returns {Graph}
 */
function graphOf(graph, layers, space) {
  const { inputs, cache } = graph;
  if (cache.length !== 2 * layers) throw invalidArtifact(`has ${cache.length} entries; ${layers} layers have ${2 * layers}`, "graph.cache");
  if (new Set(inputs).size < inputs.length) throw invalidArtifact("names an input twice", "graph.inputs");
  checkFiles(graph, "graph", space);
  return graph;
}

/**
 * @param {import("./structure.js").Checked} mlc
 * @param {number} space
 * @returns {Mlc}
 */
function mlcOf(mlc, space) {
  checkFiles(mlc, "mlc", space);
  return mlc;
}

/**
 * The files behind the first bytes of the weight space.
 * @param {import("./structure.js").Checked} part
 * @param {string} name
 * @param {number} space
 */
function checkFiles({ bytes, files }, name, space) {
  let end = bytes;
  const paths = new Set();
  for (const [i, file] of files.entries()) {
    const field = `${name}.files[${i}]`;
    if (paths.has(file.path)) throw invalidArtifact(`${quoted(file.path)} stands twice`, `${field}.path`);
    paths.add(file.path);
    if (file.offset % ALIGN || file.offset < end) throw invalidArtifact(`is not a multiple of ${ALIGN} from ${end} on`, `${field}.offset`);
    end = file.offset + file.bytes;
  }
  if (end > space) throw invalidArtifact(`end at ${end}, outside the ${space} bytes of weights`, `${name}.${files.length ? "files" : "bytes"}`);
}

/**
 * @param {import("./structure.js").Checked[]} items
 * @param {Map<string, import("./formats.js").Bits>} formats
 * @param {number} space
 * @returns {Map<string, Tensor>}
 */
function tensorsOf(items, formats, space) {
  /** @type {Map<string, Tensor>} */
  const tensors = new Map();
  let end = 0;
  for (const [i, { name, shape, format, layout, offset, bytes }] of items.entries()) {
    const field = `tensors[${i}]`;
    if (tensors.has(name)) throw invalidArtifact(`${quoted(name)} appears twice`, `${field}.name`);
    const bits = formats.get(format);
    if (!bits) throw invalidArtifact(`${quoted(format)} is not one of ${[...formats.keys()].map(brief).join(", ")}`, `${field}.format`);
    const need = layout === "raw" ? rawBytes(shape, bits) : rowsBytes(shape, bits);
    if (need === null) throw invalidArtifact(`does not go with format ${format} and layout ${layout}`, `${field}.shape`);
    if (bytes !== need) throw invalidArtifact(`is ${bytes}, but this shape and format need ${need}`, `${field}.bytes`);
    if (offset % ALIGN) throw invalidArtifact(`is not a multiple of ${ALIGN}`, `${field}.offset`);
    if (offset < end) throw invalidArtifact(`lies before the end of the tensor before it (${end})`, `${field}.offset`);
    end = offset + bytes;
    if (end > space) throw invalidArtifact(`ends at ${end}, outside the ${space} bytes of weights`, `${field}.offset`);
    tensors.set(name, { offset, bytes });
  }
  return tensors;
}

/**
 * @param {import("./structure.js").Checked[]} variants
 * @param {string} name
 * @returns {Variant}
 */
function variantOf(variants, name) {
  const names = variants.map((entry) => entry.name);
  const twice = names.findIndex((one, i) => names.indexOf(one) < i);
  if (twice >= 0) throw invalidArtifact(`${quoted(names[twice])} stands twice`, `variants[${twice}].name`);
  const i = names.indexOf(name);
  if (i < 0) {
    throw new EngineError("unsupported", `the artifact has no variant ${quoted(name)}; it has: ${names.map(brief).join(", ")}`, "variant");
  }
  const files = variants.map(filesOf);
  return { name, backend: variants[i].backend, requires: variants[i].requires, files: files[i] };
}

/**
 * Of a variant, by role. Which there must be its engine says, but a plan and its kernels come together.
 * @param {import("./structure.js").Checked} variant
 * @param {number} i
 * @returns {Record<string, FileEntry>}
 */
function filesOf({ plan, kernels, "*": others }, i) {
  const field = `variants[${i}]`;
  if (!plan !== !kernels) throw invalidArtifact("is missing", `${field}.${plan ? "kernels" : "plan"}`);
  const all = Object.entries({ ...(plan ? { plan, kernels } : {}), ...others });
  return Object.fromEntries(all.map(([role, file]) => [role, { ...file, field: `${field}.${brief(role)}` }]));
}

/** @param {import("./structure.js").Checked} m */
function checkLevels({ level, levels, perplexity, variants, weights }) {
  if (!levels?.length) return;
  const names = levels.map((/** @type {{name: string}} */ entry) => entry.name);
  for (const [i, entry] of levels.entries()) {
    if (names.indexOf(entry.name) < i) throw invalidArtifact(`${quoted(entry.name)} stands twice`, `levels[${i}].name`);
    if (i && !entry.manifest) throw invalidArtifact("is missing", `levels[${i}].manifest`);
  }
  const own = JSON.stringify([level ?? "", weights.bytes, variants.map((/** @type {{name: string}} */ entry) => entry.name), perplexity?.value ?? null]);
  const [first] = levels;
  if (JSON.stringify([first.name, first.bytes, first.variants, first.perplexity ?? null]) !== own) {
    throw invalidArtifact("is not what this manifest describes", "levels[0]");
  }
}

/**
 * No two entries may claim one file: their hashes could not both hold, and a cache keys by name.
 * @param {import("./structure.js").Checked} m
 */
function checkFilesDistinct(m) {
  /** @type {[string, string][]} */
  const named = [["tokenizer.file", m.tokenizer.file], ["license.notices", m.license.notices]];
  if (m.tokenizer.tables) named.push(["tokenizer.tables.file", m.tokenizer.tables.file]);
  for (const [at, weights] of Object.entries({ weights: m.weights, "graph.weights": m.graph?.weights, "mlc.weights": m.mlc?.weights })) {
    for (const [i, shard] of (weights?.shards ?? []).entries()) named.push([`${at}.shards[${i}].file`, shard.file]);
  }
  for (const [i, variant] of m.variants.entries()) {
    for (const { file, field } of Object.values(filesOf(variant, i))) named.push([`${field}.file`, file]);
  }
  for (const [i, { manifest }] of (m.levels ?? []).slice(1).entries()) named.push([`levels[${i + 1}].manifest.file`, manifest.file]);
  const seen = new Set(["manifest.json"]);
  for (const [field, file] of named) {
    if (seen.has(file.toLowerCase())) throw invalidArtifact(`${quoted(file)} is named twice`, field);
    seen.add(file.toLowerCase());
  }
}
