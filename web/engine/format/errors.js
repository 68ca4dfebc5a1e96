/**
 * @file Typed errors of the engine. The codes are those of py/inpage/errors.py; an error crosses a worker boundary as
 * `{code, message, field}` and becomes an `EngineError` again on the other side.
 */

import { said, shortened } from "./quoting.js";

const MESSAGE = 4000;
const FIELD = 200;
const CODE = /^[a-z_]{1,40}$/;

/**
 * @typedef {"artifact_invalid" | "unsupported" | "invalid_request" | "out_of_memory" | "storage_full" | "network"
 *   | "device_lost" | "fatal" | "poison_request" | "timeout" | "cancelled" | "error"} ErrorCode
 * @typedef {{code: string, message: string, field: string | null}} WireError
 */

/** An error raised on purpose. `code` is stable; `field` names the bad input where there is one. */
export class EngineError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message what is wrong and, where possible, what mends it
   * @param {string | null} [field]
   * @param {unknown} [cause]
   */
  constructor(code, message, field = null, cause = undefined) {
    super(shortened(message, MESSAGE), cause === undefined ? undefined : { cause });
    this.name = "EngineError";
    this.code = code;
    this.field = field === null ? null : shortened(field, FIELD);
  }
}

/**
 * What `postMessage` carries for an error. Anything not raised on purpose gets the code "error".
 * @param {unknown} error
 * @returns {WireError}
 */
export function toWire(error) {
  try {
    if (error instanceof EngineError) return { code: error.code, message: error.message, field: error.field };
  } catch {
    // A Proxy that throws whatever it is asked was thrown.
  }
  return { code: "error", message: said(error), field: null };
}

/**
 * @param {unknown} wire what `toWire` gave, or what another tab says that it is
 * @returns {EngineError}
 */
export function fromWire(wire) {
  const { code, message, field } = /** @type {Record<string, unknown>} */ (Object(wire ?? {}));
  const known = typeof code === "string" && CODE.test(code) ? code : "error";
  const text = typeof message === "string" ? message : "an error that does not say what it is";
  return new EngineError(/** @type {ErrorCode} */ (known), text, typeof field === "string" ? field : null);
}

/**
 * @param {string} message
 * @param {string} field
 * @returns {EngineError}
 */
export function invalidArtifact(message, field) {
  return new EngineError("artifact_invalid", `${field}: ${message}`, field);
}
