/**
 * @file web-llm's own code: loaded when a model needs it, from the site. It keeps what it fetches in the browser's Cache API
 * and takes whatever device it gets; here it finds there what the artifact has, verified, and gets the adapter that was
 * checked.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { place } from "../host/places.js";
import { imported, STALL_MS, within } from "../host/waits.js";
import { openedGpu } from "../webgpu/device.js";

/**
 * @typedef {typeof import("@mlc-ai/web-llm")} Library
 * @typedef {(() => Uint8Array<ArrayBuffer>)} Read gives a file's bytes
 */

const FILE = "vendor/webllm/web-llm.js";
const STEP = "loading web-llm";

/**
 * @returns {Promise<Library>}
 * @throws {EngineError} network; unsupported where the site has no such file
 */
export async function openLibrary() {
  try {
    return await imported(import(place(FILE).href), STEP, FILE);
  } catch (error) {
    const response = await within(fetch(place(FILE), { method: "HEAD" }), STALL_MS, STEP, FILE).catch(() => null);
    if (response?.status !== 404 && response?.status !== 410) throw error;
    throw new EngineError("unsupported", `this site has no web-llm (${FILE}): build it with this model`, "variant", error);
  }
}

/**
 * In place of this worker's Cache API, in which web-llm looks for all that it loads and keeps what it fetched: so that it finds
 * everything and fetches nothing, and nothing lies in storage twice.
 * @param {Map<string, Read>} files by URL
 * @param {AbortSignal} signal
 */
export function offerFiles(files, signal) {
  const cache = {
    /** @param {Request} request */
    match: async ({ url }) => {
      signal.throwIfAborted();
      const read = files.get(url);
      if (!read) throw invalidArtifact(`has no ${url}, for which web-llm asks`, "mlc.files");
      // It looks each file up before it reads it: read only then.
      const pull = (/** @type {ReadableStreamDefaultController} */ controller) => {
        controller.enqueue(read());
        controller.close();
      };
      return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }));
    },
    keys: async () => [...files.keys()].map((url) => new Request(url)),
  };
  Object.defineProperty(globalThis, "caches", { value: { open: async () => cache }, configurable: true });
}

/**
 * Every request for an adapter in this worker gets this one, so that its device can be watched.
 * @param {GPUAdapter} adapter
 * @param {import("../core/protocol.js").AdapterFacts} facts
 * @returns {{gpu: import("../webgpu/device.js").Gpu | null}} the device, once it is opened
 */
export function offerAdapter(adapter, facts) {
  /** @type {{gpu: import("../webgpu/device.js").Gpu | null}} */
  const opened = { gpu: null };
  const open = adapter.requestDevice.bind(adapter);
  const requestDevice = async (/** @type {GPUDeviceDescriptor} */ descriptor) => {
    opened.gpu = await openedGpu(open(descriptor), facts);
    return opened.gpu.device;
  };
  Object.defineProperty(adapter, "requestDevice", { value: requestDevice });
  Object.defineProperty(navigator.gpu, "requestAdapter", { value: async () => adapter, configurable: true });
  return opened;
}
