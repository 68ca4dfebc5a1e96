/** @file Loading for the WASM executor: memory, compute threads, and the weights straight to their place in memory. */

import { fits } from "../core/alternatives.js";
import { EngineError } from "../format/errors.js";
import { fetchWeights } from "../storage/shards.js";
import { Executor } from "./executor.js";
import { chooseThreads, isGiven, startThreads } from "./pool.js";
import { endRehearsal, prepareRehearsal } from "./rehearsal.js";
import { measureThreads } from "./thread_count.js";

/**
 * @param {import("../format/manifest.js").Variant} variant
 * @param {import("../core/features.js").Features} features
 */
export function requireSupport({ requires }, features) {
  for (const feature of [...requires, "atomics"]) {
    if (!features.wasm.includes(feature)) {
      throw new EngineError("unsupported", `this browser's WebAssembly has no ${feature}`, "variant");
    }
  }
}

/**
 * @param {import("../load.js").Job} job
 * @returns {Promise<import("../load.js").Made>}
 */
export async function load({ options, manifest, plan, kernels, features, source, faultPort, onProgress }) {
  const threads = chooseThreads(options.threads, features);
  const slots = source.policy.connections;
  const executor = await Executor.create({
    kernels,
    plan,
    weightBytes: manifest.weightBytes,
    threads,
    kvPages: plan.paged ? (options.contextPages ?? plan.blocksPerSequence * plan.maxima.sequences) : 0,
    hashes: slots,
    sliced: !features.isolated,
    memory: options.memory ?? { initial: 0, maximum: Infinity },
  });
  executor.start();
  const chosen = options.kernels && fits(plan, options.kernels) ? options.kernels : undefined;
  if (chosen) executor.chooseKernels(chosen);
  // With kernels and threads given nothing is timed afterwards, and stored weights come too soon for a rehearsal beside them.
  const settled = chosen && isGiven(options.threads) && (await isStored(source, manifest));
  const rehearsal = threads > 1 && !settled ? prepareRehearsal(executor, chosen) : null;
  const close = await startThreads(executor, faultPort, source.signal, rehearsal);
  try {
    const stored = await fetchWeights(source, manifest, weightSink(executor, slots), onProgress);
    const rehearsed = rehearsal !== null && endRehearsal(executor, rehearsal);
    const measured = rehearsal && !isGiven(options.threads) ? measureThreads(executor, threads) : null;
    if (!measured) executor.setThreads(threads);
    const doorbell = features.isolated ? { buffer: executor.memory.buffer, offset: executor.doorbell } : null;
    const { promptThreads } = executor;
    return { executor, threads: executor.threads, promptThreads, measured, rehearsed, stored, doorbell, adapter: null, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * @param {import("../storage/shards.js").Source} source
 * @param {import("../format/manifest.js").Manifest} manifest
 * @returns {Promise<boolean>} whether the first shard is stored, and so, most likely, all
 */
async function isStored({ store }, { shards: [{ sha256, bytes }] }) {
  return (await store?.has(sha256, bytes).catch(() => false)) ?? false;
}

/**
 * Shards are written where they stay, and hashed there where they come over the network.
 * @param {Executor} executor
 * @param {number} slots
 * @returns {import("../storage/shards.js").WeightSink}
 */
function weightSink(executor, slots) {
  return {
    slots,
    open: async (slot, shard) => {
      const address = executor.layout.weights + shard.offset;
      const hasher = executor.hasher(slot);
      return {
        target: executor.bytes.subarray(address, address + shard.bytes),
        hash: { ...hasher, update: (offset, bytes) => hasher.update(address + offset, bytes) },
      };
    },
    place: async () => undefined,
  };
}
