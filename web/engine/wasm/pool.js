/**
 * @file Starts the compute threads of one engine. Only possible where memory may be posted to workers, that is in a
 * cross-origin isolated context.
 */

import { MAX_THREADS } from "../format/abi.js";
import { EngineError } from "../format/errors.js";
import { place } from "../host/places.js";
import { startWorker } from "../host/workers.js";

/**
 * Whether a caller pinned the number of threads.
 * @param {number | null | undefined} threads
 * @returns {threads is number}
 */
export function isGiven(threads) {
  return threads !== null && threads !== undefined;
}

/**
 * How many threads to start: as many as told, at most as many as there are cores if not told, one where memory cannot be
 * shared.
 * @param {number | null | undefined} wanted
 * @param {import("../core/features.js").Features} features
 * @returns {number}
 */
export function chooseThreads(wanted, features) {
  if (isGiven(wanted) && (!Number.isInteger(wanted) || wanted < 1)) {
    throw new EngineError("invalid_request", `threads must be at least 1, got ${wanted}`, "threads");
  }
  return features.threads ? Math.min(wanted ?? features.cores, MAX_THREADS) : 1;
}

/**
 * Start one worker for each stack and wait until all have instantiated the module.
 * @param {import("./executor.js").Executor} executor
 * @param {() => MessagePort} faultPort see ThreadStart
 * @param {AbortSignal} signal
 * @param {import("./rehearsal.js").Score | null} rehearsal for the first of them
 * @returns {Promise<() => void>} ends them
 */
export async function startThreads(executor, faultPort, signal, rehearsal) {
  /** @type {import("../host/workers.js").Started[]} */
  const threads = [];
  const stop = () => {
    for (const { end } of threads) end();
  };
  const ready = executor.layout.stackTops.map((stackTop, i) => {
    return new Promise((resolve, reject) => {
      const thread = startWorker(place("engine/wasm/thread.js"), "thread", reject);
      threads.push(thread);
      thread.worker.onmessage = ({ data }) => {
        thread.here();
        if (data === "ready") resolve(null);
        else reject(new EngineError("device_lost", `a compute thread did not start: ${data}`));
      };
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      const { module, memory } = executor;
      const faults = faultPort();
      thread.worker.postMessage({ module, memory, id: i + 1, stackTop, faults, rehearsal: i === 0 ? rehearsal : null }, [faults]);
    });
  });
  try {
    await Promise.all(ready);
  } catch (error) {
    stop();
    throw error;
  }
  return stop;
}
