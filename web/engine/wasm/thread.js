/**
 * @file A compute thread: one more instance of the engine's module on the engine's memory, with its own stack. It says
 * that it is ready, may rehearse while weights arrive, and then stays inside inpage_thread, sleeping on a futex between
 * steps, until it is terminated.
 */

/**
 * @typedef {object} ThreadStart
 * @property {WebAssembly.Module} module
 * @property {WebAssembly.Memory} memory
 * @property {number} id 1, 2, …
 * @property {number} stackTop
 * @property {MessagePort} faults to the client
 * @property {import("./rehearsal.js").Score | null} rehearsal
 */

import { rehearse } from "./rehearsal.js";
import { calibrateSpins } from "./spins.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

scope.onmessage = async (event) => {
  const { module, memory, id, stackTop, faults, rehearsal } = /** @type {ThreadStart} */ (event.data);
  try {
    const instance = await WebAssembly.instantiate(module, { env: { memory } });
    const exports = /** @type {import("../format/abi.js").KernelExports} */ (/** @type {unknown} */ (instance.exports));
    exports.__stack_pointer.value = stackTop;
    scope.postMessage("ready");
    if (id === 1) calibrateSpins(exports); // for all
    if (rehearsal) rehearse(exports, memory, id, rehearsal);
    exports.inpage_thread(id);
  } catch (error) {
    // While starting, the engine worker listens; later it may wait for this thread in a barrier and hear nothing, so
    // the client is told.
    const fault = `compute thread ${id}: ${String(error)}`;
    scope.postMessage(fault);
    faults.postMessage(fault);
  }
};
