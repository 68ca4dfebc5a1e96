/**
 * @file One load of a model, from a manifest to an executor that is ready to step: what is the same for all executors
 * here, the rest in each engine's own (engines.js). Whatever fails on the way, threads are ended, the GPU device is
 * destroyed, and nothing refers to the memory any more.
 */

import { namesOf } from "./core/alternatives.js";
import { probe } from "./core/features.js";
import { engineCode } from "./engines.js";
import { invalidArtifact } from "./format/errors.js";
import { described, readManifest } from "./format/manifest.js";
import { parseJson, readPlan } from "./format/plan.js";
import { DEFAULT_POLICY } from "./storage/download.js";
import { fetchFile, folderUrl } from "./storage/shards.js";
import { openStore } from "./storage/storage.js";

/**
 * @typedef {import("./core/protocol.js").Info} Info
 * @typedef {object} Executor what a worker drives; see protocol.js
 * @property {number} maxPages
 * @property {(pages: number) => void | Promise<void>} reservePages
 * @property {(pages: Int32Array) => Answer<Uint8Array<ArrayBuffer>>} readPages
 * @property {(pages: Int32Array, data: Uint8Array<ArrayBuffer>) => Answer<void>} writePages
 * @property {(input: import("./core/protocol.js").StepInput) => Answer<import("./core/protocol.js").StepResult>} step
 * @property {(input: import("./core/protocol.js").RunInput, interrupted: () => boolean, tell: (slice:
 * import("./core/protocol.js").Slice) => void) => Promise<import("./core/protocol.js").RunResult>} [run] step after step where it is
 *   not there; interrupted: whether the caller asked to end this burst; tell: where it wants to hear of its parts
 * @property {() => Uint32Array | Float64Array} counters
 * @property {() => number} memoryBytes all that it holds
 * @property {number} [fixedBytes] of that, what is not KV pages, where that is more than weights and arenas
 * @property {(input: import("./core/protocol.js").ProfileInput) => Answer<import("./core/protocol.js").Profile>} [profile]
 * where a step's time goes
 * @property {(names: string[]) => Answer<void>} [chooseKernels] see EngineClient
 * @property {(input: import("./core/protocol.js").KernelTiming) => Answer<Float64Array>} [timeKernels]
 * @property {(slot: number) => void} [drop] where there are no pages: free what is kept of a sequence
 * @property {(what: string) => void} [fail] break something on purpose
 */
/**
 * @template T
 * @typedef {T | Promise<T>} Answer
 */
/**
 * @typedef {{buffer: ArrayBufferLike, offset: number}} Doorbell
 * @typedef {{executor: Executor, info: Info, doorbell: Doorbell | null, close: () => void}} Engine
 * @typedef {{plan: import("./format/plan.js").Plan, kernels: Uint8Array<ArrayBuffer>, runtime?: Uint8Array<ArrayBuffer>}} Code what
 *   a variant's files hold; kernels: verified bytes; runtime: others' code, from the site
 * @typedef {object} Job what the loaders of both executors get
 * @property {import("./core/protocol.js").LoadOptions} options
 * @property {import("./format/manifest.js").Manifest} manifest
 * @property {import("./format/plan.js").Plan} plan
 * @property {Uint8Array<ArrayBuffer>} kernels verified bytes
 * @property {Uint8Array<ArrayBuffer>} [runtime] see Code
 * @property {import("./core/features.js").Features} features
 * @property {import("./storage/shards.js").Source} source
 * @property {() => MessagePort} faultPort one more port on which a fault reaches the client, whatever this thread is at
 * @property {(event: import("./core/protocol.js").Progress) => void} onProgress
 * @typedef {object} Made by such a loader
 * @property {Executor} executor
 * @property {number} threads
 * @property {number} [promptThreads] where they may be more
 * @property {Record<string, number> | null} measured steps a second by number of threads
 * @property {boolean} rehearsed
 * @property {string[][]} [alternatives] that can be chosen from, where that is not all of the plan's
 * @property {number} stored bytes of the weights that came from storage
 * @property {Doorbell | null} doorbell
 * @property {import("./core/protocol.js").AdapterFacts | null} adapter
 * @property {() => void} close
 */

/**
 * @param {import("./core/protocol.js").LoadOptions} options
 * @param {() => MessagePort} faultPort see Job
 * @param {AbortSignal} signal
 * @param {(event: import("./core/protocol.js").Progress) => void} onProgress
 * @returns {Promise<Engine>}
 */
