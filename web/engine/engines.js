/**
 * @file Which engines the page has: a line each. An engine is a folder whose load.js exports `requireSupport` and `load`
 * (see load.js here); its code is fetched only where it is used. What it can do, py/inpage/engines/registry.py says.
 */

import { EngineError } from "./format/errors.js";
import { imported } from "./host/waits.js";

/**
 * @typedef {object} EngineCode
 * @property {(variant: import("./format/manifest.js").Variant, features: import("./core/features.js").Features, power?:
 *   GPUPowerPreference) => void | Promise<void>} requireSupport throws what this browser lacks, before anything is fetched
 * @property {(job: import("./load.js").Job) => Promise<import("./load.js").Made>} load
 * @property {(manifest: import("./format/manifest.js").Manifest, source: import("./storage/shards.js").Source, onProgress: (event:
 *   import("./core/protocol.js").Progress) => void) => Promise<import("./load.js").Code>} [fetchCode] where it replays no plan
 */

/** By what a manifest's variant says as `backend`. @type {Record<string, () => Promise<EngineCode>>} */
const ENGINES = {
  wasm: () => import("./wasm/load.js"),
  webgpu: () => import("./webgpu/load.js"),
  onnx: () => import("./onnx/load.js"),
  "onnx-webgpu": () => import("./onnx/load.js"),
  mlc: () => import("./mlc/load.js"),
};

/**
 * @param {import("./format/manifest.js").Variant} variant
 * @returns {Promise<EngineCode>}
 * @throws {EngineError} unsupported, network
 */
export async function engineCode({ name, backend }) {
  if (!Object.hasOwn(ENGINES, backend)) {
    throw new EngineError("unsupported", `variant ${name} is for backend ${backend}; the page has ${Object.keys(ENGINES).join(", ")}`, "variant");
  }
  return imported(ENGINES[backend](), "loading the engine", `engine/${backend}/load.js`);
}
