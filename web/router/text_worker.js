/**
 * @file Tokenizes long prompts beside the router worker, which answers others meanwhile: texts.js in a worker of its own,
 * made by aside.js.
 *
 *     {"tokenizer": description}   once, before anything else
 *     {"id", "texts"}              → {"id", "value"} or {"id", "error"}
 */

import { toWire } from "../engine/format/errors.js";
import { begin } from "../engine/host/workers.js";
import { tokenizer } from "./texts.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** @type {ReturnType<typeof tokenizer>} */
let made;

begin();

scope.onmessage = ({ data }) => {
  try {
    if (data.tokenizer !== undefined) made = tokenizer(data.tokenizer);
    else scope.postMessage({ id: data.id, value: made.encode(data.texts) });
  } catch (error) {
    scope.postMessage({ id: data.id, error: toWire(error) });
  }
};
