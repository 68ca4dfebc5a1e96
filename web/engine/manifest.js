/**
 * @file The parts of manifest.json that an engine needs, checked: weights and their shards, tensors, one variant's
 * files. The schema itself stands in py/inpage/artifact.py; the manifest is untrusted input here as there.
 */

import { array, integer, object, path, sha256Hex, string } from "./check.js";
import { EngineError, invalidArtifact } from "./errors.js";
import { FILE_BYTES } from "./limits.js";

const SCHEMA = 1;
/** wasm32 addresses this much. */
export const ADDRESSABLE = 2 ** 32;
/** A manifest that claims more weights can only be wrong. */
const MAX_WEIGHTS = 2 ** 40;
export const ALIGN = 256;

/**
 * @typedef {{file: string, bytes: number, sha256: string, field: string}} FileEntry
 * @typedef {FileEntry & {offset: number}} Shard
 * @typedef {{offset: number, bytes: number}} Tensor
 * @typedef {"wasm" | "webgpu"} Backend
 * @typedef {{name: string, backend: Backend, requires: string[], plan: FileEntry, kernels: FileEntry}} Variant
 * @typedef {object} Manifest
 * @property {string} id
 * @property {number} context
 * @property {number} weightBytes
 * @property {Shard[]} shards
 * @property {Map<string, Tensor>} tensors
 * @property {Variant} variant
 */

/**
 * @param {unknown} value a parsed manifest.json
 * @param {string} variantName which of its variants will run
 * @returns {Manifest}
 */
export function readManifest(value, variantName) {
  const top = object(value, "manifest");
  if (top.schema !== SCHEMA) throw invalidArtifact(`schema ${String(top.schema)} is not ${SCHEMA}`, "schema");
  const weights = object(top.weights, "weights");
  const weightBytes = integer(weights.bytes, "weights.bytes", 1, MAX_WEIGHTS);
  const architecture = object(top.architecture, "architecture");
  return {
    id: string(top.id, "id"),
    context: integer(architecture.context, "architecture.context", 1, 2 ** 24),
    weightBytes,
    shards: readShards(weights.shards, weightBytes),
    tensors: readTensors(top.tensors, weightBytes),
    variant: readVariant(top.variants, variantName),
  };
}

/**
 * Shards are consecutive slices of the weight space: together exactly weights.bytes, without gap or overlap.
 * @param {unknown} value
 * @param {number} weightBytes
 * @returns {Shard[]}
 */
function readShards(value, weightBytes) {
  let end = 0;
  const shards = array(value, "weights.shards", 65536).map((item, i) => {
    const field = `weights.shards[${i}]`;
    const entry = object(item, field);
    const offset = integer(entry.offset, `${field}.offset`, 0, weightBytes);
    if (offset !== end) throw invalidArtifact(`starts at ${offset}, the previous one ends at ${end}`, `${field}.offset`);
    const file = readFile(entry, field, FILE_BYTES.shard);
    end = offset + file.bytes;
    if (end > weightBytes) throw invalidArtifact(`ends after weights.bytes (${weightBytes})`, `${field}.bytes`);
    if (end < weightBytes && end % ALIGN) throw invalidArtifact(`is not a multiple of ${ALIGN}`, `${field}.bytes`);
    return { ...file, offset };
  });
  if (end !== weightBytes) throw invalidArtifact(`is ${weightBytes}, the shards hold ${end}`, "weights.bytes");
  return shards;
}

/**
 * @param {unknown} value
 * @param {number} weightBytes
 * @returns {Map<string, Tensor>}
 */
function readTensors(value, weightBytes) {
  /** @type {Map<string, Tensor>} */
  const tensors = new Map();
  for (const [i, item] of array(value, "tensors", 65536).entries()) {
    const field = `tensors[${i}]`;
    const entry = object(item, field);
    const name = string(entry.name, `${field}.name`);
    const bytes = integer(entry.bytes, `${field}.bytes`, 1, weightBytes);
    const offset = integer(entry.offset, `${field}.offset`, 0, weightBytes - bytes);
    if (offset % ALIGN) throw invalidArtifact(`is not a multiple of ${ALIGN}`, `${field}.offset`);
    if (tensors.has(name)) throw invalidArtifact(`${JSON.stringify(name)} appears twice`, `${field}.name`);
    tensors.set(name, { offset, bytes });
  }
  return tensors;
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {Variant}
 */
function readVariant(value, name) {
  const variants = array(value, "variants", 256).map((item, i) => object(item, `variants[${i}]`));
  const i = variants.findIndex((entry) => entry.name === name);
  if (i < 0) {
    const names = variants.map((entry) => String(entry.name)).join(", ");
    throw new EngineError("unsupported", `the artifact has no variant ${JSON.stringify(name)}; it has: ${names}`, "variant");
  }
  const field = `variants[${i}]`;
  const entry = variants[i];
  const { backend } = entry;
  if (backend !== "wasm" && backend !== "webgpu") {
    throw new EngineError("unsupported", `variant ${name} is for backend ${String(backend)}, not wasm or webgpu`, "variant");
  }
  return {
    name,
    backend,
    requires: array(entry.requires, `${field}.requires`, 64).map((item, j) => string(item, `${field}.requires[${j}]`)),
    plan: readFile(object(entry.plan, `${field}.plan`), `${field}.plan`, FILE_BYTES.plan),
    kernels: readFile(object(entry.kernels, `${field}.kernels`), `${field}.kernels`, FILE_BYTES.kernels),
  };
}

/**
 * @param {Record<string, unknown>} entry
 * @param {string} field
 * @param {number} limit
 * @returns {FileEntry}
 */
function readFile(entry, field, limit) {
  return {
    file: path(entry.file, `${field}.file`),
    bytes: integer(entry.bytes, `${field}.bytes`, 1, limit),
    sha256: sha256Hex(entry.sha256, `${field}.sha256`),
    field,
  };
}
