/**
 * @file One load of a model, from a manifest to an executor that is ready to step. Whatever fails on the way, the
 * compute threads are ended and nothing refers to the memory any more.
 */

import { DEFAULT_POLICY } from "./download.js";
import { EngineError, invalidArtifact } from "./errors.js";
import { probe } from "./features.js";
import { readManifest } from "./manifest.js";
import { parseJson, readPlan } from "./plan.js";
import { chooseThreads, startThreads } from "./pool.js";
import { fetchFile, fetchWeights } from "./shards.js";
import { openStore } from "./storage.js";
import { Executor } from "./wasm.js";

/**
 * @typedef {import("./protocol.js").Info} Info
 * @typedef {{executor: Executor, info: Info, close: () => void}} Engine
 */

/**
 * @param {import("./protocol.js").LoadOptions} options
 * @param {string} channel name of the BroadcastChannel on which compute threads report faults
 * @param {AbortSignal} signal
 * @param {(event: import("./protocol.js").Progress) => void} onProgress
 * @returns {Promise<Engine>}
 */
export async function loadEngine(options, channel, signal, onProgress) {
  const started = performance.now();
  const features = probe();
  const manifest = readManifest(options.manifest, options.variant);
  const { variant } = manifest;
  for (const feature of [...variant.requires, "atomics"]) {
    if (!features.wasm.includes(feature)) {
      throw new EngineError("unsupported", `this browser's WebAssembly has no ${feature}`, "variant");
    }
  }
  const threads = chooseThreads(options.threads, features);
  const store = await openStore(options.cache ?? true);
  const policy = { ...DEFAULT_POLICY, ...options.network };
  /** @type {import("./protocol.js").Warning[]} */
  const warnings = [];
  const source = { base: folderUrl(options.base), store, policy, signal, warnings };

  const { plan: planFile, kernels: kernelFile } = variant;
  const total = planFile.bytes + kernelFile.bytes;
  const received = [0, 0];
  /** @param {number} i */
  const small = (i) => (/** @type {number} */ bytes, /** @type {boolean} */ fromCache) => {
    received[i] = bytes;
    onProgress({ phase: "kernels", loaded: received[0] + received[1], total, fromCache, shard: null });
  };
  const plan = readPlan(parseJson(await fetchFile(source, planFile, small(0))), manifest.tensors);
  if (plan.maxima.context > manifest.context) {
    throw invalidArtifact(`is more than the model's ${manifest.context}`, "plan.maxima.context");
  }
  const kernels = await fetchFile(source, kernelFile, small(1));

  const executor = await Executor.create({
    kernels,
    plan,
    weightBytes: manifest.weightBytes,
    threads,
    kvPages: options.contextPages ?? plan.blocksPerSequence * plan.maxima.sequences,
    hashes: policy.connections,
  });
  const close = await startThreads(executor, channel, signal);
  try {
    const cached = await fetchWeights(source, manifest, executor, onProgress);
    executor.start(threads);
    const info = describe(manifest, plan, executor, threads, {
      load_ms: performance.now() - started,
      cached_bytes: cached,
      storage: store?.kind ?? null,
      isolated: features.isolated,
      warnings,
    });
    const { weightBytes } = manifest;
    onProgress({ phase: "ready", loaded: weightBytes, total: weightBytes, fromCache: cached === weightBytes, shard: null });
    return { executor, info, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * @param {import("./manifest.js").Manifest} manifest
 * @param {import("./plan.js").Plan} plan
 * @param {Executor} executor
 * @param {number} threads
 * @param {Pick<Info, "load_ms" | "cached_bytes" | "storage" | "isolated" | "warnings">} rest
 * @returns {Info}
 */
function describe(manifest, plan, executor, threads, rest) {
  return {
    backend: "wasm",
    variant: manifest.variant.name,
    threads,
    vocab: plan.vocab,
    context: plan.maxima.context,
    page_tokens: plan.pageTokens,
    page_bytes: plan.pageBytes,
    blocks_per_sequence: plan.blocksPerSequence,
    max_rows: plan.maxima.rows,
    max_sequences: plan.maxima.sequences,
    max_logit_rows: plan.maxima.logit_rows,
    max_pages: executor.maxPages,
    weight_bytes: manifest.weightBytes,
    arena_bytes: plan.arenaBytes,
    ...rest,
  };
}

/**
 * @param {string} base
 * @returns {string} absolute, ending in "/"
 */
function folderUrl(base) {
  try {
    return new URL(base.endsWith("/") ? base : `${base}/`, globalThis.location.href).href;
  } catch (error) {
    throw new EngineError("invalid_request", `base is no URL: ${base}`, "base", error);
  }
}
