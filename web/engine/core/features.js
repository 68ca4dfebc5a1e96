/**
 * @file What this browser can do that matters to an engine. Each WebAssembly feature is probed by validating a tiny
 * module that uses it: neither user agent strings nor the mere presence of an object tell (without isolation a shared
 * WebAssembly.Memory can still be created).
 */

import { siteData } from "../host/site_data.js";

/**
 * @typedef {object} Features
 * @property {string[]} wasm of "simd128", "relaxed-simd", "atomics"; the names that variants `require`
 * @property {boolean} isolated crossOriginIsolated: memory can be shared between workers
 * @property {boolean} threads compute threads are possible: atomics and isolation
 * @property {number} cores hardwareConcurrency, at least 1
 * @property {number | null} deviceMemory GiB as the browser rounds them, null where it does not tell
 * @property {{opfs: boolean, idb: boolean, locks: boolean}} storage
 * @property {boolean} webgpu navigator.gpu is there (says nothing of an adapter)
 * @typedef {Partial<NavigatorConcurrentHardware> & {deviceMemory?: number}} Device
 */

const HEADER = [0, 97, 115, 109, 1, 0, 0, 0];

/** Modules of one function `() -> v128` or with a shared memory, as bytes after the header. */
const MODULES = {
  // type () -> v128; body: i32.const 0, i8x16.splat
  simd128: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11],
  // body: three splats, i32x4.relaxed_dot_i8x16_i7x16_add_s (0xfd 0x113)
  "relaxed-simd": [
    1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15, 253, 147, 2, 11,
  ],
  // a shared memory and i32.atomic.load
  atomics: [1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 10, 1, 8, 0, 65, 0, 254, 16, 2, 0, 11],
};

/**
 * @param {readonly number[]} body
 * @returns {boolean}
 */
function validates(body) {
  return typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.from([...HEADER, ...body]));
}

/**
 * Works on the main thread and in workers.
 * @returns {Features}
 */
export function probe() {
  const wasm = Object.entries(MODULES)
    .filter(([, body]) => validates(body))
    .map(([name]) => name);
  const isolated = globalThis.crossOriginIsolated === true;
  const device = /** @type {Device} */ (/** @type {unknown} */ (globalThis.navigator));
  return {
    wasm,
    isolated,
    threads: isolated && wasm.includes("atomics"),
    cores: Math.max(1, device.hardwareConcurrency || 1),
    deviceMemory: device.deviceMemory ?? null,
    storage: siteData(),
    webgpu: "gpu" in device,
  };
}
