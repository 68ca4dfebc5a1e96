/**
 * @file Has Python's memory kept with all that an answer may need, beside the router worker and once: see python.js. Posts
 * whether it did, and is ended then.
 */

import { place } from "../engine/host/places.js";
import { begin } from "../engine/host/workers.js";
import { renew } from "./python.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

begin();
renew(place("inpage.zip")).then(
  (kept) => scope.postMessage({ kept }),
  (error) => {
    console.warn("Python's memory is not kept with all it needs:", error);
    scope.postMessage({ kept: false });
  },
);
