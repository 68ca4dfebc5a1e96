/**
 * @file Renders and tokenizes long prompts beside the router worker, which answers others meanwhile: texts.js in a worker
 * of its own, made by aside.js.
 *
 *     {"tokenizer": description} or {"template": source}                once, before anything else
 *     {"id", "texts"} or {"id", "variables"}                            → {"id", "value"} or {"id", "error"}
 */

import { toWire } from "../engine/format/errors.js";
import { begin } from "../engine/host/workers.js";
import { template, tokenizer } from "./texts.js";

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
/** @type {(asked: {texts: string[], variables: string}) => unknown} */
let work;

begin();

scope.onmessage = ({ data }) => {
  try {
    if (data.tokenizer !== undefined) {
      const made = tokenizer(data.tokenizer);
      work = ({ texts }) => made.encode(texts);
    } else if (data.template !== undefined) {
      const made = template(data.template);
      work = ({ variables }) => made(variables);
    } else scope.postMessage({ id: data.id, value: work(data) });
  } catch (error) {
    scope.postMessage({ id: data.id, error: toWire(error) });
  }
};
