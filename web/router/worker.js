/**
 * @file The router worker: boots Python (Pyodide), unpacks the `inpage` package and lets py/inpage/page.py answer. Messages
 * are JSON texts in both directions, described there; `{"fatal": …}` says that Python itself is gone.
 */

import { loadPyodide } from "../vendor/pyodide/pyodide.mjs";
import * as host from "./host.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** Where the package lies in Python's file system. */
const HOME = "/inpage";

// Whoever gets this lock learns that the worker is gone, however it went. Plain http has no locks.
void navigator.locks?.request(scope.name, () => {
  scope.postMessage("alive");
  return new Promise(() => {});
});

const ready = boot();
ready.catch((error) => scope.postMessage(JSON.stringify({ fatal: `Python could not start: ${String(error)}` })));

scope.onmessage = async (event) => {
  const handle = await ready.catch(() => null); // told above
  if (!handle) return;
  try {
    handle(event.data);
  } catch (error) {
    scope.postMessage(JSON.stringify({ fatal: `Python failed: ${String(error)}` }));
  }
};

/** @returns {Promise<(message: string) => void>} */
async function boot() {
  const [pyodide, archive] = await Promise.all([
    loadPyodide({ indexURL: new URL("../vendor/pyodide/", import.meta.url).href }),
    fetchPackage(new URL("../inpage.zip", import.meta.url)),
  ]);
  pyodide.registerJsModule("inpage_host", host);
  pyodide.unpackArchive(archive, "zip", { extractDir: HOME });
  pyodide.runPython(`import sys; sys.path.insert(0, "${HOME}")`);
  return pyodide.pyimport("inpage.page").start((/** @type {string} */ text) => scope.postMessage(text));
}

/**
 * @param {URL} url
 * @returns {Promise<ArrayBuffer>}
 */
async function fetchPackage(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.href}: HTTP ${response.status}`);
  return response.arrayBuffer();
}
