/**
 * @file The exam of a GPU, sat with a wrong kernel in the place of each right one in turn: on one device, with one set of
 * buffers, so that only the wrong kernel is compiled anew.
 */

import { MAX_BURST } from "../../../web/engine/format/batch_limits.js";
import { described, readManifest } from "../../../web/engine/format/manifest.js";
import { parseJson, readPlan } from "../../../web/engine/format/plan.js";
import { DEFAULT_POLICY } from "../../../web/engine/storage/download.js";
import { fetchFile, fetchWeights, folderUrl } from "../../../web/engine/storage/shards.js";
import { Buffers } from "../../../web/engine/webgpu/buffers.js";
import { openDevice } from "../../../web/engine/webgpu/device.js";
import { examine, precisionOf } from "../../../web/engine/webgpu/exam.js";
import { GpuExecutor } from "../../../web/engine/webgpu/executor.js";
import { splitKernels } from "../../../web/engine/webgpu/kernels.js";
import { Replay } from "../../../web/engine/webgpu/replay.js";
import { Sampler } from "../../../web/engine/webgpu/sampler.js";
import { weightSink } from "../../../web/engine/webgpu/weights.js";

/**
 * @param {string} base of the artifact
 * @param {{model: Record<string, string>, sampler: Record<string, string>}} faults wrong WGSL by kernel
 * @param {number} kvPages that the exam has room in
 * @param {string} [variant]
 * @param {(kernel: string, error: string) => void} [each] called after each fault
 * @returns {Promise<{kernel: string, error: string, after: string}[]>} what the exam said with the wrong kernel, and with the
 *   right one after it; "": passed
 */
export async function examineEach(base, faults, kvPages, variant = "webgpu-f32", each = () => undefined) {
  const manifest = readManifest(described(await (await fetch(`${base}/manifest.json`)).text()), variant);
  const required = manifest.variant.requires.filter((name) => name !== "webgpu");
  const { signal } = new AbortController();
  const source = { base: folderUrl(base), store: null, policy: DEFAULT_POLICY, signal, warnings: [] };
  const file = (/** @type {string} */ name) => fetchFile(source, manifest.variant.files[name], () => undefined);
  const plan = readPlan(parseJson(await file("plan")), manifest.tensors, "webgpu");
  const sources = splitKernels(await file("kernels"));
  const gpu = await openDevice({ features: required, binding: 0, power: "high-performance" });
  const buffers = await Buffers.create(gpu, plan);
  const sink = await weightSink(gpu, buffers.groups, Math.max(...manifest.shards.map(({ bytes }) => bytes)));
  await fetchWeights(source, manifest, sink, () => undefined);
  await buffers.growKv(kvPages);
  const sampler = await Sampler.create(gpu, plan, buffers, MAX_BURST);
  remember(gpu.device);
  const exam = /** @type {import("../../../web/engine/format/manifest.js").Exam} */ (manifest.exam);

  /** @param {Map<string, string>} kernels WGSL by name @param {Sampler} [chooses] */
  const sit = async (kernels, chooses = sampler) => {
    const replay = await Replay.create(gpu, plan, buffers, kernels, { chosen: [], all: false });
    replay.bind();
    const executor = new GpuExecutor(gpu, plan, buffers, replay, chooses, { kvPages });
    return examine(executor, plan, exam, precisionOf(required)).then(() => "", String);
  };
  const found = [{ kernel: "none", error: "", after: await sit(sources) }];
  for (const [kernel, code] of Object.entries(faults.model)) {
    found.push({ kernel, error: await sit(new Map(sources).set(kernel, code)), after: await sit(sources) });
    each(kernel, found[found.length - 1].error);
  }
  for (const [kernel, code] of Object.entries(faults.sampler)) {
    const wrong = await withSource(kernel, code, () => Sampler.create(gpu, plan, buffers, MAX_BURST));
    found.push({ kernel, error: await sit(sources, wrong), after: await sit(sources) });
  }
  gpu.destroy();
  return found;
}

/**
 * From now on, what was compiled once is not compiled again.
 * @param {GPUDevice} device
 */
function remember(device) {
  const [module, pipeline] = [device.createShaderModule.bind(device), device.createComputePipelineAsync.bind(device)];
  /** @type {Map<GPUShaderModule, string>} */
  const codes = new Map();
  /** @type {Map<string, Promise<GPUComputePipeline>>} */
  const made = new Map();
  device.createShaderModule = (descriptor) => {
    const own = module(descriptor);
    codes.set(own, String(descriptor.code));
    return own;
  };
  device.createComputePipelineAsync = (descriptor) => {
    const code = `${descriptor.compute.entryPoint} ${codes.get(descriptor.compute.module)}`;
    const found = made.get(code) ?? pipeline(descriptor);
    made.set(code, found);
    return found;
  };
}

/**
 * Something done while a file of WGSL has another kernel in it.
 * @template T
 * @param {string} kernel
 * @param {string} code
 * @param {() => Promise<T>} act
 * @returns {Promise<T>}
 */
async function withSource(kernel, code, act) {
  const { fetch } = globalThis;
  globalThis.fetch = async (...request) => {
    const parts = (await (await fetch(...request)).text()).split(/^(?=\/\/: )/m);
    return new Response(parts.map((part) => (part.startsWith(`//: ${kernel}\n`) ? `//: ${kernel}\n${code}` : part)).join(""));
  };
  try {
    return await act();
  } finally {
    globalThis.fetch = fetch;
  }
}
