/** @file Bodies, read only as far as their kind may be long (limits.js). */

import { EngineError } from "./errors.js";
import { FILE_BYTES } from "./limits.js";

/**
 * The body of a response, read only as far as its kind may be long. What counts is what arrives, not what headers say: a
 * small gzip unpacks to anything. Beyond the limit the connection is let go.
 * @param {Response} response
 * @param {keyof typeof import("./limits.js").FILE_BYTES} kind
 * @param {string} name of the file, for errors
 * @param {string | null} field
 * @param {<T>(read: Promise<T>) => Promise<T>} [wait] rejects where a part takes too long
 * @param {(loaded: number) => void} [progress] bytes, after every part
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 * @throws {EngineError} artifact_invalid; what the body rejects with
 */
export async function readBounded(response, kind, name, field, wait = (read) => read, progress = () => undefined) {
  const limit = FILE_BYTES[kind];
  const tooLarge = () => new EngineError("artifact_invalid", `${name} is larger than ${limit} bytes, the most that such a file may have`, field);
  return readAtMost(response.body, limit, tooLarge, wait, progress);
}

/**
 * All bytes of a stream; one with more than `limit` is cancelled.
 * @param {ReadableStream<Uint8Array> | null} stream
 * @param {number} limit
 * @param {() => Error} tooLarge what is thrown then
 * @param {<T>(read: Promise<T>) => Promise<T>} [wait] rejects where a part takes too long
 * @param {(loaded: number) => void} [progress] bytes, after every part
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function readAtMost(stream, limit, tooLarge, wait = (read) => read, progress = () => undefined) {
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  const reader = stream?.getReader();
  const next = () => reader && wait(reader.read());
  for (let part = await next(); part && !part.done; part = await next()) {
    length += part.value.length;
    if (length > limit) {
      await reader?.cancel().catch(() => undefined);
      throw tooLarge();
    }
    chunks.push(part.value);
    progress(length);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
