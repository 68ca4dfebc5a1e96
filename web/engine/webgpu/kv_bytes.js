/**
 * @file KV pages as bytes: from the GPU, and back. A page is what every layer's buffer holds of it, in the plan's order.
 */

import { checkLength, checkPages } from "../core/kv_pages.js";
import { MAP, USAGE } from "./device.js";

/**
 * @typedef {import("./device.js").Gpu} Gpu
 * @typedef {{buffer: GPUBuffer, pageBytes: number}} Layer
 */

/** @param {Layer[]} layers */
function widthOf(layers) {
  return layers.reduce((sum, { pageBytes }) => sum + pageBytes, 0);
}

/**
 * @param {Gpu} gpu
 * @param {Layer[]} layers
 * @param {Int32Array} pages
 * @param {number} usable
 * @returns {Promise<Uint8Array<ArrayBuffer>>} a copy, the pages one behind the other
 */
export async function readPages(gpu, layers, pages, usable) {
  checkPages(pages, usable);
  const bytes = pages.length * widthOf(layers);
  if (bytes === 0) return new Uint8Array(0);
  const staging = await gpu.attempt(`${bytes} bytes of KV pages`, () =>
    gpu.buffer("KV pages", bytes, USAGE.MAP_READ | USAGE.COPY_DST),
  );
  try {
    const encoder = gpu.device.createCommandEncoder({ label: "read KV pages" });
    let at = 0;
    for (const page of pages) {
      for (const { buffer, pageBytes } of layers) {
        encoder.copyBufferToBuffer(buffer, page * pageBytes, staging, at, pageBytes);
        at += pageBytes;
      }
    }
    gpu.submit(encoder);
    await gpu.wait(staging.mapAsync(MAP.READ, 0, bytes));
    return new Uint8Array(staging.getMappedRange(0, bytes)).slice();
  } finally {
    gpu.free(staging);
  }
}

/**
 * @param {Gpu} gpu
 * @param {Layer[]} layers
 * @param {Int32Array} pages
 * @param {Uint8Array<ArrayBuffer>} data
 * @param {number} usable
 */
export function writePages(gpu, layers, pages, data, usable) {
  checkPages(pages, usable);
  checkLength(data, pages.length * widthOf(layers));
  let at = 0;
  for (const page of pages) {
    for (const { buffer, pageBytes } of layers) {
      gpu.device.queue.writeBuffer(buffer, page * pageBytes, data, at, pageBytes);
      at += pageBytes;
    }
  }
}
