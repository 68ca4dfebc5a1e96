/**
 * @file What chooses tokens for ONNX Runtime and MLC's libraries: our own runtime without a kernel, so that a parameter means
 * what it means in every engine. A step of it computes nothing; the logits are put where a model's last kernel would have left
 * them.
 */

import { invalidArtifact } from "../format/errors.js";
import { fetchFile } from "../storage/shards.js";
import { Executor } from "../wasm/executor.js";

/** Rows and sequences of a step, as plans have them but for the sequences: each is a run of its own. */
const MAXIMA = Object.freeze({ rows: 128, sequences: 8, logit_rows: 16 });

/**
 * The plan of a model whose graph is not ours: its sizes, and the buffers that a batch and its logits lie in. A sequence's
 * block table is one number, by which the engine knows what it keeps of it.
 * @param {import("../format/manifest.js").Manifest} manifest
 * @param {number} [sequences] of a step at most
 * @returns {import("../format/plan.js").Plan}
 */
export function planOf({ variant, vocab, context }, sequences = MAXIMA.sequences) {
  const maxima = { ...MAXIMA, sequences, context };
  const words = { token_ids: maxima.rows, positions: maxima.rows, row_sequence: maxima.rows, block_tables: maxima.sequences, logit_rows: maxima.logit_rows };
  const inputs = Object.entries(words).map(([name, count]) => buffer(name, "input", count));
  const buffers = [...inputs, buffer("logits", "output", maxima.logit_rows * vocab)];
  return {
    target: variant.name,
    pageTokens: 1,
    maxima,
    kvGroups: [],
    blockTables: [],
    blocksPerSequence: 1,
    arenas: [],
    arenaBytes: 0,
    pageBytes: 0,
    vocab,
    width: vocab,
    paged: true,
    buffers,
    io: Object.fromEntries(buffers.map(({ name }, id) => [name, id])),
    kernels: [],
    alternatives: [],
    functions: [{ name: "step", maxRows: maxima.rows, launches: [] }],
  };
}

/**
 * @param {string} name
 * @param {"input" | "output"} kind
 * @param {number} words
 * @returns {import("../format/plan.js").PlanBuffer}
 */
function buffer(name, kind, words) {
  return { name, kind, arena: 0, offset: 0, bytes: words * 4, pageBytes: 0, dtype: kind === "input" ? "int32" : null };
}

/**
 * In place of a plan and its kernels.
 * @param {import("../format/plan.js").Plan} plan
 * @param {import("../format/manifest.js").Manifest} manifest
 * @param {import("../storage/shards.js").Source} source
 * @param {(event: import("../core/protocol.js").Progress) => void} onProgress
 * @returns {Promise<import("../load.js").Code>}
 */
export async function fetchSampler(plan, { variant }, source, onProgress) {
  const file = variant.files.sampler;
  if (!file) throw invalidArtifact("is missing: compile the model again", "variants.sampler");
  const progress = (/** @type {number} */ loaded, /** @type {boolean} */ fromCache) =>
    onProgress({ phase: "kernels", loaded, total: file.bytes, fromCache, shard: null });
  return { plan, kernels: await fetchFile(source, file, progress) };
}

/**
 * @param {import("../format/plan.js").Plan} plan
 * @param {Uint8Array<ArrayBuffer>} module verified bytes of sampler.wasm
 * @returns {Promise<Executor>}
 */
export async function openSampler(plan, module) {
  const memory = { initial: 0, maximum: Infinity };
  const sampler = await Executor.create({ kernels: module, plan, weightBytes: 0, threads: 1, kvPages: 0, hashes: 0, sliced: false, memory });
  sampler.start();
  return sampler;
}

/**
 * Where the logits of a step go.
 * @param {Executor} sampler
 * @returns {Float32Array} [logit rows, vocab]
 */
export function logitsOf({ memory, layout, plan }) {
  return new Float32Array(memory.buffer, layout.buffers[plan.io.logits], plan.maxima.logit_rows * plan.vocab);
}

