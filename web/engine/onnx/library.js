/**
 * @file ONNX Runtime's own code: loaded when a model needs it, from the site. One worker has one copy, with one provider.
 */

import { EngineError } from "../format/errors.js";
import { place } from "../host/places.js";
import { bytesOf, imported, STALL_MS, within } from "../host/waits.js";

/** @typedef {typeof import("onnxruntime-web")} Library */

const FOLDER = "vendor/onnxruntime";
/** Without WebGPU it is half as large. */
const FILES = Object.freeze({
  wasm: { library: "ort.wasm.js", glue: "ort-wasm-simd-threaded.js", code: "ort-wasm-simd-threaded.wasm" },
  webgpu: { library: "ort.webgpu.js", glue: "ort-wasm-simd-threaded.asyncify.js", code: "ort-wasm-simd-threaded.asyncify.wasm" },
});
const STEP = "loading ONNX Runtime";

/**
 * @param {keyof typeof FILES} provider
 * @param {number} threads
 * @param {GPUPowerPreference} power
 * @returns {Promise<Library>}
 * @throws {EngineError} network; unsupported where the site has no such files
 */
export async function openLibrary(provider, threads, power) {
  const [library, glue, code] = [FILES[provider].library, FILES[provider].glue, FILES[provider].code].map((file) => `${FOLDER}/${file}`);
  const importing = imported(import(place(library).href), STEP, library);
  importing.catch(() => undefined); // of a file that is not there, the other's error says more
  const binary = await fetched(code);
  const ort = await importing;
  const { env } = /** @type {Library} */ (ort);
  env.logLevel = "error";
  env.wasm.numThreads = threads;
  env.wasm.wasmBinary = binary.buffer;
  env.wasm.wasmPaths = { mjs: place(glue).href, wasm: place(code).href };
  if (provider === "webgpu") env.webgpu.powerPreference = power;
  return ort;
}

/** @param {string} file @returns {Promise<Uint8Array<ArrayBuffer>>} */
async function fetched(file) {
  const response = await within(fetch(place(file)), STALL_MS, STEP, file).catch((error) => {
    throw error instanceof EngineError ? error : new EngineError("network", `${STEP}: ${file}: ${String(error)}`, file, error);
  });
  if (response.status === 404 || response.status === 410) {
    throw new EngineError("unsupported", `this site has no ONNX Runtime (${file}): build it with this model`, "variant");
  }
  if (!response.ok) throw new EngineError("network", `${STEP}: ${file}: the server answers ${response.status}`, file);
  return bytesOf(response, "kernels", STEP, file);
}
