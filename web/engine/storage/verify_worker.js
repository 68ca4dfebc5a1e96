/**
 * @file Hashes stored files for verify.js: behind (`{files, cache}`, answered by `{damaged: file}` for the first that is not
 * what it should be, or is gone since, or by `{done: true}`), one after the other, so on one core at most; or ahead (`{base,
 * manifest}`, answered by `{whole: sha256}` for each that is, or was fetched, which `{fetching: sha256}` says before, then
 * `{done: true}`; `{stop: true}` lets it begin with no other).
 */

import { array, object } from "../format/check.js";
import { described, readManifest } from "../format/manifest.js";
import { locksAnswer, storageSpace } from "../host/site_data.js";
import { begin } from "../host/workers.js";
import { DEFAULT_POLICY } from "./download.js";
import { digestOf, hashWhenWhole } from "./sha256.js";
import { bring } from "./shards.js";
import { openStore, withLock } from "./storage.js";

/** @typedef {import("../format/manifest.js").FileEntry} FileEntry */
/** @typedef {import("./storage.js").Store} Store */

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** Bytes that are hashed ahead: load.js hashes more than that behind. */
const AHEAD_BYTES = 256e6;
/** Files at once, each with memory of its own. */
const SLOTS = 2;

const stopped = new AbortController();

begin();

scope.onmessage = async ({ data: { base, manifest, stop, files, cache } }) => {
  if (stop) return stopped.abort();
  try {
    const store = await openStore(cache ?? true);
    if (store && base) await ahead(store, base, manifest);
    else if (store) await behind(store, files);
  } catch {
    // Storage that cannot be read says nothing of what was read before, and nothing of what will be.
  }
  scope.postMessage({ done: true });
};

/**
 * @param {Store} store
 * @param {FileEntry[]} files
 */
async function behind(store, files) {
  const place = new Uint8Array(Math.max(...files.map(({ bytes }) => bytes)));
  for (const file of files) {
    const whole = () => isWhole(store, file, place);
    if (await whole()) continue;
    await withLock(file.sha256, new AbortController().signal, async () => {
      if (!(await whole())) await store.delete(file.sha256);
    }).catch(() => undefined);
    scope.postMessage({ damaged: file });
    return;
  }
}

/**
 * The weights that a manifest names. Which of several precisions is wanted is not known yet, so of such none is fetched;
 * and what is damaged is left to the load, which says so.
 * @param {Store} store
 * @param {string} base URL of the folder
 * @param {string} text of the manifest
 */
async function ahead(store, base, text) {
  const said = object(described(text), "manifest");
  const [variant] = array(said.variants, "variants", Infinity);
  const { shards, weightBytes: total } = readManifest(said, String(object(variant, "variants[0]").name));
  if (total > AHEAD_BYTES) return;
  const { usage, quota } = await storageSpace();
  const room = usage !== null && quota !== null && quota - usage > total;
  const kept = room && (!store.needsLock || (await locksAnswer())); // or it would be fetched twice
  const alone = array(said.levels ?? [], "levels", Infinity).length <= 1;
  const source = { base, store, policy: DEFAULT_POLICY, signal: new AbortController().signal, warnings: [] };
  let next = 0;
  const slot = async () => {
    const place = new Uint8Array(Math.max(...shards.map(({ bytes }) => bytes)));
    while (next < shards.length && !stopped.signal.aborted) {
      const shard = shards[next++];
      const target = place.subarray(0, shard.bytes);
      if (await store.has(shard.sha256, shard.bytes)) {
        if (await isWhole(store, shard, place)) scope.postMessage({ whole: shard.sha256 });
        continue;
      }
      if (!kept || !alone || source.warnings.length) return;
      scope.postMessage({ fetching: shard.sha256 });
      await bring(source, shard, { target, hash: hashWhenWhole(target), progress: () => undefined });
      if (!source.warnings.length) scope.postMessage({ whole: shard.sha256 });
    }
  };
  await Promise.all(Array.from({ length: Math.min(SLOTS, shards.length) }, slot));
}

/**
 * @param {Store} store
 * @param {FileEntry} file
 * @param {Uint8Array} place
 */
async function isWhole(store, { sha256, bytes }, place) {
  const target = place.subarray(0, bytes);
  return (await store.read(sha256, target)) && (await digestOf(target)) === sha256;
}
