/**
 * @file Brings a model's files to where they belong: shards into what an executor holds out for them (wasm memory, a
 * staging buffer of the GPU), checked on the way; plan and kernels into small buffers. From storage where a committed copy
 * lies there, else over the network, resumed inside a file after a break, and kept in storage for the next time.
 *
 * Storage is not believed: what comes from there is checked (storage.js), and counts as absent where it is not what was
 * verified and stored. Nor does it ever fail a load: whatever goes wrong there becomes a warning, and the bytes come from
 * the network.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { brief } from "../format/quoting.js";
import { DEFAULT_POLICY, download } from "./download.js";
import { endDigests, hashWhenWhole } from "./sha256.js";
import { into, isQuotaError, openStore, withLock } from "./storage.js";

/** The code of a warning: what was stored was not the file. */
const DAMAGED = "artifact_damaged";

/**
 * @typedef {import("../format/manifest.js").FileEntry} FileEntry
 * @typedef {object} Source
 * @property {string} base URL of the artifact's folder, ending in "/"
 * @property {import("./storage.js").Store | null} store
 * @property {import("./download.js").Policy} policy
 * @property {AbortSignal} signal
 * @property {import("../core/protocol.js").Warning[]} warnings appended to
 * @property {string[]} [fetched] of files that are stored only since a moment ago
 * @typedef {object} Destination where one file goes
 * @property {Uint8Array} target exactly the file's length
 * @property {{reset(): void, update(offset: number, bytes: number): void, digest(): string | Promise<string>}} hash over
 *   target
 * @property {(received: number, fromCache: boolean) => void} progress
 * @typedef {object} WeightSink where an executor wants its shards
 * @property {number} slots how many may be on their way at once
 * @property {(slot: number, shard: import("../format/manifest.js").Shard) => Promise<Pick<Destination, "target" |
 * "hash">>} open
 * @property {(slot: number, shard: import("../format/manifest.js").Shard) => Promise<void>} place the target that open
 * gave holds
 *   the shard, verified
 */

/**
 * @param {string} base
 * @returns {string} absolute, ending in "/"
 */
export function folderUrl(base) {
  try {
    return new URL(base.endsWith("/") ? base : `${base}/`, globalThis.location.href).href;
  } catch (error) {
    throw new EngineError("invalid_request", `base is no URL: ${brief(base)}`, "base", error);
  }
}

/**
 * A small file, whole and verified.
 * @param {Source} source
 * @param {FileEntry} entry
 * @param {(received: number, fromCache: boolean) => void} progress
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchFile(source, entry, progress) {
  const target = new Uint8Array(entry.bytes);
  await bring(source, entry, { target, hash: hashWhenWhole(target), progress });
  return target;
}

/**
 * The same without a load that it is a part of: kept in storage like all files of a model.
 * @param {string} base URL of the artifact's folder, ending in "/"
 * @param {FileEntry} entry
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchSmall(base, entry) {
  const store = await openStore(true);
  const source = { base, store, policy: DEFAULT_POLICY, signal: new AbortController().signal, warnings: [] };
  return fetchFile(source, entry, () => undefined);
}

/**
 * All shards into the sink, at most `policy.connections` at a time. The first failure ends the others.
 * @param {Source} source
 * @param {import("../format/manifest.js").Manifest} manifest
 * @param {WeightSink} sink
 * @param {(event: import("../core/protocol.js").Progress) => void} onProgress
 * @returns {Promise<number>} bytes that came from storage
 */
