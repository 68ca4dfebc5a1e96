/**
 * @file Loading for ONNX Runtime: its code and the sampler while the graph and its tensors arrive, then a session. Both
 * providers, WebAssembly and WebGPU, are backends of their own.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { fetchFile, fetchWeights } from "../storage/shards.js";
import { digestOf } from "../storage/sha256.js";
import { requireSupport as requireWasm } from "../wasm/load.js";
import { chooseThreads } from "../wasm/pool.js";
import { findAdapter } from "../webgpu/device.js";
import { OnnxExecutor, outOfMemory } from "./executor.js";
import { openLibrary } from "./library.js";
import { openSampler, planOf } from "./sampler.js";

const WEBGPU = "onnx-webgpu";
/** What a variant requires of WebGPU, beside what it does of WebAssembly. */
const GPU = ["webgpu", "shader-f16"];

/**
 * @param {import("../format/manifest.js").Variant} variant
 * @param {import("../core/features.js").Features} features
 */
export function requireSupport(variant, features) {
  requireWasm({ ...variant, requires: variant.requires.filter((name) => !GPU.includes(name)) }, features);
  if (variant.backend === WEBGPU && !features.webgpu) throw new EngineError("unsupported", "this browser has no WebGPU", "variant");
}

/**
 * In place of a plan and its kernels.
 * @param {import("../format/manifest.js").Manifest} manifest
 * @param {import("../storage/shards.js").Source} source
 * @param {(event: import("../core/protocol.js").Progress) => void} onProgress
 * @returns {Promise<import("../load.js").Code>}
 */
export async function fetchCode(manifest, source, onProgress) {
  const { variant, graph } = manifest;
  if (!graph) throw invalidArtifact("is missing: compile the model again", "graph");
  const file = variant.files.sampler;
  if (!file) throw invalidArtifact("is missing: compile the model again", "variants.sampler");
  const progress = (/** @type {number} */ loaded, /** @type {boolean} */ fromCache) =>
    onProgress({ phase: "kernels", loaded, total: file.bytes, fromCache, shard: null });
  return { plan: planOf(manifest), kernels: await fetchFile(source, file, progress) };
}

/**
 * @param {import("../load.js").Job} job
 * @returns {Promise<import("../load.js").Made>}
 */
export async function load({ options, manifest, plan, kernels, features, source, faultPort, onProgress }) {
  const onGpu = manifest.variant.backend === WEBGPU;
  const threads = onGpu ? 1 : chooseThreads(options.threads, features);
  const power = options.powerPreference ?? "high-performance";
  const adapter = onGpu ? await findAdapter(power) : null;
  if (onGpu && !adapter) throw new EngineError("unsupported", "this browser has no WebGPU adapter", "variant");
  const lacks = manifest.variant.requires.find((name) => name === "shader-f16" && adapter && !adapter.adapter.features.has(name));
  if (lacks) throw new EngineError("unsupported", `this device's WebGPU has no ${lacks}`, "variant");
  const weights = allocated(manifest.weightBytes);
  const [ort, sampler, stored] = await together(source.signal, (signal) => [
    openLibrary(onGpu ? "webgpu" : "wasm", threads, power),
    openSampler(plan, kernels),
    fetchWeights({ ...source, signal }, manifest, weightSink(weights, source.policy.connections), onProgress),
  ]);
  const session = await open(ort, manifest, weights, onGpu);
  source.signal.throwIfAborted();
  const executor = new OnnxExecutor(ort, session, manifest, plan, sampler);
  const faults = onGpu ? await watched(ort, faultPort) : null;
  const close = () => {
    faults?.close();
    void session.release();
  };
  // Its own bursts never run: the doorbell is there so that a burst of steps is ended as one of ours.
  const doorbell = features.isolated && !onGpu ? { buffer: sampler.memory.buffer, offset: sampler.doorbell } : null;
  return { executor, threads, measured: null, rehearsed: true, stored, doorbell, adapter: adapter?.facts ?? null, close };
}

/** @param {number} bytes @returns {Uint8Array<ArrayBuffer>} */
function allocated(bytes) {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new EngineError("out_of_memory", `the browser refuses ${bytes} bytes for the graph and its tensors`, null, error);
  }
}

/**
 * Until the session has read them, they lie here; then nothing refers to them.
 * @param {Uint8Array<ArrayBuffer>} weights
 * @param {number} slots
 * @returns {import("../storage/shards.js").WeightSink}
 */
function weightSink(weights, slots) {
  return {
    slots,
    open: async (_, { offset, bytes }) => {
      const target = weights.subarray(offset, offset + bytes);
      return { target, hash: { reset: () => undefined, update: () => undefined, digest: () => digestOf(target) } };
    },
    place: async () => undefined,
  };
}

/**
 * @param {import("./library.js").Library} ort
 * @param {import("../format/manifest.js").Manifest} manifest
 * @param {Uint8Array<ArrayBuffer>} weights
 * @param {boolean} onGpu
 * @returns {Promise<import("onnxruntime-web").InferenceSession>}
 */
async function open(ort, manifest, weights, onGpu) {
  const { bytes, files, inputs, cache, logits } = /** @type {import("../format/manifest.js").Graph} */ (manifest.graph);
  const externalData = files.map(({ path, offset, bytes: size }) => ({ path, data: weights.subarray(offset, offset + size) }));
  /** @type {import("onnxruntime-web").InferenceSession.SessionOptions} */
  const options = { executionProviders: [onGpu ? "webgpu" : "wasm"], graphOptimizationLevel: "all", externalData, logSeverityLevel: 3 };
  // Keys and values stay where they are made.
  if (onGpu) options.preferredOutputLocation = Object.fromEntries(cache.map(({ present }) => [present, "gpu-buffer"]));
  let session;
  try {
    session = await ort.InferenceSession.create(weights.subarray(0, bytes), options);
  } catch (error) {
    if (outOfMemory(error)) throw new EngineError("out_of_memory", `ONNX Runtime: ${String(error)}`, null, error);
    throw new EngineError("unsupported", `ONNX Runtime does not take the graph: ${String(error)}`, "graph", error);
  }
  const missing = [...inputs, ...cache.map(({ past }) => past)].filter((name) => !session.inputNames.includes(name));
  missing.push(...[logits, ...cache.map(({ present }) => present)].filter((name) => !session.outputNames.includes(name)));
  const beyond = session.inputNames.length - inputs.length - cache.length;
  if (missing.length || beyond) throw invalidArtifact(`is not what the graph has: ${missing.join(", ") || `${beyond} inputs more`}`, "graph");
  return session;
}

/**
 * Tells when the device is lost.
 * @param {import("./library.js").Library} ort
 * @param {() => MessagePort} faultPort
 * @returns {Promise<MessagePort>}
 */
async function watched(ort, faultPort) {
  const faults = faultPort();
  const device = /** @type {GPUDevice} */ (await ort.env.webgpu.device);
  void device.lost.then(({ reason, message }) => faults.postMessage(`the GPU device was lost (${reason}): ${message || "no reason given"}`));
  return faults;
}

/**
 * All of them. The first failure ends the others, and is told once nothing of them is under way any more.
 * @template {readonly Promise<unknown>[] | []} T
 * @param {AbortSignal} signal
 * @param {(signal: AbortSignal) => T} begin
 */
export async function together(signal, begin) {
  const failed = new AbortController();
  const all = begin(AbortSignal.any([signal, failed.signal]));
  for (const one of all) one.catch((error) => failed.abort(error)); // only the first one's reason stays
  await Promise.allSettled(all);
  failed.signal.throwIfAborted();
  return Promise.all(all);
}
