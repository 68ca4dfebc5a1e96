/**
 * @file The router worker: starts Python with the `inpage` package (python.js) and lets py/inpage/worker/messages.py
 * answer. Messages are JSON texts in both directions, described there; `{"fatal": {"code", "message", "field"}}` says
 * that Python itself is gone. "ping" is answered "pong" by whatever thread can still answer.
 */

import { EngineError, toWire } from "../engine/format/errors.js";
import { parsed, plain } from "../engine/format/json.js";
import { place } from "../engine/host/places.js";
import { imported } from "../engine/host/waits.js";
import { begin } from "../engine/host/workers.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

// From here on the worker is watched (client/watch.js).
begin();
post({ job: { name: "start" } });
const ready = boot();
ready.then(
  () => post({ job: null }),
  (error) => {
    const wire = toWire(error);
    const code = wire.code === "error" ? "device_lost" : wire.code;
    post({ fatal: { ...wire, code, message: `Python could not start: ${wire.message}` } });
  },
);

/** The message that Python is given now. @type {number | undefined} */
let current;

let asked = false;

scope.onmessage = async (event) => {
  if (event.data === "ping") {
    scope.postMessage("pong");
    return;
  }
  if (!asked) void ahead(event.data);
  asked = true;
  const handle = await ready.catch(() => null); // told above
  if (!handle) return;
  const id = checked(event.data);
  if (id === null) return;
  current = id;
  try {
    handle(event.data);
  } catch (error) {
    post({ id, error: toWire(error) }); // where Python itself is gone, that was told already
  } finally {
    current = undefined;
  }
};

/** While Python starts, a core has nothing to do. @param {string} message the first: which model is wanted */
async function ahead(message) {
  try {
    const request = /** @type {any} */ (parsed(message, "message"));
    if (request.op === "load" && typeof request.artifact === "string") (await import("./ahead.js")).prepareLoad(request);
  } catch {
    // It is refused when Python would have it.
  }
}

/**
 * What is nested too deeply would end Python, so it is refused here.
 * @param {string} text
 * @returns {number | null} the message's id; null where it was refused
 */
function checked(text) {
  let id;
  try {
    const message = JSON.parse(text);
    id = message.id;
    plain(message);
    return id;
  } catch (error) {
    const wire = toWire(error instanceof EngineError ? error : new EngineError("invalid_request", `the message is not JSON: ${String(error)}`));
    post({ id: id ?? Number(/"id":\s*(\d{1,15})/.exec(text)?.[1] ?? -1), error: wire });
    return null;
  }
}

/** @returns {Promise<(message: string) => void>} */
async function boot() {
  const hosting = scripts(import("./host.js"));
  hosting.catch(() => undefined); // told below
  const { keepMemory, renewMemory, startPython } = await scripts(import("./python.js"));
  const [host, { pyodide, how }] = await Promise.all([hosting, startPython(place("inpage.zip"))]);
  const { _api } = /** @type {{_api: {on_fatal?: (error: unknown) => void}}} */ (/** @type {unknown} */ (pyodide));
  // Wherever it happens: in a message, in a task, in a callback from JavaScript.
  _api.on_fatal = (error) => post({ fatal: { code: "fatal", message: `Python failed: ${String(error)}`, field: null }, id: current });
  pyodide.registerJsModule("inpage_host", host);
  return pyodide.pyimport("inpage.worker.messages").start((/** @type {string} */ text) => scope.postMessage(text), keepMemory, renewMemory, how);
}

/**
 * @template T
 * @param {Promise<T>} importing
 * @returns {Promise<T>}
 */
function scripts(importing) {
  return imported(importing, "loading scripts", "router/python.js, router/host.js or what they import");
}

/** @param {object} message */
function post(message) {
  scope.postMessage(JSON.stringify(message));
}
