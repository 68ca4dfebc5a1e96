/**
 * @file Waits: each has a limit, and an error that names what did not come. Only time in which this thread's own timer ran
 * counts, so that a page that was frozen, a worker that was busy and a machine that slept blame nobody for it.
 */

import { readBounded } from "../format/bounded.js";
import { EngineError } from "../format/errors.js";

/**
 * A network that sends no byte for so long is not waited for. A person looks at a page that stands still, and is told
 * within ten seconds; a server that is slow to begin has nearly all of them. Whatever trickles is never cut.
 */
export const STALL_MS = 9000;
/** Scripts come as one wait with all that they import, and of their bytes nothing is known before the last. */
export const SCRIPTS_MS = 45_000;

/** Into so many turns of the timer a limit is divided. */
const TURNS = 20;

/** A limit that begins anew with every sign of life. */
export class Patience {
  #ms;
  #over;
  #turns = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /**
   * @param {number} ms
   * @param {() => void} over called once; `again` begins anew even then
   */
  constructor(ms, over) {
    this.#ms = ms;
    this.#over = over;
    this.again();
  }

  again() {
    this.#turns = 0;
    this.#timer ??= setInterval(() => {
      if (++this.#turns < TURNS) return;
      this.end();
      this.#over();
    }, this.#ms / TURNS);
  }

  end() {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * @template T
 * @param {PromiseLike<T>} promise
 * @param {number} ms
 * @param {string} step what is going on
 * @param {string} file
 * @returns {Promise<T>}
 * @throws {EngineError} network
 */
export async function within(promise, ms, step, file) {
  /** @type {Patience | undefined} */
  let patience;
  const silence = new Promise((_, reject) => {
    patience = new Patience(ms, () => reject(new EngineError("network", `${step}: ${file} did not come within ${ms / 1000} s`, file)));
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([promise, silence]));
  } finally {
    patience?.end();
  }
}

/**
 * A script that is imported when it is needed.
 * @template T
 * @param {Promise<T>} importing
 * @param {string} step
 * @param {string} file
 * @returns {Promise<T>}
 * @throws {EngineError} network
 */
export async function imported(importing, step, file) {
  try {
    return await within(importing, SCRIPTS_MS, step, file);
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${step}: ${file}: ${String(error)}`, file, error);
  }
}

/**
 * A file's bytes, however long they take, as long as some arrive.
 * @param {Response} response
 * @param {keyof typeof import("../format/limits.js").FILE_BYTES} kind
 * @param {string} step
 * @param {string} file
 * @param {(loaded: number) => void} [progress]
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 * @throws {EngineError} network, artifact_invalid
 */
export async function bytesOf(response, kind, step, file, progress) {
  try {
    return await readBounded(response, kind, file, file, (read) => within(read, STALL_MS, step, file), progress);
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${step}: ${file}: ${String(error)}`, file, error);
  }
}
