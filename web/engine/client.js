/**
 * @file EngineClient: an engine worker as an object with promises. Works on the main thread and in workers.
 *
 * However a worker dies — an error, a fault in a compute thread, the browser ending it without a word — every pending
 * call rejects with code device_lost, and the next load starts a fresh worker.
 */

import { BegunLoad } from "./begun.js";
import { EngineError, fromWire } from "./format/errors.js";
import { GrammarWorkers } from "./grammar/grammars.js";
import { place } from "./host/places.js";
import { startWorker } from "./host/workers.js";
import { prefetched } from "./storage/prefetch.js";

/**
 * @typedef {import("./core/protocol.js").LoadOptions} LoadOptions
 * @typedef {import("./core/protocol.js").Info} Info
 * @typedef {import("./core/protocol.js").Progress} Progress
 * @typedef {object} Pending
 * @property {string} method
 * @property {(value: any) => void} resolve
 * @property {(error: EngineError) => void} reject
 * @property {(event: Progress) => void} [onProgress]
 * @property {(slice: import("./core/protocol.js").Slice) => void} [onSlice]
 */

export class EngineClient {
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #nextId = 1;
  /** @type {Int32Array | null} the runtime's doorbell, where memory can be shared with this thread */
  #doorbell = null;
  /** @type {Int32Array | null} the worker's: id of the burst that is to end */
  #bell = null;
  #endWorker = () => {};
  /** @type {MessagePort[]} */
  #faults = [];
  /** @type {EngineError | null} why the engine is gone, until the next load or unload */
  #lost = null;
  /** @type {GrammarWorkers | null} of the loaded model */
  #grammars = null;
  /** Whether the worker was started before there was anything to load. */
  #warm = false;
  /** @type {BegunLoad | null} */
  #begun = null;
  #workerUrl;
  /** @type {Info | null} of the loaded model */
  info = null;
  /** Milliseconds that the engine spent in steps and bursts. */
  busyMs = 0;

  /** @param {{workerUrl?: string | URL}} [options] */
  constructor({ workerUrl } = {}) {
    this.#workerUrl = workerUrl ?? place("engine/worker.js");
  }

  /** Start the worker for a load that is to come. */
  warm() {
    this.#start();
    this.#warm = true;
  }

  /**
   * Load what is likely to be asked for next: `load` goes on with it, if it is, and starts anew, if it is not.
   * @param {LoadOptions} options
   */
  begin(options) {
    this.#begun = new BegunLoad(options, (onProgress) => this.#load({ ...options, onProgress }));
  }

