/** @file Waits of a start: each has a limit, and an error that names what did not come. */

import { EngineError } from "../engine/errors.js";
import { readBounded } from "../engine/bounded.js";

/** A server that sends nothing for so long is not waited for. */
export const STALL_MS = 20_000;
/** Scripts come as one wait with all that they import. */
export const SCRIPTS_MS = 45_000;

/**
 * @template T
 * @param {PromiseLike<T>} promise
 * @param {number} ms
 * @param {string} step of the start
 * @param {string} file
 * @returns {Promise<T>}
 * @throws {EngineError} network
 */
export async function within(promise, ms, step, file) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new EngineError("network", `${step}: ${file} did not come within ${ms / 1000} s`, file)), ms);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([promise, silence]));
  } finally {
    clearTimeout(timer);
  }
}

/**
 * A file's bytes, however long they take, as long as some arrive.
 * @param {Response} response
 * @param {keyof typeof import("../engine/limits.js").FILE_BYTES} kind
 * @param {string} step
 * @param {string} file
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 * @throws {EngineError} network, artifact_invalid
 */
export async function bytesOf(response, kind, step, file) {
  try {
    return await readBounded(response, kind, file, file, (read) => within(read, STALL_MS, step, file));
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${step}: ${file}: ${String(error)}`, file, error);
  }
}
