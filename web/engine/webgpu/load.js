/** @file Loading for the WebGPU executor: the device, then kernels compiled while the weights arrive, then a first run. */

import { fits } from "../core/alternatives.js";
import { MAX_BURST } from "../format/batch_limits.js";
import { EngineError } from "../format/errors.js";
import { fetchWeights } from "../storage/shards.js";
import { Buffers } from "./buffers.js";
import { TIMESTAMPS } from "./clock.js";
import { openDevice } from "./device.js";
import { examine, precisionOf } from "./exam.js";
import { GpuExecutor } from "./executor.js";
import { splitKernels } from "./kernels.js";
import { Replay } from "./replay.js";
import { Sampler } from "./sampler.js";
import { cannotRun, featuresOf } from "./subgroups.js";
import { weightSink } from "./weights.js";

/** What every variant requires, beside features of WebGPU's. */
const WEBGPU = "webgpu";

/**
 * What can be known without asking for a device.
 * @param {import("../format/manifest.js").Variant} _variant
 * @param {import("../core/features.js").Features} features
 */
export function requireSupport(_variant, features) {
  if (!features.webgpu) throw new EngineError("unsupported", "this browser has no WebGPU", "variant");
}

/**
 * @param {import("../load.js").Job} job
 * @returns {Promise<import("../load.js").Made>}
 */
export async function load({ options, manifest, plan, kernels, source, faultPort, onProgress }) {
  const kvPages = plan.paged ? (options.contextPages ?? plan.blocksPerSequence * plan.maxima.sequences) : 0;
  const pageBytes = Math.max(...plan.buffers.map((buffer) => buffer.pageBytes));
  const required = manifest.variant.requires.filter((name) => name !== WEBGPU);
  const power = options.powerPreference ?? "high-performance";
  const optional = [...(options.profile ? [TIMESTAMPS] : []), ...(options.tune === false ? [] : featuresOf(plan))];
  const gpu = await openDevice({ features: required, binding: kvPages * pageBytes, power, optional });
  const faults = faultPort();
  gpu.onGone = ({ code, message }) => {
    if (code === "device_lost") faults.postMessage(message);
  };
  const close = () => {
    gpu.onGone = () => undefined;
    gpu.destroy();
    faults.close();
  };
  try {
    const buffers = await Buffers.create(gpu, plan);
    // To choose, all of them are compiled: on a CPU, which runs shaders as well, that takes a second each.
    const tuned = plan.alternatives.length > 0 && (options.tune ?? !gpu.facts.software);
    const replayed = async () => {
      const not = await cannotRun(gpu, plan, tuned, required);
      const can = options.kernels?.every((name) => !not.has(plan.kernels.findIndex((kernel) => kernel.name === name)));
      const chosen = tuned && options.kernels && can && fits(plan, options.kernels) ? options.kernels : [];
      return Replay.create(gpu, plan, buffers, splitKernels(kernels), { chosen, all: tuned && !chosen.length, not });
    };
    const [replay, sampler, stored] = await settled([
      replayed(),
      Sampler.create(gpu, plan, buffers, MAX_BURST),
      fetchShards(gpu, buffers, manifest, source, onProgress),
    ]);
    const executor = new GpuExecutor(gpu, plan, buffers, replay, sampler, { ...options, kvPages });
    await executor.warm();
    const { exam } = manifest;
    if (exam && plan.paged && (options.exam || !gpu.facts.software)) {
      executor.exam = async () => {
        try {
          await examine(executor, plan, exam, precisionOf(required));
        } finally {
          executor.forgetExam();
        }
      };
      if (options.exam !== false) await executor.exam();
    }
    source.signal.throwIfAborted();
    return { executor, threads: 1, measured: null, rehearsed: true, alternatives: tuned ? replay.alternatives : [], stored, doorbell: null, adapter: gpu.facts, close };
  } catch (error) {
    let cause = error;
    try {
      gpu.check();
    } catch (gone) {
      cause = gone; // whatever else went wrong, it was because of that
    }
    close();
    throw cause;
  }
}

/**
 * @param {import("./device.js").Gpu} gpu
 * @param {Buffers} buffers
 * @param {import("../format/manifest.js").Manifest} manifest
 * @param {import("../storage/shards.js").Source} source
 * @param {(event: import("../core/protocol.js").Progress) => void} onProgress
 * @returns {Promise<number>} bytes that came from storage
 */
async function fetchShards(gpu, buffers, manifest, source, onProgress) {
  const sink = await weightSink(gpu, buffers.groups, Math.max(...manifest.shards.map(({ bytes }) => bytes)));
  const stored = await fetchWeights(source, manifest, sink, onProgress);
  sink.close();
  return stored;
}

/**
 * All of them, or the first that failed, once nothing of the others is under way any more.
 * @template {readonly unknown[]} T
 * @param {{[K in keyof T]: Promise<T[K]>}} promises
 * @returns {Promise<T>}
 */
async function settled(promises) {
  await Promise.allSettled(promises);
  return /** @type {Promise<T>} */ (/** @type {unknown} */ (Promise.all(promises)));
}
