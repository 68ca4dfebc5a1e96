/**
 * @file How much of each kind of file, message and text is read before it is refused: what is beyond is an attack or
 * damage, and memory must stay flat. py/inpage/limits.py has the same numbers; a test compares them.
 */

import { EngineError } from "./errors.js";

const MB = 2 ** 20;
/** Bytes of each kind of file. */
export const FILE_BYTES = Object.freeze({
  manifest: 16 * MB,
  plan: 32 * MB,
  tokenizer: 64 * MB,
  kernels: 64 * MB,
  shard: 16 * MB,
  answers: 64 * MB,
  answer: 4 * MB,
  prefix: 64 * MB,
  note: 1 * MB,
  settings: 1 * MB,
  package: 16 * MB,
  python: 64 * MB,
  site: 1 * MB,
});
/** Of one request, its prompt or messages included. */
export const REQUEST_CHARS = 8 * MB;
/** What a chat template may do: its own share, and more for each message. A step is a node of the template evaluated. */
export const RENDER_CHARS = 16 * MB;
export const RENDER_STEPS = 200_000;
export const RENDER_STEPS_PER_MESSAGE = 1_000;
/** Of one list that it makes. */
export const RENDER_ITEMS = 1_000_000;

/**
 * The body of a response, read only as far as its kind may be long. What counts is what arrives, not what headers say: a
 * small gzip unpacks to anything. Beyond the limit the connection is let go.
 * @param {Response} response
 * @param {keyof typeof FILE_BYTES} kind
 * @param {string} name of the file, for errors
 * @param {string | null} field
 * @param {<T>(read: Promise<T>) => Promise<T>} [wait] rejects where a part takes too long
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 * @throws {EngineError} artifact_invalid; what the body rejects with
 */
export async function readBounded(response, kind, name, field, wait = (read) => read) {
  const limit = FILE_BYTES[kind];
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  const reader = response.body?.getReader();
  const next = () => reader && wait(reader.read());
  for (let part = await next(); part && !part.done; part = await next()) {
    length += part.value.length;
    if (length > limit) {
      await reader?.cancel().catch(() => undefined);
      throw new EngineError("artifact_invalid", `${name} is larger than ${limit} bytes, the most that such a file may have`, field);
    }
    chunks.push(part.value);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
