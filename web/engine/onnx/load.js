/**
 * @file Loading for ONNX Runtime: its code and the sampler while the graph and its tensors arrive, then a session. Both
 * providers, WebAssembly and WebGPU, are backends of their own.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { allocated, outOfMemory } from "../sequential/memory.js";
import { fetchSampler, openSampler, planOf } from "../sequential/sampler.js";
import { parted } from "../sequential/support.js";
import { together } from "../sequential/together.js";
import { fetchShards } from "../sequential/weights.js";
import { requireSupport as requireWasm } from "../wasm/load.js";
import { chooseThreads } from "../wasm/pool.js";
import { requireAdapter } from "../webgpu/device.js";
import { OnnxExecutor } from "./executor.js";
import { fetchLibrary, openLibrary } from "./library.js";

const WEBGPU = "onnx-webgpu";

/** @type {import("../engines.js").EngineCode["requireSupport"]} */
export async function requireSupport(variant, features, power = "high-performance") {
  const { wasm, gpu } = parted(variant.requires);
  requireWasm({ ...variant, requires: wasm }, features);
  if (variant.backend !== WEBGPU) return;
  if (!features.webgpu) throw new EngineError("unsupported", "this browser has no WebGPU", "variant");
  await requireAdapter(power, gpu);
}

/** @param {import("../format/manifest.js").Manifest} manifest */
const providerOf = ({ variant }) => (variant.backend === WEBGPU ? "webgpu" : "wasm");

/**
 * In place of a plan and its kernels: the sampler, and ONNX Runtime, which is most of what arrives before the weights.
 * @type {Required<import("../engines.js").EngineCode>["fetchCode"]}
 */
export async function fetchCode(manifest, source, onProgress) {
  if (!manifest.graph) throw invalidArtifact("is missing: compile the model again", "graph");
  const sampler = await fetchSampler(planOf(manifest), manifest, source, onProgress);
  const before = sampler.kernels.length;
  const runtime = await fetchLibrary(providerOf(manifest), (loaded, total) =>
    onProgress({ phase: "kernels", loaded: before + loaded, total: before + total, fromCache: false, shard: null }));
  return { ...sampler, runtime };
}

/**
 * @param {import("../load.js").Job} job
 * @returns {Promise<import("../load.js").Made>}
 */
export async function load({ options, manifest, plan, kernels, runtime, features, source, faultPort, onProgress }) {
  const provider = providerOf(manifest);
  const onGpu = provider === "webgpu";
  const threads = onGpu ? 1 : chooseThreads(options.threads, features);
  const power = options.powerPreference ?? "high-performance";
  const adapter = onGpu ? await requireAdapter(power, parted(manifest.variant.requires).gpu) : null;
  const weights = allocated(manifest.weightBytes); // until the session has read them
  const [ort, sampler, stored] = await together(source.signal, (signal) => [
    openLibrary(provider, /** @type {Uint8Array<ArrayBuffer>} */ (runtime), threads, power),
    openSampler(plan, kernels),
    fetchShards({ ...source, signal }, manifest, ({ offset, bytes }) => weights.subarray(offset, offset + bytes), onProgress),
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
