/**
 * @file Fetches a model's weights for prefetch.js: gets `{base, manifest}`, answers `{fetching: sha256}` before each file and
 * `{done: true}` in the end; `{stop: true}` lets it begin with no other.
 */

import { array, object } from "../format/check.js";
import { described, readManifest } from "../format/manifest.js";
import { locksAnswer, storageSpace } from "../host/site_data.js";
import { begin } from "../host/workers.js";
import { DEFAULT_POLICY } from "./download.js";
import { hashWhenWhole } from "./sha256.js";
import { bring } from "./shards.js";
import { openStore } from "./storage.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** Weights of more bytes are left to the load: it puts them where they stay, and nothing is copied. */
const MOST_BYTES = 256e6;
/** Files at once, each with memory of its own. */
const SLOTS = 2;

const stopped = new AbortController();

begin();

scope.onmessage = async ({ data: { base, manifest, stop } }) => {
  if (stop) return stopped.abort();
  try {
    await prefetch(base, manifest);
  } catch {
    // The load meets the same error and reports it.
  }
  scope.postMessage({ done: true });
};

/**
 * The weights that a manifest names, as far as they are not stored. Which of several precisions is wanted is not known yet,
 * so of such none is fetched.
 * @param {string} base URL of the folder
 * @param {string} text of the manifest
 */
async function prefetch(base, text) {
  const said = object(described(text), "manifest");
  const [variant] = array(said.variants, "variants", Infinity);
  const { shards, weightBytes: total } = readManifest(said, String(object(variant, "variants[0]").name));
  if (total > MOST_BYTES || array(said.levels ?? [], "levels", Infinity).length > 1) return;
  const { usage, quota } = await storageSpace();
  const store = usage !== null && quota !== null && quota - usage > total ? await openStore(true) : null;
  if (!store || (store.needsLock && !(await locksAnswer()))) return; // or it would be fetched twice
  const source = { base, store, policy: DEFAULT_POLICY, signal: new AbortController().signal, warnings: [] };
  let next = 0;
  const slot = async () => {
    /** @type {Uint8Array<ArrayBuffer> | undefined} */
    let place;
    while (next < shards.length && !stopped.signal.aborted && !source.warnings.length) {
      const shard = shards[next++];
      if (await store.has(shard.sha256, shard.bytes)) continue;
      scope.postMessage({ fetching: shard.sha256 });
      place ??= new Uint8Array(Math.max(...shards.map(({ bytes }) => bytes)));
      const target = place.subarray(0, shard.bytes);
      await bring(source, shard, { target, hash: hashWhenWhole(target), progress: () => undefined });
    }
  };
  await Promise.all(Array.from({ length: Math.min(SLOTS, shards.length) }, slot));
}
