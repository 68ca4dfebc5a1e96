/**
 * @file The engine worker: one loaded model, driven by messages. Calls `{id, method, args}` are answered in order by
 * `{id, value}` or `{id, error: {code, message, field}}`; `{cancel: id}` ends a load that is under way, `{interrupt: id}`
 * a burst, `{helper}` tells of a grammar worker, `{fail: what}` breaks something on purpose. Progress goes out as `{id, progress}`, what a burst brought so far
 * as `{id, slice}`, ports on which faults will be told as `{faults: port}`. On WASM, steps and bursts run synchronously on this thread, so that only the doorbell reaches them.
 *
 * A worker serves one load: the client starts a fresh one for the next, so that whatever became of the last, its threads
 * and its memory are gone with it.
 */

import { finishedOf } from "./core/slices.js";
import { EngineError, toWire } from "./format/errors.js";
import { GrammarPorts } from "./grammar/grammars.js";
import { imported } from "./host/waits.js";
import { begin } from "./host/workers.js";
import { loadEngine } from "./load.js";

/** @typedef {{id: number, method: string, args: any}} Call */

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** Progress events for arriving bytes, at most one in this many milliseconds. */
const PROGRESS_MS = 50;

/** @type {import("./load.js").Engine | null} */
let engine = null;
/** @type {import("./grammar/stepwise.js").Stepwise | null} made when first a request's every token is to be looked at
 * */
let stepwise = null;
const grammars = new GrammarPorts();
/** @type {Map<number, AbortController>} loads under way */
const loads = new Map();
/** Id of the burst that was interrupted last, as a message told, and where memory can be shared with the client. */
let interrupted = 0;
/** @type {Int32Array | null} */
let bell = null;
/** Calls are made one at a time. */
let last = Promise.resolve();

begin();

scope.onmessage = (event) => {
  const { data } = event;
  if ("cancel" in data) {
    loads.get(data.cancel)?.abort(new EngineError("cancelled", "the load was cancelled"));
  } else if ("interrupt" in data) {
    interrupted = data.interrupt;
  } else if ("helper" in data) {
    grammars.hear(data);
  } else if ("fail" in data) {
    engine?.executor.fail?.(data.fail);
  } else {
    const call = /** @type {Call} */ (data);
    if (call.method === "load") loads.set(call.id, new AbortController());
    last = last.then(() => answer(call));
  }
};

/** @param {Call} call */
async function answer(call) {
  const { id } = call;
  const began = performance.now();
  try {
    const { value, transfer } = await dispatch(call);
    scope.postMessage({ id, value, ms: performance.now() - began }, transfer);
  } catch (error) {
    scope.postMessage({ id, error: toWire(error) });
  }
}

/**
 * @param {Call} call
 * @returns {Promise<{value: unknown, transfer: Transferable[]}>}
 */
async function dispatch({ id, method, args }) {
  if (method === "load") return { value: await load(id, args), transfer: [] };
  if (!engine) throw new EngineError("invalid_request", `${method}: no model is loaded`);
  const { executor } = engine;
  switch (method) {
    case "reservePages":
      return { value: await executor.reservePages(args), transfer: [] };
    case "readPages": {
      const value = await executor.readPages(args.pages);
      return { value, transfer: buffers([value]) };
    }
    case "writePages":
      return { value: await executor.writePages(args.pages, args.data), transfer: [] };
    case "step": {
      const value = await (looksAtTokens(args) ? (await stepper(engine)).step(args) : executor.step(args));
      return { value, transfer: buffers([value.sequences, value.scores, value.logits, value.report]) };
    }
    case "run": {
      const rang = () => interrupted === id || (bell !== null && Atomics.load(bell, 0) === id);
      const runner = looksAtTokens(args) || !executor.run ? await stepper(engine) : executor;
      const run = await /** @type {Required<Pick<typeof executor, "run">>} */ (runner).run(args, rang, (slice) =>
        scope.postMessage({ id, slice }, buffers([slice.out, slice.finished, slice.report])),
      );
      const value = { ...run, finished: finishedOf(run.sequences, 0, args.n) };
      return { value, transfer: buffers([value.out, value.sequences, value.finished, value.report]) };
    }
    case "drop":
      return { value: executor.drop?.(args), transfer: [] };
    case "profile": {
      if (!executor.profile) throw new EngineError("unsupported", "this engine does not tell where a step's time goes");
      const value = await executor.profile(args);
      return { value, transfer: buffers([value.launch_kernel, value.launch_us, value.launch_workgroups]) };
    }
    case "chooseKernels":
      if (!executor.chooseKernels) throw new EngineError("unsupported", "this engine has no kernels to choose from");
      return { value: await executor.chooseKernels(args), transfer: [] };
    case "timeKernels": {
      if (!executor.timeKernels) throw new EngineError("unsupported", "this engine has no kernels to choose from");
      const value = await executor.timeKernels(args);
      return { value, transfer: buffers([value]) };
    }
    case "memory":
      return { value: executor.memoryBytes(), transfer: [] };
    case "counters":
      return { value: executor.counters(), transfer: [] };
    default:
      throw new EngineError("invalid_request", `unknown method ${method}`);
  }
}

/** Whether a grammar or a report makes this batch go step by step. @param {import("./core/protocol.js").StepInput |
 * import("./core/protocol.js").RunInput} input */
function looksAtTokens({ constraints, tops }) {
  return Boolean(constraints?.length || tops?.some((top) => top >= 0));
}

/** @param {import("./load.js").Engine} from @returns {Promise<import("./grammar/stepwise.js").Stepwise>} */
async function stepper(from) {
  if (!stepwise) {
    const { Stepwise } = await imported(import("./grammar/stepwise.js"), "a batch with a grammar", "engine/grammar/stepwise.js");
    stepwise = new Stepwise(from, grammars);
  }
  return stepwise;
}

/**
 * @param {number} id
 * @param {{options: import("./core/protocol.js").LoadOptions}} args
 * @returns {Promise<import("./core/protocol.js").Loaded>}
 */
async function load(id, { options }) {
  const { signal } = /** @type {AbortController} */ (loads.get(id));
  try {
    if (engine) throw new EngineError("invalid_request", "this worker has a model already");
    engine = await loadEngine(options, faultPort, signal, reporter(id));
    const { info, doorbell } = engine;
    if (!doorbell) return { info, doorbell: null };
    bell = new Int32Array(new SharedArrayBuffer(4));
    return { info, doorbell: { ...doorbell, bell: bell.buffer } };
  } finally {
    loads.delete(id);
  }
}

/** @returns {MessagePort} for whoever may fail while this thread waits for it and hears nothing */
function faultPort() {
  const { port1, port2 } = new MessageChannel();
  scope.postMessage({ faults: port1 }, [port1]);
  return port2;
}

/**
 * Sends progress, thinned out between the moments that matter.
 * @param {number} id
 * @returns {(event: import("./core/protocol.js").Progress) => void}
 */
function reporter(id) {
  let next = 0;
  let phase = "";
  return (progress) => {
    const now = performance.now();
    if (now < next && progress.phase === phase && progress.loaded < progress.total) return;
    next = now + PROGRESS_MS;
    phase = progress.phase;
    scope.postMessage({ id, progress });
  };
}

/**
 * @param {(Int32Array | Float32Array | Float64Array | Uint8Array | undefined)[]} arrays
 * @returns {Transferable[]}
 */
function buffers(arrays) {
  return arrays.flatMap((array) => (array ? [/** @type {ArrayBuffer} */ (array.buffer)] : []));
}