export async function fetchWeights(source, manifest, sink, onProgress) {
  const { shards, weightBytes: total } = manifest;
  const received = new Float64Array(shards.length);
  let stored = 0;
  const failed = new AbortController();
  const signal = AbortSignal.any([source.signal, failed.signal]);
  let next = 0;

  /** @param {number} slot */
  const connection = async (slot) => {
    while (next < shards.length) {
      const i = next++;
      const shard = shards[i];
      const fromCache = await bring({ ...source, signal }, shard, {
        ...(await sink.open(slot, shard)),
        progress: (bytes, fromCache) => {
          received[i] = bytes;
          const loaded = received.reduce((sum, n) => sum + n, 0);
          onProgress({ phase: "weights", loaded, total, fromCache, shard: i });
        },
      });
      await sink.place(slot, shard);
      if (fromCache) stored += shard.bytes;
    }
  };
  const slots = Math.min(source.policy.connections, sink.slots, shards.length);
  const connections = Array.from({ length: slots }, async (_, slot) => {
    try {
      await connection(slot);
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  });
  // Wait for all, so that no write to memory or storage outlives a failed load.
  await Promise.allSettled(connections);
  endDigests();
  if (source.signal.aborted) throw source.signal.reason;
  if (failed.signal.aborted) throw failed.signal.reason;
  return stored;
}

/**
 * @param {Source} source
 * @param {FileEntry} entry
 * @param {Destination} to
 * @returns {Promise<boolean>} whether it came from storage
 */
export async function bring(source, entry, to) {
  const { store, signal } = source;
  const stored = !source.fetched?.includes(entry.sha256);
  signal.throwIfAborted();
  if (!store) {
    await fetchVerified(source, entry, to, null);
    return false;
  }
  let found = await readStored(source, store, entry, to);
  if (found === "whole") return stored;
  return withLock(entry.sha256, signal, async (held) => {
    // Another tab may have committed it while this one waited for the lock.
    if (held) found = await readStored(source, store, entry, to);
    if (found === "whole") return stored;
    if (found === "damaged") await store.delete(entry.sha256).catch((error) => warn(source, error));
    const writer = held || !store.needsLock ? await openWriter(source, store, entry) : null;
    await fetchVerified(source, entry, to, writer);
    return false;
  });
}

/**
 * @param {Source} source
 * @param {import("./storage.js").Store} store
 * @param {FileEntry} entry
 * @param {Destination} to
 * @returns {Promise<import("./storage.js").Found>}
 */
async function readStored(source, store, entry, to) {
  try {
    const found = await store.read(entry.sha256, into(to.target));
    if (found === "damaged") warnOnce(source, DAMAGED, `${entry.file} was damaged in browser storage (${store.kind}) and is fetched again`);
    if (found === "whole") to.progress(entry.bytes, !source.fetched?.includes(entry.sha256));
    return found;
  } catch (error) {
    warn(source, error);
    return "absent";
  }
}

/**
 * Download, verify, commit. A wrong hash is tried once more from the first byte, past the HTTP cache and past any
 * partial file that was resumed.
 * @param {Source} source
 * @param {FileEntry} entry
 * @param {Destination} to
 * @param {import("./storage.js").FileWriter | null} writer
 */
async function fetchVerified(source, entry, to, writer) {
  const sink = new FileSink(source, to, writer);
  const url = new URL(entry.file, source.base).href;
  try {
    sink.resume();
    /** @type {RequestCache} */
    let cache = source.store ? "no-store" : "default";
    for (let tries = 1; ; tries++) {
      await download(url, entry, sink, { policy: source.policy, signal: source.signal, cache });
      const digest = await to.hash.digest();
      if (digest === entry.sha256) break;
      if (tries === 2) throw invalidArtifact(`${entry.file} has sha256 ${digest}, not ${entry.sha256}`, entry.field);
      cache = "reload";
      sink.reset();
    }
  } catch (error) {
    // A file that is not what the manifest says is not worth keeping; one that merely broke off can be resumed.
    const useless = error instanceof EngineError && error.code === "artifact_invalid";
    await sink.end(useless);
    throw error;
  }
  await sink.commit();
}

/** Where a download's bytes go: to their place in memory, through the hash, and to storage as long as it takes them. */
class FileSink {
  received = 0;
  #source;
  #to;
  /** @type {import("./storage.js").FileWriter | null} */
  #writer;

  /**
   * @param {Source} source
   * @param {Destination} to
   * @param {import("./storage.js").FileWriter | null} writer
   */
  constructor(source, to, writer) {
    this.#source = source;
    this.#to = to;
    this.#writer = writer;
    to.hash.reset();
  }

  /** Take over what an earlier load left in storage; it goes through the hash like everything else. */
  resume() {
    this.#stored((writer) => this.#take(writer.length > 0 ? writer.resume(this.#to.target) : 0));
  }

  /** @param {Uint8Array} chunk */
  push(chunk) {
    const at = this.received;
    this.#to.target.set(chunk, at);
    this.#take(chunk.length);
    this.#stored((writer) => writer.write(chunk, at));
  }

  reset() {
    this.received = 0;
    this.#to.hash.reset();
    this.#to.progress(0, false);
    this.#stored((writer) => writer.truncate());
  }

  async commit() {
    const writer = this.#writer;
    if (!writer) return;
    try {
      await writer.commit(this.#to.target);
    } catch (error) {
      await this.#drop(error);
    }
  }

  /** @param {boolean} useless whether to remove what was written */
  async end(useless) {
    const writer = this.#writer;
    try {
      if (useless || this.received === 0) await writer?.discard();
      else writer?.close();
    } catch (error) {
      warn(this.#source, error);
    }
  }

  /** @param {number} bytes that now lie in the target */
  #take(bytes) {
    this.#to.hash.update(this.received, bytes);
    this.received += bytes;
    this.#to.progress(this.received, false);
  }

  /** @param {(writer: import("./storage.js").FileWriter) => void} action */
  #stored(action) {
    if (!this.#writer) return;
    try {
      action(this.#writer);
    } catch (error) {
      void this.#drop(error);
    }
  }

  /** Storage refused: remove what it holds of this file and go on without. @param {unknown} error */
  async #drop(error) {
    const writer = this.#writer;
    this.#writer = null;
    warn(this.#source, error);
    await writer?.discard().catch(() => undefined);
  }
}

/**
 * @param {Source} source
 * @param {import("./storage.js").Store} store
 * @param {FileEntry} entry
 */
async function openWriter(source, store, entry) {
  if (source.warnings.some((warning) => warning.code === "storage_full")) return null;
  try {
    return await store.writer(entry.sha256, entry.bytes);
  } catch (error) {
    warn(source, error);
    return null;
  }
}

/**
 * Each kind of warning once.
 * @param {Source} source
 * @param {unknown} error
 */
function warn(source, error) {
  if (isQuotaError(error)) {
    warnOnce(source, "storage_full", "browser storage is full: the model runs from memory and is fetched again next time");
  } else warnOnce(source, "storage", `browser storage failed, files come from the network: ${String(error)}`);
}

/**
 * @param {Source} source
 * @param {string} code
 * @param {string} message
 */
function warnOnce({ warnings }, code, message) {
  if (!warnings.some((warning) => warning.code === code)) warnings.push({ code, message });
}
