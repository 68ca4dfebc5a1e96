/**
 * @file What the engine tests run in the page: engines by name on `globalThis.lab`, with arguments and results that
 * Playwright can carry (plain arrays), and errors as {code, message, field}.
 */

import { EngineClient } from "../../../web/engine/client.js";
import { probe } from "../../../web/engine/core/features.js";
import { forgetAll } from "./forget.js";

/** @type {Map<string, EngineClient>} */
const engines = new Map();

/** @param {string} name */
function engine(name) {
  let client = engines.get(name);
  if (!client) engines.set(name, (client = new EngineClient()));
  return client;
}

/**
 * @param {unknown} value
 * @returns {any} typed arrays as plain arrays, at any depth
 */
function plain(value) {
  if (ArrayBuffer.isView(value)) return Array.from(/** @type {Int32Array} */ (value));
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

/**
 * @param {Record<string, any>} args plain arrays become Int32Array
 * @returns {any}
 */
function typed(args) {
  return Object.fromEntries(
    Object.entries(args).map(([key, item]) => [key, Array.isArray(item) ? Int32Array.from(item) : item]),
  );
}

/**
 * @param {Promise<unknown>} promise
 * @returns {Promise<{value?: any, error?: {code: string, message: string, field: string | null}}>}
 */
async function outcome(promise) {
  try {
    return { value: plain(await promise) };
  } catch (caught) {
    const { code, message, field } = /** @type {import("../../../web/engine/format/errors.js").EngineError} */ (caught);
    return { error: { code: code ?? "untyped", message, field: field ?? null } };
  }
}

async function folder() {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle("inpage-files", { create: true });
}

const lab = {
  /** What this browser can do. */
  features: async () => probe(),
  /** @type {import("../../../web/engine/core/protocol.js").Progress[]} of the last load */
  progress: [],
  /** @returns {Promise<import("../../../web/engine/core/protocol.js").Progress[]>} */
  events: async () => lab.progress,
  /** @type {AbortController | null} of the last load */
  abort: null,

  /** @param {Record<string, any>} options for EngineClient.load, without the manifest @param {string} [name] */
  async load(options, name = "a") {
    const file = options.variant?.startsWith("webgpu") ? "manifest-webgpu.json" : "manifest.json";
    const manifest = options.manifest ?? (await (await fetch(`${options.base}/${file}`)).json());
    lab.progress = [];
    lab.abort = new AbortController();
    return outcome(
      engine(name).load({
        variant: "wasm-simd",
        base: "",
        network: { backoffMs: 1 },
        ...options,
        manifest,
        signal: lab.abort.signal,
        onProgress: (event) => lab.progress.push(event),
      }),
    );
  },
  /** @param {number} pages @param {string} [name] */
  reservePages: (pages, name = "a") => outcome(engine(name).reservePages(pages)),
  /** @param {string[]} names @param {string} [name] */
  chooseKernels: (names, name = "a") => outcome(engine(name).chooseKernels(names)),
  /** @param {import("../../../web/engine/core/protocol.js").KernelTiming} input @param {string} [name] */
  timeKernels: (input, name = "a") => outcome(engine(name).timeKernels(input)),
  /** @param {Record<string, any>} input @param {string} [name] */
  step: (input, name = "a") => outcome(engine(name).step(typed(input))),
  /** @param {Record<string, any>} input @param {string} [name] */
  run: (input, name = "a") => outcome(engine(name).run(typed(input))),
  /** A burst that is listened to. @param {Record<string, any>} input @param {string} [name] */
  async runTold(input, name = "a") {
    /** @type {import("../../../web/engine/core/protocol.js").Slice[]} */
    const slices = [];
    const result = await engine(name).run(/** @type {any} */ (typed({ ...input, tellMs: 1e-3 })), (slice) => slices.push(slice));
    return { ...plain(result), slices: slices.map(plain) };
  },
  /** A burst that is interrupted right after it was asked for. @param {Record<string, any>} input */
  runInterrupted(input) {
    const running = engine("a").run(typed(input));
    engine("a").interrupt();
    return outcome(running);
  },
  /** A call of a store, in a worker of its own. @param {unknown} command see store_worker.js @returns {Promise<any>} */
  store(command) {
    const worker = new Worker(new URL("./store_worker.js", import.meta.url), { type: "module" });
    return new Promise((resolve) => {
      worker.onmessage = ({ data }) => {
        worker.terminate();
        resolve(data);
      };
      worker.postMessage(command);
    });
  },
  /** Break an engine on purpose. @param {"device" | "worker"} what @param {string} [name] */
  async fail(what, name = "a") {
    engine(name).fail(what);
  },
  /** Cancel the load that is under way. */
  cancel: () => lab.abort?.abort(),
  /** Files in OPFS. @returns {Promise<Record<string, number>>} sizes by name */
  async files() {
    /** @type {Record<string, number>} */
    const sizes = {};
    for await (const [name, handle] of (await folder()).entries()) {
      sizes[name] = (await /** @type {FileSystemFileHandle} */ (handle).getFile()).size;
    }
    return sizes;
  },
  /** Keep only the start of a file in OPFS, or overwrite its first bytes. @param {string} name @param {{length?: number, start?: string}} change */
  async tamper(name, { length, start }) {
    const handle = await (await folder()).getFileHandle(name);
    const writable = await handle.createWritable({ keepExistingData: true });
    if (length !== undefined) await writable.truncate(length);
    if (start !== undefined) await writable.write({ type: "write", position: 0, data: start });
    await writable.close();
  },
  /** @param {string} [name] */
  counters: (name = "a") => outcome(engine(name).counters()),
  /** @param {string} [name] */
  unload: (name = "a") => outcome(engine(name).unload()),
  /** For the next test: no engine, nothing stored. */
  async clear() {
    for (const each of engines.values()) await each.unload();
    engines.clear();
    await forgetAll();
  },
};

Object.assign(globalThis, { lab });
/** @typedef {typeof lab} Lab */
