/** @file An end from outside that does not depend on what is waited for. */

import { EngineError } from "../engine/format/errors.js";

/**
 * @template T
 * @param {Promise<T>} wait
 * @param {AbortSignal} [signal]
 * @param {() => void} [cancel] called where the signal comes first
 * @returns {Promise<T>} rejects with code "cancelled" where the signal comes first
 */
export function unlessAborted(wait, signal, cancel) {
  if (!signal) return wait;
  return new Promise((resolve, reject) => {
    const end = () => {
      cancel?.();
      reject(new EngineError("cancelled", "it was cancelled"));
    };
    signal.addEventListener("abort", end, { once: true });
    wait.then(resolve, reject).finally(() => signal.removeEventListener("abort", end));
    if (signal.aborted) end();
  });
}
