/** @file MLC's files as slices of the weight space, whose shards are given back as they are read. */

import { invalidArtifact } from "../format/errors.js";
import { allocated } from "../sequential/memory.js";

export class Shards {
  /** By offset, in order. @type {Map<number, Uint8Array<ArrayBuffer>>} */
  #held = new Map();

  /** Room for a shard. @param {{offset: number, bytes: number}} shard @returns {Uint8Array<ArrayBuffer>} */
  hold({ offset, bytes }) {
    const target = allocated(bytes);
    this.#held.set(offset, target);
    return target;
  }

  /**
   * Once, and files in the order in which they lie: what lies before the end of this one is given back.
   * @param {{path: string, offset: number, bytes: number}} file
   * @returns {Uint8Array<ArrayBuffer>}
   */
  take({ path, offset, bytes }) {
    const out = allocated(bytes);
    let filled = 0;
    for (const [at, shard] of this.#held) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + bytes, at + shard.length);
      if (from < to) {
        out.set(shard.subarray(from - at, to - at), from - offset);
        filled += to - from;
      }
      if (at + shard.length <= offset + bytes) this.#held.delete(at);
    }
    if (filled < bytes) throw invalidArtifact(`${path} was read before`, "mlc.files");
    return out;
  }
}
