/** @file Memory of engines whose code is not ours: got here, or refused by them. */

import { EngineError } from "../format/errors.js";

/** What ONNX Runtime, TVM and browsers say where there is none. A trap is none. */
const NO_MEMORY = /bad_alloc|out of memory|\bOOM\b|allocation failed|(?:failed to|could not|cannot|can't|unable to) allocate\b/i;

/** @param {unknown} error */
export function outOfMemory(error) {
  return NO_MEMORY.test(String(error));
}

/** @param {number} bytes @returns {Uint8Array<ArrayBuffer>} */
export function allocated(bytes) {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new EngineError("out_of_memory", `the browser refuses ${bytes} bytes for the model's files`, null, error);
  }
}
