/**
 * @file kernels.wasm: verified bytes into a module, and a module and a memory into an instance that exports what the
 * engine and its compute threads call.
 */

import { ABI_VERSION, EXPORTED_FUNCTIONS } from "../format/abi.js";
import { EngineError, invalidArtifact } from "../format/errors.js";

/**
 * @param {Uint8Array<ArrayBuffer>} kernels
 * @returns {Promise<WebAssembly.Module>}
 */
export async function compile(kernels) {
  try {
    return await WebAssembly.compile(kernels);
  } catch (error) {
    throw new EngineError("unsupported", `this browser cannot compile the kernels: ${String(error)}`, "kernels", error);
  }
}

/**
 * @param {WebAssembly.Module} module
 * @param {WebAssembly.Memory} memory
 * @returns {Promise<import("../format/abi.js").KernelExports>}
 */
export async function instantiate(module, memory) {
  let instance;
  try {
    instance = await WebAssembly.instantiate(module, { env: { memory } });
  } catch (error) {
    throw new EngineError("artifact_invalid", `kernels.wasm: ${String(error)}`, "kernels", error);
  }
  /** @param {string} name */
  const check = (name) => {
    if (typeof instance.exports[name] !== "function") throw invalidArtifact(`exports no ${name}`, "kernels.wasm");
  };
  check("inpage_abi_version");
  const exports = /** @type {import("../format/abi.js").KernelExports} */ (/** @type {unknown} */ (instance.exports));
  // Before all else: what an earlier version lacks would not say that the model is to be compiled again.
  const version = exports.inpage_abi_version();
  if (version !== ABI_VERSION) {
    throw invalidArtifact(`is of another version (ABI ${version}, not ${ABI_VERSION}): compile the model again`, "kernels.wasm");
  }
  EXPORTED_FUNCTIONS.forEach(check);
  for (const name of ["__heap_base", "__stack_pointer"]) {
    if (!(instance.exports[name] instanceof WebAssembly.Global)) throw invalidArtifact(`exports no ${name}`, "kernels.wasm");
  }
  return exports;
}
