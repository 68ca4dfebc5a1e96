/**
 * @file What this browser has beyond WebAssembly (engine/core/features.js): the WebGPU adapter and memory. Asking for
 * an adapter allocates nothing; a browser that does not answer within some seconds counts as having none.
 */

import { matrixUnits } from "../engine/core/matrix_units.js";

/** Names of the interfaces that compute on the CPU. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|warp|basic render|software/i;
const ANSWER_MS = 5000;

/**
 * @typedef {object} Adapter
 * @property {string} vendor
 * @property {string} architecture
 * @property {string} device
 * @property {string} description
 * @property {boolean} software computes on the CPU
 * @property {string[]} features and what matrix units multiply
 * @property {string[]} language WGSL's features, which are the browser's
 * @property {Record<string, number>} limits
 * @typedef {{adapter: Adapter | null, reason: string}} Found reason: why there is none
 *
 * @typedef {object} Gpu the part of navigator.gpu that is used here
 * @property {(options?: object) => Promise<any>} requestAdapter
 * @property {Iterable<string>} [wgslLanguageFeatures]
 */

/**
 * @param {GPUPowerPreference} powerPreference
 * @returns {Promise<Found>}
 */
export async function probeAdapter(powerPreference) {
  const gpu = /** @type {Gpu | undefined} */ (/** @type {any} */ (globalThis.navigator).gpu);
  if (!gpu) return { adapter: null, reason: "this browser has no WebGPU" };
  try {
    const found = await Promise.race([gpu.requestAdapter({ powerPreference }), silence()]);
    if (!found) return { adapter: null, reason: "WebGPU finds no adapter on this device" };
    return { adapter: describe(found, gpu), reason: "" };
  } catch (error) {
    return { adapter: null, reason: `WebGPU failed: ${String(error)}` };
  }
}

/** @param {any} found a GPUAdapter @param {Gpu} gpu @returns {Adapter} */
function describe(found, gpu) {
  const { vendor = "", architecture = "", device = "", description = "", isFallbackAdapter } = found.info ?? {};
  const fallback = isFallbackAdapter ?? found.isFallbackAdapter ?? false;
  /** @type {Record<string, number>} */
  const limits = {};
  for (const name in found.limits) if (typeof found.limits[name] === "number") limits[name] = found.limits[name];
  return {
    vendor, architecture, device, description, limits,
    software: fallback || SOFTWARE.test(`${vendor} ${architecture} ${device} ${description}`),
    features: [...Array.from(found.features ?? [], String), ...matrixUnits(found.info ?? {})].sort(),
    language: Array.from(gpu.wgslLanguageFeatures ?? [], String).sort(),
  };
}

/** @returns {Promise<never>} */
function silence() {
  return new Promise((_, reject) => setTimeout(() => reject(new Error("no answer")), ANSWER_MS));
}

/**
 * The largest memory of WebAssembly that may be declared here, in bytes. It is only declared, never touched.
 * @param {boolean} shared
 * @returns {number}
 */
export function probeMemory(shared) {
  for (let pages = 65536; pages >= 1024; pages /= 2) {
    try {
      return new WebAssembly.Memory({ initial: 1, maximum: pages, shared }).buffer.byteLength ? pages * 65536 : 0;
    } catch {
      // Less may be had.
    }
  }
  return 0;
}
