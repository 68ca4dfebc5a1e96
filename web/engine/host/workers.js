/**
 * @file Workers, from both sides: whoever makes one learns once why it does not start (its script is missing, of a wrong
 * type, refused, or never comes) and how it ended, whatever ended it. A script that loaded takes a lock, which it holds for
 * as long as it lives, and then says that it is there; where there are no Web Locks (plain http), or none that answer, only
 * deaths that raise an error are noticed.
 */

import { EngineError } from "../format/errors.js";
import { ANSWER_MS, holdLock, whenFree } from "./site_data.js";
import { forWorker } from "./places.js";
import { trusted } from "./trusted.js";
import { Patience, SCRIPTS_MS } from "./waits.js";

const UP = "up";
const ALIVE = "alive";

/** @typedef {{worker: Worker, end: () => void, here: () => void}} Started end: nothing is told of it any more; here: its script loaded */

/**
 * @param {URL | string} url
 * @param {string} kind what the worker is for: it is named by it
 * @param {(error: EngineError) => void} lost called at most once, when the worker is gone: with code network and the script
 *   as field where it never ran, else device_lost
 * @param {number} [ms] how long its script may take
 * @returns {Started}
 * @throws {EngineError} unsupported where the browser refuses such a worker
 */
export function startWorker(url, kind, lost, ms = SCRIPTS_MS) {
  const random = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const name = `inpage-${kind}-${random}`;
  const file = new URL(url, globalThis.location.href).pathname.split("/").slice(-2).join("/");
  const worker = made(forWorker(url), name, file);
  let up = false;
  let ended = false;
  const end = () => {
    ended = true;
    script.end();
    worker.terminate();
  };
  /** @param {string} why */
  const gone = (why) => {
    if (ended) return;
    end();
    lost(
      up
        ? new EngineError("device_lost", `the ${kind} worker is gone: ${why}`)
        : new EngineError("network", `starting the ${kind} worker: ${file}, or a script that it imports, ${why}`, file),
    );
  };
  const script = new Patience(ms, () => gone(`did not come within ${ms / 1000} s`));
  const here = () => {
    up = true;
    script.end();
  };
  worker.addEventListener("message", (event) => {
    if (event.data !== UP && event.data !== ALIVE) return;
    event.stopImmediatePropagation(); // the rest is between the two
    here();
    if (event.data === ALIVE) whenFree(name, () => gone("it ended without a word"));
  });
  worker.onerror = (event) => {
    event.preventDefault();
    gone(event.message || (up ? "it failed" : "could not be loaded"));
  };
  worker.onmessageerror = () => gone("a message could not be read");
  return { worker, end, here };
}

/** @param {URL} url @param {string} name @param {string} file @returns {Worker} */
function made(url, name, file) {
  try {
    return new Worker(trusted(url), { type: "module", name });
  } catch (error) {
    const { origin } = globalThis.location;
    const why = url.origin === origin ? String(error) : `it lies on ${url.origin}, and browsers want it on the page's own origin, ${origin}`;
    throw new EngineError("unsupported", `the worker of ${file} is refused: ${why}`, file, error);
  }
}

/** For the script of such a worker, once it has loaded. */
export function begin() {
  const scope = /** @type {{name: string, postMessage: (message: string) => void}} */ (/** @type {unknown} */ (globalThis));
  const noLock = new Patience(ANSWER_MS, () => scope.postMessage(UP));
  holdLock(scope.name, () => {
    noLock.end();
    scope.postMessage(ALIVE);
  });
}
