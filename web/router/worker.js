/**
 * @file The router worker: starts Python with the `inpage` package (python.js) and lets py/inpage/page.py answer. Messages
 * are JSON texts in both directions, described there; `{"fatal": …}` says that Python itself is gone.
 */

import { holdLock } from "../engine/site_data.js";
import { verifyAhead } from "../engine/verify.js";
import * as host from "./host.js";
import { startPython } from "./python.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

// Whoever gets this lock learns that the worker is gone, however it went. Plain http has no locks.
holdLock(scope.name, () => scope.postMessage("alive"));

const ready = boot();
ready.catch((error) => scope.postMessage(JSON.stringify({ fatal: `Python could not start: ${String(error)}` })));

let asked = false;

scope.onmessage = async (event) => {
  if (!asked) ahead(event.data);
  asked = true;
  const handle = await ready.catch(() => null); // told above
  if (!handle) return;
  try {
    handle(event.data);
  } catch (error) {
    scope.postMessage(JSON.stringify({ fatal: `Python failed: ${String(error)}` }));
  }
};

/** While Python starts, a core has nothing to do. @param {string} message the first: which model is wanted */
function ahead(message) {
  const { op, artifact } = JSON.parse(message);
  if (op === "load" && typeof artifact === "string") verifyAhead(artifact);
}

/** @returns {Promise<(message: string) => void>} */
async function boot() {
  const pyodide = await startPython(new URL("../inpage.zip", import.meta.url));
  pyodide.registerJsModule("inpage_host", host);
  return pyodide.pyimport("inpage.page").start((/** @type {string} */ text) => scope.postMessage(text));
}
