/**
 * @file Pyodide's start, without its silences: it waits for ever for what does not come, and only warns where WebAssembly
 * is refused. Its files are fetched and compiled here, before it asks for them: beside whatever its memory comes from.
 */

import { loadPyodide } from "../vendor/pyodide/pyodide.js";
import { EngineError } from "../engine/format/errors.js";
import { place } from "../engine/host/places.js";
import { bytesOf, imported, Patience, STALL_MS, within } from "../engine/host/waits.js";

const STEP = "starting Python";
/** From the last file to Python that runs. */
const BEGIN_MS = 60_000;
/** Code of an earlier visit is there before that. */
const SOON_MS = 1000;
/** Bytes in which WebAssembly's memory grows. */
const PAGE = 65_536;
const FOLDER = "vendor/pyodide/";
/** Pyodide names its files by a folder's URL; bundlers scatter them. */
const INDEX = new URL(`/${FOLDER}`, globalThis.location.origin).href;
const LIBRARY = "python_stdlib.zip";
const WASM = "application/wasm";
const NOTHING = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/**
 * Pyodide's files, under way.
 * @typedef {object} Files
 * @property {Promise<{default: unknown}>} script
 * @property {Promise<WebAssembly.Module>} binary
 * @property {Promise<ArrayBuffer>} library Python's own modules, a zip
 * @property {Promise<{bytes: number, ms: number}>} line what the library came with
 * @property {Promise<unknown>} come settled when all have come, or one does not
 */

/** @type {Files | undefined} */
let files;

/**
 * Fetch and compile what a start needs, once for all starts of this worker. What fails is told by `load`.
 * @returns {Files}
 */
export function prepare() {
  if (files) return files;
  const script = imported(import(place(`${FOLDER}pyodide.asm.js`).href), STEP, "pyodide.asm.js");
  const binary = compiled("pyodide.asm.wasm");
  const began = performance.now();
  const library = fetched(LIBRARY).then((response) => whole(response, LIBRARY));
  const line = library.then(({ byteLength: bytes }) => ({ bytes, ms: performance.now() - began }));
  files = { script, binary, library, line, come: Promise.allSettled([script, binary, library]) };
  for (const file of Object.values(files)) file.catch(() => undefined);
  return files;
}

/**
 * @param {{_makeSnapshot?: boolean, _loadSnapshot?: Uint8Array}} options of loadPyodide, which its types do not have
 * @returns {ReturnType<typeof loadPyodide>}
 * @throws {EngineError} network, unsupported
 */
export async function load(options) {
  allowed();
  const { script, binary, library } = prepare();
  const { default: createPyodideModule } = await script;
  const { fetch } = globalThis;
  const { instantiateStreaming } = WebAssembly;
  /** @type {(error: EngineError) => void} */
  let fail = () => {};
  /** @type {Promise<never>} */
  const failed = new Promise((_, reject) => (fail = reject));
  /** @type {Promise<unknown>[]} */
  const needed = [binary, library];
  for (const file of needed) file.catch(fail);
  globalThis.fetch = (input, init) => {
    const url = String(input instanceof Request ? input.url : input);
    if (!url.startsWith(INDEX)) return fetch(input, init);
    const name = url.slice(INDEX.length);
    if (name === "pyodide.asm.wasm") return Promise.resolve(new Response()); // the module is there without
    const bytes = name === LIBRARY ? library : fetched(name, fetch).then((response) => whole(response, name));
    bytes.catch(fail);
    needed.push(bytes);
    return bytes.then((body) => new Response(body));
  };
  WebAssembly.instantiateStreaming = async (_, imports) => {
    const module = await binary;
    try {
      const instance = await WebAssembly.instantiate(module, imports);
      if (options._loadSnapshot) makeRoom(instance, options._loadSnapshot.length);
      return { module, instance };
    } catch (error) {
      fail(refused(error));
      throw error;
    }
  };
  try {
    const python = loadPyodide(/** @type {Parameters<typeof loadPyodide>[0]} */ ({ indexURL: INDEX, createPyodideModule, ...options }));
    python.catch(() => undefined); // where another failure came first
    const begun = Promise.all(needed).then(() => within(python, BEGIN_MS, STEP, "pyodide.asm.wasm"));
    return await Promise.race([begun, failed]);
  } finally {
    Object.assign(globalThis, { fetch });
    Object.assign(WebAssembly, { instantiateStreaming });
  }
}

/**
 * Only with its own response does the browser use the code that it compiled on an earlier visit: without it Python starts
 * a second later. So that is compiled, and a copy, read only where it takes long, shows whether bytes arrive.
 * @param {string} file
 * @returns {Promise<WebAssembly.Module>}
 */
async function compiled(file) {
  const response = await fetched(file);
  const type = response.headers.get("Content-Type") ?? "";
  if (type.toLowerCase() !== WASM) {
    const body = await whole(response, file);
    return WebAssembly.compile(body).catch((error) => Promise.reject(refused(error)));
  }
  const copy = response.clone();
  const module = WebAssembly.compileStreaming(response);
  /** @type {Promise<unknown> | undefined} */
  let reading;
  const read = () => (reading ??= bytesOf(copy, "python", STEP, file)); // fails where it is cut off, or no bytes arrive
  if (!(await soon(module))) await read();
  try {
    const made = await within(module, BEGIN_MS, STEP, file);
    if (!reading) void copy.body?.cancel();
    return made;
  } catch (error) {
    if (error instanceof EngineError) throw error;
    await read();
    throw refused(error);
  }
}

/** @param {Promise<unknown>} promise @returns {Promise<boolean>} whether it settles before it is to be looked after */
function soon(promise) {
  return new Promise((resolve) => {
    const patience = new Patience(SOON_MS, () => resolve(false));
    const settled = () => {
      patience.end();
      resolve(true);
    };
    promise.then(settled, settled);
  });
}

/**
 * Pyodide copies a memory that was kept into the one that is there, which is as large as in the beginning.
 * @param {WebAssembly.Instance} instance
 * @param {number} bytes
 */
function makeRoom(instance, bytes) {
  const memory = Object.values(instance.exports).find((item) => item instanceof WebAssembly.Memory);
  const missing = bytes - (memory?.buffer.byteLength ?? bytes);
  if (missing > 0) memory?.grow(Math.ceil(missing / PAGE));
}

/** @param {unknown} error @returns {EngineError} */
function refused(error) {
  return new EngineError("unsupported", `${STEP}: pyodide.asm.wasm does not run here: ${String(error)}`, "pyodide.asm.wasm", error);
}

/** @param {string} file @param {typeof globalThis.fetch} [fetch] the browser's own @returns {Promise<Response>} */
async function fetched(file, fetch = globalThis.fetch) {
  let response;
  try {
    response = await within(fetch(place(FOLDER + file)), STALL_MS, STEP, file);
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${STEP}: ${file}: ${String(error)}`, file, error);
  }
  if (!response.ok) throw new EngineError("network", `${STEP}: ${file}: HTTP ${response.status}`, file);
  return response;
}

/** @param {Response} response @param {string} file @returns {Promise<ArrayBuffer>} */
async function whole(response, file) {
  return (await bytesOf(response, "python", STEP, file)).buffer;
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
