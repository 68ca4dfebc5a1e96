/** @file Pages that a caller names, and their bytes, checked. */

import { EngineError } from "../format/errors.js";

/**
 * @param {Int32Array} pages indices
 * @param {number} usable how many pages there are
 */
export function checkPages(pages, usable) {
  if (pages.every((page) => page >= 0 && page < usable)) return;
  throw new EngineError("invalid_request", `a page is outside 0 to ${usable - 1}`, "pages");
}

/**
 * @param {Uint8Array} data
 * @param {number} bytes
 */
export function checkLength(data, bytes) {
  if (data.length !== bytes) throw new EngineError("invalid_request", `${data.length} bytes of pages, not ${bytes}`, "data");
}