export async function loadEngine(options, faultPort, signal, onProgress) {
  const started = performance.now();
  const features = probe();
  const manifest = readManifest(described(options.manifest), options.variant);
  const { variant } = manifest;
  const { load, requireSupport, fetchCode = fetchPlan } = await engineCode(variant);
  await requireSupport(variant, features, options.powerPreference);
  const store = await openStore(options.cache ?? true);
  const policy = { ...DEFAULT_POLICY, ...options.network };
  /** @type {import("./core/protocol.js").Warning[]} */
  const warnings = [];
  const source = { base: folderUrl(options.base), store, policy, signal, warnings, fetched: options.fetched };

  const code = await fetchCode(manifest, source, onProgress);
  const { plan } = code;
  const made = await load({ options, manifest, ...code, features, source, faultPort, onProgress });
  const { executor, doorbell, close } = made;
  const info = describe(manifest, plan, made, {
    load_ms: performance.now() - started,
    storage: store?.kind ?? null,
    isolated: features.isolated,
    warnings,
  });
  const { weightBytes } = manifest;
  const fromCache = made.stored === weightBytes;
  onProgress({ phase: "ready", loaded: weightBytes, total: weightBytes, fromCache, shard: null });
  return { executor, info, doorbell, close };
}

/**
 * Of engines that replay plans.
 * @param {import("./format/manifest.js").Manifest} manifest
 * @param {import("./storage/shards.js").Source} source
 * @param {(event: import("./core/protocol.js").Progress) => void} onProgress
 * @returns {Promise<Code>}
 */
async function fetchPlan(manifest, source, onProgress) {
  const { variant } = manifest;
  const { plan: planFile, kernels: kernelFile } = variant.files;
  if (!planFile) throw invalidArtifact(`variant ${variant.name} has none: compile it again`, "variants.plan");
  const total = planFile.bytes + kernelFile.bytes;
  const received = [0, 0];
  /** @param {number} i */
  const small = (i) => (/** @type {number} */ bytes, /** @type {boolean} */ fromCache) => {
    received[i] = bytes;
    onProgress({ phase: "kernels", loaded: received[0] + received[1], total, fromCache, shard: null });
  };
  const planJson = parseJson(await fetchFile(source, planFile, small(0)));
  const replays = /** @type {Parameters<typeof readPlan>[2]} */ (variant.backend); // what engines.js has
  const plan = readPlan(planJson, manifest.tensors, replays);
  if (plan.maxima.context > manifest.context) {
    throw invalidArtifact(`is more than the model's ${manifest.context}`, "plan.maxima.context");
  }
  if (!plan.paged && plan.width !== manifest.width) throw invalidArtifact(`is ${plan.width}, the model's ${manifest.width}`, "plan.width");
  const grouped = plan.kvGroups.flatMap(({ layers }) => layers).length;
  if (grouped > 0 && grouped !== manifest.layers) throw invalidArtifact(`have ${grouped} layers, the model ${manifest.layers}`, "plan.kv_groups");
  return { plan, kernels: await fetchFile(source, kernelFile, small(1)) };
}

/**
 * @param {import("./format/manifest.js").Manifest} manifest
 * @param {import("./format/plan.js").Plan} plan
 * @param {Made} made
 * @param {Pick<Info, "load_ms" | "storage" | "isolated" | "warnings">} rest
 * @returns {Info}
 */
function describe(manifest, plan, { executor, threads, promptThreads, measured, rehearsed, alternatives, stored, adapter }, rest) {
  return {
    backend: manifest.variant.backend,
    variant: manifest.variant.name,
    threads,
    prompt_threads: promptThreads ?? threads,
    threads_measured: measured,
    alternatives: alternatives ?? namesOf(plan),
    rehearsed,
    adapter,
    vocab: plan.vocab,
    context: plan.maxima.context,
    width: plan.paged ? 0 : plan.width,
    page_tokens: plan.paged ? plan.pageTokens : 1,
    page_bytes: plan.pageBytes,
    blocks_per_sequence: plan.blocksPerSequence,
    groups: plan.kvGroups,
    max_rows: plan.maxima.rows,
    max_sequences: plan.maxima.sequences,
    max_logit_rows: plan.maxima.logit_rows,
    max_pages: executor.maxPages,
    weight_bytes: manifest.weightBytes,
    arena_bytes: executor.fixedBytes ? executor.fixedBytes - manifest.weightBytes : plan.arenaBytes,
    cached_bytes: stored,
    ...rest,
  };
}
