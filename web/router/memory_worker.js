/**
 * @file Keeps Python's memory beside the router worker: what it is given, or, with all that an answer may need, what is kept
 * already: see python.js. Posts whether it did, and is ended then.
 */

import { place } from "../engine/host/places.js";
import { begin } from "../engine/host/workers.js";
import { keep } from "./kept_memory.js";
import { renew } from "./python.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

begin();
scope.onmessage = async ({ data: { bytes } }) => {
  try {
    scope.postMessage({ kept: await (bytes ? keep(bytes) : renew(place("inpage.zip"))) });
  } catch (error) {
    console.warn("Python's memory is not kept:", error);
    scope.postMessage({ kept: false });
  }
};
