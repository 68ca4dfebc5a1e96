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

/** @param {keyof typeof FILES} provider */
function pathsOf(provider) {
  const { library, glue, code } = FILES[provider];
  return { library: `${FOLDER}/${library}`, glue: `${FOLDER}/${glue}`, code: `${FOLDER}/${code}` };
}

/**
 * @param {keyof typeof FILES} provider
 * @param {(loaded: number, total: number) => void} progress bytes; the total is what the server says, or what has come
 * @returns {Promise<Uint8Array<ArrayBuffer>>} WebAssembly
 * @throws {EngineError} network; unsupported where the site has no such file
 */
export async function fetchLibrary(provider, progress) {
  const file = pathsOf(provider).code;
  const response = await within(fetch(place(file)), STALL_MS, STEP, file).catch((error) => {
    throw error instanceof EngineError ? error : new EngineError("network", `${STEP}: ${file}: ${String(error)}`, file, error);
  });
  if (response.status === 404 || response.status === 410) {
    throw new EngineError("unsupported", `this site has no ONNX Runtime (${file}): build it with this model`, "variant");
  }
  if (!response.ok) throw new EngineError("network", `${STEP}: ${file}: the server answers ${response.status}`, file);
  // Of a compressed file it is the compressed length.
  const said = response.headers.has("content-encoding") ? 0 : Number(response.headers.get("content-length"));
  return bytesOf(response, "kernels", STEP, file, (loaded) => progress(loaded, Math.max(said, loaded)));
}

/**
 * @param {keyof typeof FILES} provider
 * @param {Uint8Array<ArrayBuffer>} binary from `fetchLibrary`
 * @param {number} threads
 * @param {GPUPowerPreference} power
 * @returns {Promise<Library>}
 * @throws {EngineError} network
 */
export async function openLibrary(provider, binary, threads, power) {
  const { library, glue, code } = pathsOf(provider);
  const ort = /** @type {Library} */ (await imported(import(place(library).href), STEP, library));
  const { env } = ort;
  env.logLevel = "error";
  env.wasm.numThreads = threads;
  env.wasm.wasmBinary = binary.buffer;
  env.wasm.wasmPaths = { mjs: place(glue).href, wasm: place(code).href };
  if (provider === "webgpu") env.webgpu.powerPreference = power;
  return ort;
}
