/**
 * @file KV pages as bytes: out of a WASM engine's memory, and back in. What they mean is the kernels' business.
 */

import { checkLength, checkPages } from "../core/kv_pages.js";

/**
 * @typedef {object} Holder an executor whose pages lie one behind the other
 * @property {WebAssembly.Memory} memory
 * @property {number} pages that are usable
 * @property {{kv: number}} layout
 * @property {{pageBytes: number}} plan
 */

/**
 * @param {Holder} holder
 * @param {Int32Array} pages
 * @returns {Uint8Array<ArrayBuffer>} a copy, the pages one behind the other
 */
export function readPages({ memory, pages: usable, layout, plan: { pageBytes } }, pages) {
  checkPages(pages, usable);
  const memoryBytes = new Uint8Array(memory.buffer);
  const data = new Uint8Array(pages.length * pageBytes);
  pages.forEach((page, i) => {
    const at = layout.kv + page * pageBytes;
    data.set(memoryBytes.subarray(at, at + pageBytes), i * pageBytes);
  });
  return data;
}

/**
 * @param {Holder} holder
 * @param {Int32Array} pages
 * @param {Uint8Array} data
 */
export function writePages({ memory, pages: usable, layout, plan: { pageBytes } }, pages, data) {
  checkPages(pages, usable);
  checkLength(data, pages.length * pageBytes);
  const memoryBytes = new Uint8Array(memory.buffer);
  pages.forEach((page, i) => {
    memoryBytes.set(data.subarray(i * pageBytes, (i + 1) * pageBytes), layout.kv + page * pageBytes);
  });
}
