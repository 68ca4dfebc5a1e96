/**
 * @file Hashes stored files for verify.js: behind (`{files, cache}`, answered by `{damaged: file}` for the first that is not
 * what it should be, or is gone since, or by `{done: true}`), or ahead (`{artifact}`, answered by `{whole: sha256}` for each
 * that is, then `{done: true}`). One after the other, so on one core at most.
 */

import { readBounded } from "../format/bounded.js";
import { begin } from "../host/workers.js";
import { digestOf } from "./sha256.js";
import { openStore, withLock } from "./storage.js";

/** @typedef {import("../format/manifest.js").FileEntry} FileEntry */
/** @typedef {import("./storage.js").Store} Store */

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** Bytes that are hashed ahead: load.js hashes more than that behind. */
const AHEAD_BYTES = 256e6;
const MAX_SHARD = 16 * 2 ** 20;

begin();

scope.onmessage = async ({ data: { artifact, files, cache } }) => {
  try {
    const store = await openStore(cache ?? true);
    if (store && artifact) await ahead(store, artifact);
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
 * The weights that a manifest names. It is the browser's copy, which may be old: then it names what nobody asks for.
 * @param {Store} store
 * @param {string} artifact URL of the folder
 */
async function ahead(store, artifact) {
  const folder = artifact.replace(/\/?(#.*)?$/, "/"); // behind "#" stands a level
  const response = await fetch(`${folder}manifest.json`, { cache: "only-if-cached", mode: "same-origin" });
  /** @type {FileEntry[]} */
  const shards = JSON.parse(new TextDecoder().decode(await readBounded(response, "manifest", "manifest.json", null))).weights.shards;
  if (shards.reduce((sum, { bytes }) => sum + bytes, 0) > AHEAD_BYTES) return;
  const place = new Uint8Array(Math.min(MAX_SHARD, Math.max(...shards.map(({ bytes }) => bytes))));
  for (const shard of shards) {
    if (await isWhole(store, shard, place)) scope.postMessage({ whole: shard.sha256 });
  }
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