  /**
   * Load a model, in place of the one loaded before. A failed load leaves nothing behind.
   * @param {LoadOptions & {onProgress?: (event: Progress) => void, signal?: AbortSignal}} options
   * @returns {Promise<Info>}
   * @throws {EngineError} artifact_invalid, unsupported, out_of_memory, network, cancelled, device_lost, invalid_request
   */
  load({ onProgress, signal, ...options }) {
    const begun = this.#begun;
    this.#begun = null;
    if (!begun?.is(options)) return this.#load({ onProgress, signal, ...options });
    const cancel = () => this.#end(new EngineError("cancelled", "the load was cancelled"));
    if (signal?.aborted) cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    const taken = begun.takeOver(options, onProgress).finally(() => signal?.removeEventListener("abort", cancel));
    return taken.then((info) => info ?? this.#load({ onProgress, signal, ...options }));
  }

  /** @param {Parameters<EngineClient["load"]>[0]} options @returns {Promise<Info>} */
  async #load({ onProgress, signal, ...options }) {
    const warm = this.#warm;
    this.#warm = false;
    if (!warm) this.#end(new EngineError("cancelled", "another load took its place"));
    if (signal?.aborted) throw new EngineError("cancelled", "the load was cancelled");
    if (!this.#worker) this.#start();
    const worker = this.#worker;
    const id = this.#nextId;
    const cancel = () => worker?.postMessage({ cancel: id });
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      /** @type {import("./core/protocol.js").Loaded} */
      const { info, doorbell } = await this.#call("load", { options: { ...options, fetched: prefetched() } }, { onProgress });
      if (doorbell) {
        this.#doorbell = new Int32Array(doorbell.buffer, doorbell.offset, 1);
        this.#bell = new Int32Array(doorbell.bell);
      }
      this.info = info;
      const { base, manifest, cache, network } = options;
      const opening = { base, manifest, cache, network, vocab: info.vocab, most: 2 * info.max_sequences };
      this.#grammars = new GrammarWorkers(opening, (message, transfer) => worker?.postMessage(message, transfer));
      return info;
    } catch (error) {
      if (this.#worker === worker) this.#end(new EngineError("cancelled", "the load failed"));
      throw error;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /**
   * Make KV page indices 0..pages-1 usable.
   * @param {number} pages
   * @returns {Promise<void>}
   * @throws {EngineError} out_of_memory where that many cannot be had
   */
  reservePages(pages) {
    return this.#call("reservePages", pages);
  }

  /**
   * The bytes of KV pages, one behind the other. The same engine takes them back with `writePages`.
   * @param {{pages: Int32Array}} input
   * @returns {Promise<Uint8Array<ArrayBuffer>>} [pages * page_bytes]
   */
  readPages(input) {
    return this.#call("readPages", input);
  }

  /**
   * @param {{pages: Int32Array, data: Uint8Array}} input
   * @returns {Promise<void>}
   */
  writePages(input) {
    return this.#call("writePages", input);
  }

  /**
   * Compile a grammar, in a worker of its own, so that the answers held to it cost no step anything. Not needed, but
   * a grammar that was not made ready is compiled in the step that first needs it.
   * @param {Pick<import("./core/protocol.js").Constraint, "kind" | "source">} grammar
   * @returns {Promise<void>}
   * @throws {EngineError} invalid_request: it is none; unsupported, network, device_lost
   */
  prepare(grammar) {
    if (this.#grammars) return this.#grammars.prepare(grammar);
    return Promise.reject(this.#lost ?? new EngineError("device_lost", "prepare: no model is loaded"));
  }

  /**
   * One forward pass.
   * @param {import("./core/protocol.js").StepInput} input
   * @returns {Promise<import("./core/protocol.js").StepResult>}
   */
  step(input) {
    return this.#call("step", this.#grammars?.placed(input, false) ?? input);
  }

  /**
   * Decode a burst; fewer steps than asked are done when all finished, when interrupted, or (not isolated, and without
   * `tellMs`) after 20 ms.
   * @param {import("./core/protocol.js").RunInput} input
   * @param {(slice: import("./core/protocol.js").Slice) => void} [onSlice] gets what came since the last slice, about
   *   every `input.tellMs`; what came after the last one is only in the result, which has it all
   * @returns {Promise<import("./core/protocol.js").RunResult>}
   */
  run(input, onSlice) {
    if (this.#doorbell && this.#running() === null) Atomics.store(this.#doorbell, 0, 0);
    return this.#call("run", this.#grammars?.placed(input, true) ?? input, { onSlice });
  }

  /**
   * Without pages: free what is kept of a sequence, after what is under way.
   * @param {number} slot its number, which stands in place of its block table
   */
  drop(slot) {
    this.#call("drop", slot).catch(() => undefined); // with the engine all of it is gone
  }

  /** End a burst that is under way: after its current step, on WebGPU after those that are on their way to the GPU. */
  interrupt() {
    const running = this.#running();
    if (running === null) return;
    if (this.#doorbell && this.#bell) {
      // The runtime forgets that its doorbell rang when the last step of a slice ends; the worker looks at the other.
      Atomics.store(this.#bell, 0, running);
      Atomics.store(this.#doorbell, 0, 1);
    } else this.#worker?.postMessage({ interrupt: running });
  }

  /**
   * Break the engine on purpose, to test what follows: "device" destroys the WebGPU device under it, "worker" ends its
   * worker without a word. Calls that are pending, and later ones, reject with code device_lost.
   * @param {"device" | "worker"} what
   * @throws {EngineError} invalid_request where there is no device
   */
  fail(what) {
    if (what === "worker") {
      this.#end(new EngineError("device_lost", "the engine worker is gone: it was ended on purpose"));
    } else if (this.info?.adapter) {
      this.#worker?.postMessage({ fail: what });
    } else {
      throw new EngineError("invalid_request", "no model is loaded on a WebGPU device", "what");
    }
  }

  /**
   * What the runtime counted: steps, launches, rows and sampled tokens since load, how often a thread went to sleep,
   * and how many are asleep now. On WebGPU the first four, then what webgpu/counters.js names.
   * @returns {Promise<Uint32Array | Float64Array>} [6] or longer
   */
  counters() {
    return this.#call("counters", null);
  }

  /**
   * Bytes of memory that the engine holds: weights, KV pages, arena and everything else in one.
   * @returns {Promise<number>}
   */
  memory() {
    return this.#call("memory", null);
  }

  /**
   * Run these kernels from now on, each in the place of those that do the same (`info.alternatives`).
   * @param {string[]} names
   * @returns {Promise<void>}
   * @throws {EngineError} invalid_request where there is no such kernel, and on a GPU that has to pass an exam with them after the
   *   first step; unsupported where it fails it: those before run on
   */
  chooseKernels(names) {
    return this.#call("chooseKernels", names);
  }

  /**
   * Choose and time kernels in turn, with the model's weights and threads. On CPUs the last one of each list keeps running.
   * @param {import("./core/protocol.js").KernelTiming} input
   * @returns {Promise<Float64Array>} milliseconds a launch; NaN where the time was up, and on a GPU after the first step
   */
  timeKernels(input) {
    return this.#call("timeKernels", input);
  }

  /**
   * Where the time of a step goes. Takes a second or so, during which nothing else runs.
   * @param {import("./core/protocol.js").ProfileInput} input
   * @returns {Promise<import("./core/protocol.js").Profile>}
   */
  profile(input) {
    return this.#call("profile", input);
  }

  /** Free everything. Calls that are pending reject with code cancelled. */
  async unload() {
    this.#end(new EngineError("cancelled", "the model was unloaded"));
  }

  /** @returns {number | null} id of the burst that is under way */
  #running() {
    for (const [id, { method }] of this.#pending) if (method === "run") return id;
    return null;
  }

  #start() {
    const lost = (/** @type {EngineError} */ error) => {
      if (this.#worker === worker) this.#end(error);
    };
    const { worker, end } = startWorker(this.#workerUrl, "engine", lost);
    worker.onmessage = (event) => {
      const { faults } = event.data;
      if (!faults) {
        this.#receive(event.data);
        return;
      }
      this.#faults.push(faults);
      faults.onmessage = (/** @type {MessageEvent} */ { data }) => lost(new EngineError("device_lost", `the engine worker is gone: ${data}`));
    };
    this.#worker = worker;
    this.#endWorker = end;
  }

  /**
   * @param {string} method
   * @param {unknown} args
   * @param {Pick<Pending, "onProgress" | "onSlice">} [heard]
   * @returns {Promise<any>}
   */
  #call(method, args, heard = {}) {
    const worker = this.#worker;
    if (!worker) {
      return Promise.reject(this.#lost ?? new EngineError("device_lost", `${method}: no model is loaded`));
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { method, resolve, reject, ...heard });
      worker.postMessage({ id, method, args });
    });
  }

  /** @param {{id: number, value?: unknown, ms?: number, error?: import("./format/errors.js").WireError, progress?: Progress,
   *   slice?: import("./core/protocol.js").Slice}} message */
  #receive({ id, value, ms = 0, error, progress, slice }) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    if (progress) {
      pending.onProgress?.(progress);
      return;
    }
    if (slice) {
      pending.onSlice?.(slice);
      return;
    }
    this.#pending.delete(id);
    if (pending.method === "step" || pending.method === "run") this.busyMs += ms;
    if (error) {
      const lost = fromWire(error);
      pending.reject(lost);
      if (lost.code === "device_lost") this.#end(lost);
    } else {
      pending.resolve(value);
    }
  }

  /**
   * End the worker, its threads with it, and every pending call.
   * @param {EngineError} reason
   */
  #end(reason) {
    this.#endWorker();
    this.#warm = false;
    for (const port of this.#faults) port.close();
    this.#faults = [];
    this.#grammars?.end(reason);
    this.#worker = this.#doorbell = this.#bell = this.#grammars = this.info = null;
    this.#lost = reason.code === "device_lost" ? reason : null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(reason);
  }
}
