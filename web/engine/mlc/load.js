/**
 * @file Loading for MLC's libraries: web-llm's code and the sampler while the library and its weights arrive, all of them
 * verified before anything of them runs; then web-llm makes of them what it runs.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { outOfMemory } from "../sequential/memory.js";
import { fetchSampler, openSampler, planOf } from "../sequential/sampler.js";
import { parted } from "../sequential/support.js";
import { together } from "../sequential/together.js";
import { fetchShards } from "../sequential/weights.js";
import { fetchFile } from "../storage/shards.js";
import { requireSupport as requireWasm } from "../wasm/load.js";
import { requireAdapter } from "../webgpu/device.js";
import { MlcExecutor, Tap } from "./executor.js";
import { offerAdapter, offerFiles, openLibrary } from "./library.js";
import { Shards } from "./weights.js";

/** @typedef {import("../format/manifest.js").Manifest} Manifest */

const MODEL = "model";
/** Addresses by which web-llm asks for files; nothing is fetched from there. */
const LIBRARY = "https://mlc.invalid/library.wasm";
const BASE = "https://mlc.invalid/resolve/main/";
const INDEX = "tensor-cache.json";
/** Text passes through our own tokenizer; web-llm wants to have one. */
const NO_TOKENIZER = {
  version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null,
  model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, vocab: {}, merges: [] },
};

/** @type {import("../engines.js").EngineCode["requireSupport"]} */
export async function requireSupport(variant, features, power = "high-performance") {
  const { wasm, gpu } = parted(variant.requires);
  requireWasm({ ...variant, requires: wasm }, features);
  if (!features.webgpu) throw new EngineError("unsupported", "this browser has no WebGPU", "variant");
  await requireAdapter(power, gpu);
}

/**
 * In place of a plan and its kernels.
 * @type {Required<import("../engines.js").EngineCode>["fetchCode"]}
 */
export async function fetchCode(manifest, source, onProgress) {
  if (!manifest.mlc) throw invalidArtifact("is missing: compile the model again", "mlc");
  return fetchSampler(planOf(manifest, 1), manifest, source, onProgress);
}

/**
 * @param {import("../load.js").Job} job
 * @returns {Promise<import("../load.js").Made>}
 */
export async function load({ options, manifest, plan, kernels, source, faultPort, onProgress }) {
  const { adapter, facts } = await requireAdapter(options.powerPreference ?? "high-performance", parted(manifest.variant.requires).gpu);
  const { library } = manifest.variant.files;
  if (!library) throw invalidArtifact("is missing: compile the model again", "variants.library");
  const shards = new Shards();
  const [webllm, sampler, code, stored] = await together(source.signal, (signal) => [
    openLibrary(),
    openSampler(plan, kernels),
    fetchFile({ ...source, signal }, library, () => undefined),
    fetchShards({ ...source, signal }, manifest, (shard) => shards.hold(shard), onProgress),
  ]);
  offerFiles(filesOf(manifest, shards, code), source.signal);
  const opened = offerAdapter(adapter, facts);
  const tap = new Tap();
  const engine = new webllm.MLCEngine({
    appConfig: { model_list: [{ model: BASE, model_id: MODEL, model_lib: LIBRARY }], cacheBackend: "cache" },
    logitProcessorRegistry: new Map([[MODEL, tap]]),
    logLevel: "ERROR",
  });
  try {
    await engine.reload(MODEL);
    opened.gpu?.check(); // what the device refused meanwhile
    source.signal.throwIfAborted();
  } catch (error) {
    // Where the device is gone, that is why.
    const reason = await opened.gpu?.wait(Promise.reject(error)).catch((/** @type {unknown} */ found) => found);
    opened.gpu?.destroy();
    throw refused(reason ?? error, library.field, opened.gpu !== null);
  }
  const gpu = /** @type {import("../webgpu/device.js").Gpu} */ (opened.gpu);
  const faults = faultPort();
  gpu.onGone = ({ code: why, message }) => {
    if (why === "device_lost") faults.postMessage(message);
  };
  const close = () => {
    gpu.onGone = () => undefined;
    faults.close();
    void engine.unload().finally(() => gpu.destroy());
  };
  const executor = new MlcExecutor(engine, tap, gpu, plan, sampler, manifest.weightBytes + cacheBytes(manifest));
  return { executor, threads: 1, measured: null, rehearsed: true, stored, doorbell: null, adapter: facts, close };
}

/**
 * What web-llm asks for, by its address.
 * @param {Manifest} manifest
 * @param {Shards} shards
 * @param {Uint8Array<ArrayBuffer>} code of the library
 * @returns {Map<string, import("./library.js").Read>}
 */
function filesOf({ mlc, vocab, context }, shards, code) {
  const { bytes, files } = /** @type {import("../format/manifest.js").Mlc} */ (mlc);
  const json = (/** @type {unknown} */ value) => () => new TextEncoder().encode(JSON.stringify(value));
  const config = {
    tokenizer_files: ["tokenizer.json"],
    tokenizer_info: { token_postproc_method: "raw", prepend_space_in_encode: false, strip_space_in_decode: false },
    vocab_size: vocab,
    context_window_size: context,
    sliding_window_size: -1,
    attention_sink_size: -1,
    // Of its own choice of a token, which is discarded. With a top_p of 1 it can fail to find one.
    temperature: 1, top_p: 0.9, repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0,
    conv_template: { system_template: "", system_message: "", roles: { user: "", assistant: "", tool: "" }, seps: [""], stop_str: [], stop_token_ids: [] },
  };
  return new Map([
    [LIBRARY, () => code],
    [`${BASE}mlc-chat-config.json`, json(config)],
    [`${BASE}tokenizer.json`, json(NO_TOKENIZER)],
    ...[{ path: INDEX, offset: 0, bytes }, ...files].map((file) => /** @type {const} */ ([`${BASE}${file.path}`, () => shards.take(file)])),
  ]);
}

/** The library keeps room for a whole context. @param {Manifest} manifest */
function cacheBytes({ layers, kv, context, variant }) {
  const width = variant.requires.includes("shader-f16") ? 2 : 4;
  return 2 * layers * kv.heads * kv.dim * context * width;
}

/**
 * @param {unknown} error of web-llm's load
 * @param {string} field the library's
 * @param {boolean} begun whether the library ran and a device was opened
 * @returns {unknown}
 */
function refused(error, field, begun) {
  if (error instanceof EngineError) return error;
  if (outOfMemory(error)) return new EngineError("out_of_memory", `web-llm: ${String(error)}`, null, error);
  if (!begun) return invalidArtifact(`is no library that web-llm runs: ${String(error)}`, field);
  return new EngineError("unsupported", `web-llm does not take the library with these weights: ${String(error)}`, field, error);
}
