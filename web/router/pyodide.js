/**
 * @file Pyodide's start, without its silences: it waits for ever for what does not come, and only warns where WebAssembly
 * is refused. Its own fetches go through here; where the host calls the binary something else than `application/wasm`, it
 * is passed on as that.
 */

import { loadPyodide } from "../vendor/pyodide/pyodide.js";
import { EngineError } from "../engine/format/errors.js";
import { place } from "../engine/host/places.js";
import { bytesOf, imported, STALL_MS, within } from "../engine/host/waits.js";

const STEP = "starting Python";
/** From the last file to Python that runs. */
const BEGIN_MS = 60_000;
const FOLDER = "vendor/pyodide/";
/** Pyodide names its files by a folder's URL; bundlers scatter them. */
const INDEX = new URL(`/${FOLDER}`, globalThis.location.origin).href;
const WASM = "application/wasm";
const NOTHING = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/**
 * @param {object} options of loadPyodide, those that its types do not have included
 * @returns {ReturnType<typeof loadPyodide>}
 * @throws {EngineError} network, unsupported
 */
export async function load(options) {
  allowed();
  const { default: createPyodideModule } = await imported(import(place(`${FOLDER}pyodide.asm.js`).href), STEP, "pyodide.asm.js");
  const { fetch } = globalThis;
  const { instantiateStreaming } = WebAssembly;
  /** @type {(error: EngineError) => void} */
  let fail = () => {};
  /** @type {Promise<never>} */
  const failed = new Promise((_, reject) => (fail = reject));
  /** @type {Promise<unknown>[]} */
  const files = [];
  /** @param {Promise<unknown>} file that the start waits for */
  const watch = (file) => {
    file.catch(fail);
    files.push(file);
  };
  globalThis.fetch = (input, init) => {
    const url = String(input instanceof Request ? input.url : input);
    if (!url.startsWith(INDEX)) return fetch(input, init);
    const name = url.slice(INDEX.length);
    const file = fetched(fetch(place(FOLDER + name), init), name, watch);
    watch(file);
    return file;
  };
  WebAssembly.instantiateStreaming = async (source, imports) => {
    try {
      return await instantiateStreaming.call(WebAssembly, source, imports);
    } catch (error) {
      await Promise.allSettled(files); // one that was cut off has failed by itself
      fail(new EngineError("unsupported", `${STEP}: pyodide.asm.wasm does not run here: ${String(error)}`, "pyodide.asm.wasm", error));
      throw error;
    }
  };
  try {
    const python = loadPyodide({ indexURL: INDEX, createPyodideModule, ...options });
    python.catch(() => undefined); // where another failure came first
    const begun = Promise.all(files).then(() => within(python, BEGIN_MS, STEP, "pyodide.asm.wasm"));
    return await Promise.race([begun, failed]);
  } finally {
    Object.assign(globalThis, { fetch });
    Object.assign(WebAssembly, { instantiateStreaming });
  }
}

/**
 * @param {Promise<Response>} asked
 * @param {string} file
 * @param {(bytes: Promise<unknown>) => void} watch
 * @returns {Promise<Response>}
 */
async function fetched(asked, file, watch) {
  let response;
  try {
    response = await within(asked, STALL_MS, STEP, file);
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${STEP}: ${file}: ${String(error)}`, file, error);
  }
  if (!response.ok) throw new EngineError("network", `${STEP}: ${file}: HTTP ${response.status}`, file);
  const binary = file.endsWith(".wasm");
  const type = response.headers.get("Content-Type") ?? "";
  if (binary && type.toLowerCase() === WASM) {
    // Only with its own response does the browser use the code that it compiled on an earlier visit: without it Python
    // starts a second later. A copy shows whether bytes arrive.
    watch(bytesOf(response.clone(), "python", STEP, file));
    return response;
  }
  return new Response(await bytesOf(response, "python", STEP, file), { headers: { "Content-Type": binary ? WASM : type } });
}

/** Whether the page's policy lets WebAssembly compile. */
function allowed() {
  try {
    new WebAssembly.Module(NOTHING);
  } catch (error) {
    throw new EngineError(
      "unsupported",
      `${STEP}: WebAssembly is refused (${String(error)}): the header Content-Security-Policy of router/worker.js needs 'wasm-unsafe-eval' in script-src`,
      "Content-Security-Policy",
      error,
    );
  }
}
