/**
 * @file Fetching one file of known size into a sink, going on where a broken connection left off.
 *
 * What is final and what is retried: 404 and 410 mean that the artifact lacks a file its manifest names, and a wrong
 * size means that it is another file: artifact_invalid at once. Broken connections, stalls, 408, 429 and 5xx are
 * retried, a bounded number of times without progress, and then are `network`; any other status is `network` at once.
 */

import { EngineError, invalidArtifact } from "./errors.js";

/**
 * @typedef {import("./protocol.js").Policy} Policy
 * @typedef {object} Sink
 * @property {number} received bytes it holds, from the start of the file on
 * @property {(chunk: Uint8Array) => void | Promise<void>} push
 * @property {() => void | Promise<void>} reset forget everything received
 */

/** @type {Policy} */
export const DEFAULT_POLICY = Object.freeze({ connections: 4, attempts: 5, backoffMs: 300, stallMs: 30_000 });

/** Fewer new bytes than this between two breaks do not count as progress. */
const PROGRESS_BYTES = 65536;

/** A failure that another attempt may mend. */
class Broken extends Error {}

/**
 * @param {string} url
 * @param {import("./manifest.js").FileEntry} entry
 * @param {Sink} sink
 * @param {object} options
 * @param {Policy} options.policy
 * @param {AbortSignal} options.signal
 * @param {RequestCache} options.cache
 */
export async function download(url, entry, sink, { policy, signal, cache }) {
  let furthest = sink.received;
  let failures = 0;
  while (sink.received < entry.bytes) {
    signal.throwIfAborted();
    try {
      await attempt(url, entry, sink, policy, signal, cache);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof Broken)) throw error;
      failures = sink.received >= furthest + PROGRESS_BYTES ? 1 : failures + 1;
      furthest = Math.max(furthest, sink.received);
      if (failures >= policy.attempts) {
        const got = `${sink.received} of ${entry.bytes} bytes`;
        throw new EngineError("network", `${entry.file}: ${error.message} (${got}, ${failures} tries)`, entry.field, error);
      }
      await pause(Math.min(policy.backoffMs * 2 ** (failures - 1), policy.backoffMs * 30), signal);
    }
  }
}

/**
 * One request: from the first byte, or from where the sink stands.
 * @param {string} url
 * @param {import("./manifest.js").FileEntry} entry
 * @param {Sink} sink
 * @param {Policy} policy
 * @param {AbortSignal} outer
 * @param {RequestCache} cache
 */
async function attempt(url, entry, sink, policy, outer, cache) {
  const stall = new AbortController();
  let timer = setTimeout(() => stall.abort(), policy.stallMs);
  const signal = AbortSignal.any([outer, stall.signal]);
  /** @type {ReadableStreamDefaultReader<Uint8Array> | undefined} */
  let reader;
  try {
    const from = sink.received;
    const response = await broken(fetch(url, { cache, signal, headers: from ? { Range: `bytes=${from}-` } : {} }));
    await checkResponse(response, entry, sink);
    if (!response.body) throw new Broken("the answer has no body");
    reader = response.body.getReader();
    for (;;) {
      const { done, value } = await broken(reader.read());
      if (done) break;
      if (sink.received + value.length > entry.bytes) {
        throw invalidArtifact(`${entry.file} is longer than ${entry.bytes} bytes`, entry.field);
      }
      await sink.push(value);
      clearTimeout(timer);
      timer = setTimeout(() => stall.abort(), policy.stallMs);
    }
    if (sink.received < entry.bytes) throw new Broken("the connection ended early");
  } finally {
    clearTimeout(timer);
    stall.abort(); // lets go of a body that was not read to its end
    reader?.releaseLock();
  }
}

/**
 * Decides what a response's status and headers mean for this file.
 * @param {Response} response
 * @param {import("./manifest.js").FileEntry} entry
 * @param {Sink} sink
 */
async function checkResponse(response, entry, sink) {
  const { status, headers } = response;
  if (status === 404 || status === 410) throw invalidArtifact(`${entry.file} is missing (HTTP ${status})`, entry.field);
  if (status === 408 || status === 429 || status >= 500) throw new Broken(`HTTP ${status}`);
  if (status === 416) {
    await sink.reset();
    throw new Broken("the server refuses to go on from where the connection broke (HTTP 416)");
  }
  if (status === 206) {
    // A cross-origin server may hide Content-Range; then the hash tells in the end.
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    if (range && range[2] !== "*" && Number(range[2]) !== entry.bytes) {
      throw invalidArtifact(`${entry.file} has ${range[2]} bytes, not ${entry.bytes}`, entry.field);
    }
    if (range && Number(range[1]) !== sink.received) {
      await sink.reset();
      throw new Broken(`asked for the bytes after ${sink.received}, got those after ${range[1]}`);
    }
    return;
  }
  if (status !== 200) throw new EngineError("network", `${entry.file}: HTTP ${status}`, entry.field);
  if (sink.received > 0) await sink.reset(); // the server ignores Range: from the start again
  const length = headers.get("content-length");
  if (length !== null && !headers.has("content-encoding") && Number(length) !== entry.bytes) {
    throw invalidArtifact(`${entry.file} has ${length} bytes, not ${entry.bytes}`, entry.field);
  }
}

/**
 * fetch and its body reject with a TypeError for whatever goes wrong on the way, and with AbortError for a stall.
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
async function broken(promise) {
  try {
    return await promise;
  } catch (error) {
    const stalled = error instanceof DOMException && error.name === "AbortError";
    throw new Broken(stalled ? "the connection stalled" : String(error), { cause: error });
  }
}

/**
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    }
  });
}
