/** @file Weights for code that is not ours, which parses them: in this worker's memory, each shard as a whole. */

import { hashWhenWhole } from "../storage/sha256.js";
import { fetchWeights } from "../storage/shards.js";

/** @typedef {import("../format/manifest.js").Manifest} Manifest */

/**
 * All shards.
 * @param {import("../storage/shards.js").Source} source
 * @param {Manifest} manifest
 * @param {(shard: Manifest["shards"][number]) => Uint8Array<ArrayBuffer>} placeOf where a shard's bytes go
 * @param {(event: import("../core/protocol.js").Progress) => void} onProgress
 */
export function fetchShards(source, manifest, placeOf, onProgress) {
  /** @type {import("../storage/shards.js").WeightSink} */
  const sink = {
    slots: source.policy.connections,
    open: async (_, shard) => {
      const target = placeOf(shard);
      return { target, hash: hashWhenWhole(target) };
    },
    place: async () => undefined,
  };
  return fetchWeights(source, manifest, sink, onProgress);
}
