/**
 * @file Shards on their way to the GPU: each is read and checked in a mapped staging buffer, which is then copied
 * to where its weights belong and used again. Two staging buffers take turns, so that one can fill while the other
 * drains; nothing of the weights ever lies in the JavaScript heap.
 */

import { hashWhenWhole } from "../storage/sha256.js";
import { MAP, USAGE } from "./device.js";

const SLOTS = 2;

/**
 * @param {import("./device.js").Gpu} gpu
 * @param {readonly import("./buffers.js").Group[]} groups
 * @param {number} shardBytes of the largest shard
 * @returns {Promise<import("../storage/shards.js").WeightSink & {close: () => void}>} close: once all is placed
 */
export async function weightSink(gpu, groups, shardBytes) {
  const staging = await gpu.attempt(`${SLOTS} staging buffers of ${shardBytes} bytes`, () =>
    Array.from({ length: SLOTS }, (_, slot) =>
      gpu.buffer(`staging ${slot}`, shardBytes, USAGE.MAP_WRITE | USAGE.COPY_SRC, true),
    ),
  );
  /** @type {Promise<void>[]} */
  const mapped = staging.map(() => Promise.resolve());
  return {
    slots: SLOTS,
    open: async (slot, { bytes }) => {
      await gpu.wait(mapped[slot]);
      const target = new Uint8Array(staging[slot].getMappedRange(), 0, bytes);
      return { target, hash: hashWhenWhole(target) };
    },
    place: async (slot, { offset, bytes }) => {
      const buffer = staging[slot];
      buffer.unmap();
      const encoder = gpu.device.createCommandEncoder({ label: "place a shard" });
      for (const group of groups) {
        const start = Math.max(offset, group.start);
        const end = Math.min(offset + bytes, group.end);
        if (start >= end) continue;
        encoder.copyBufferToBuffer(buffer, start - offset, group.buffer, start - group.start, Math.ceil((end - start) / 4) * 4);
      }
      gpu.submit(encoder);
      mapped[slot] = buffer.mapAsync(MAP.WRITE);
      mapped[slot].catch(() => undefined); // told to whoever waits for it
    },
    close: () => staging.forEach((buffer) => gpu.free(buffer)),
  };
}
