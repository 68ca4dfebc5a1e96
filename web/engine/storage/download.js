/**
 * @file Fetching one file of known size into a sink, going on where a broken connection left off.
 *
 * What is final and what is retried: a server that answers 404 or 410, or sends a file of another size, does not have
 * the file that the manifest names: artifact_invalid. Broken connections, 408, 429 and 5xx are retried, a bounded number of
 * times without progress, and then are `network`; any other status is `network` at once.
 *
 * Silence: a connection on which nothing comes for `doubtMs` is either dead or slow, which nobody can tell. So the
 * rest is asked for once more beside it, and whichever sends a byte first goes on. Where nothing at all comes for `stallMs`,
 * whatever was tried meanwhile, it is `network`. Bytes of any file of this thread count: where a browser keeps requests
 * waiting for one another, the network is not silent. What arrived stays, and the next load goes on there.
 *
 * A refusal to go on from the middle (4xx, 501, another range than asked, compressed pieces) says nothing of the whole
 * file: what had arrived is dropped and the whole is asked for. What the bytes are worth, they and their hash say, not
 * the headers: those of another origin may be hidden, so that compressed files seem to have another length.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { brief } from "../format/quoting.js";
import { Patience, STALL_MS } from "../host/waits.js";

/**
 * @typedef {import("../core/protocol.js").Policy} Policy
 * @typedef {object} Sink
 * @property {number} received bytes it holds, from the start of the file on
 * @property {(chunk: Uint8Array) => void | Promise<void>} push
 * @property {() => void | Promise<void>} reset forget everything received
 */

/** @type {Policy} */
export const DEFAULT_POLICY = Object.freeze({ connections: 4, attempts: 5, backoffMs: 300, doubtMs: STALL_MS / 2, stallMs: STALL_MS });

/** Fewer new bytes than this between two breaks do not count as progress. */
const PROGRESS_BYTES = 65536;

/** Of downloads under way: each byte of any is a sign of life for all. @type {Set<Patience>} */
const waiting = new Set();

/** A failure that another attempt may mend. */
class Broken extends Error {}

/** The server does not go on from the middle of the file. */
class Refused extends Error {}

/**
 * @param {string} url
 * @param {import("../format/manifest.js").FileEntry} entry
 * @param {Sink} sink
 * @param {object} options
 * @param {Policy} options.policy
 * @param {AbortSignal} options.signal
 * @param {RequestCache} options.cache
 * @throws {EngineError} artifact_invalid, network
 */
export async function download(url, entry, sink, { policy, signal: given, cache }) {
  const { stallMs } = policy;
  const silence = new AbortController();
  const signal = AbortSignal.any([given, silence.signal]);
  const patience = new Patience(stallMs, () => {
    const got = `${sink.received} of ${entry.bytes} bytes`;
    silence.abort(new EngineError("network", `${entry.file}: nothing came for ${stallMs / 1000} s (${got})`, entry.field));
  });
  waiting.add(patience);
  try {
    await persist({ url, entry, sink, policy, signal, cache, ranges: true, ended: 0 });
  } finally {
    waiting.delete(patience);
    patience.end();
  }
}

/** @param {Job} job */
async function persist(job) {
  const { entry, sink, policy, signal } = job;
  let furthest = sink.received;
  let failures = 0;
  let fruitless = 0; // answers to ranges, one after the other, that brought nothing
  while (sink.received < entry.bytes) {
    signal.throwIfAborted();
    const from = job.ranges ? sink.received : 0;
    try {
      await attempt(job);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Refused) {
        await sink.reset();
        [job.ranges, failures] = [false, 0];
        continue;
      }
      if (!(error instanceof Broken)) throw error;
      const got = `${sink.received} of ${entry.bytes} bytes`;
      failures = job.ranges && sink.received >= furthest + PROGRESS_BYTES ? 1 : failures + 1;
      furthest = Math.max(furthest, sink.received);
      fruitless = from > 0 && sink.received === from ? fruitless + 1 : 0;
      if (failures >= policy.attempts && fruitless >= Math.min(2, policy.attempts)) {
        // It may be the pieces that the server, or the browser that is to decode them, cannot do: the whole, once. What
        // had arrived goes only when that does come.
        [job.ranges, failures, fruitless] = [false, policy.attempts - 1, 0];
      } else if (failures >= policy.attempts) {
        throw new EngineError("network", `${entry.file}: ${error.message} (${got}, ${failures} tries)`, entry.field, error);
      } else await pause(Math.min(policy.backoffMs * 2 ** (failures - 1), policy.backoffMs * 30), signal);
    }
  }
}

/**
 * @typedef {object} Job
 * @property {string} url
 * @property {import("../format/manifest.js").FileEntry} entry
 * @property {Sink} sink
 * @property {Policy} policy
 * @property {AbortSignal} signal
 * @property {RequestCache} cache
 * @property {boolean} ranges whether the server may be asked to go on from the middle
 * @property {number} ended how much of the file there was when an answer last came to an orderly end
 */

/**
 * One request, and another beside it where it is silent; what both fail with, or the first where nothing mends it.
 * @param {Job} job
 * @returns {Promise<void>}
 */
async function attempt(job) {
  /** @type {Set<AbortController>} */
  const running = new Set();
  /** @type {Patience | undefined} */
  let doubt;
  try {
    await new Promise((resolve, reject) => {
      const ask = () => {
        const own = new AbortController();
        const cache = running.size ? "no-store" : job.cache; // a cache would let it wait for the other
        running.add(own);
        const arrived = () => {
          doubt?.again();
          for (const other of running) if (other !== own) other.abort();
          for (const patience of waiting) patience.again();
        };
        request(job, job.ranges ? job.sink.received : 0, cache, own.signal, arrived).then(resolve, (error) => {
          own.abort(); // lets go of a body that was not read to its end
          running.delete(own);
          if (!(error instanceof Broken) || running.size === 0) reject(error);
        });
      };
      doubt = new Patience(job.policy.doubtMs, () => running.size < 2 && ask());
      ask();
    });
  } finally {
    doubt?.end();
    for (const own of running) own.abort();
  }
}

/**
 * From the first byte, or from where the sink stands.
 * @param {Job} job
 * @param {number} from
 * @param {RequestCache} cache
 * @param {AbortSignal} stop another request goes on instead
 * @param {() => void} arrived called before bytes are pushed
 */
async function request(job, from, cache, stop, arrived) {
  const { url, entry, sink } = job;
  const signal = AbortSignal.any([job.signal, stop]);
  /** @type {ReadableStreamDefaultReader<Uint8Array> | undefined} */
  let reader;
  try {
    const response = await broken(fetch(url, { cache, signal, headers: from ? { Range: `bytes=${from}-` } : {} }));
    checkResponse(response, job, from);
    if (!response.body) throw new Broken("the answer has no body");
    reader = response.body.getReader();
    const whole = response.status === 200;
    for (let first = true; ; first = false) {
      const { done, value } = await broken(reader.read());
      if (stop.aborted) throw new Broken("another request goes on");
      if (done) break;
      arrived();
      if (first && whole && sink.received > 0) await sink.reset();
      if (sink.received + value.length > entry.bytes) {
        if (!whole && from > 0) throw new Refused("more than the rest of the file");
        throw invalidArtifact(`${entry.file} is longer than ${entry.bytes} bytes`, entry.field);
      }
      await sink.push(value);
    }
    if (sink.received === entry.bytes) return;
    // An orderly end. Either the file is that short, or a server that names no length was cut off.
    const named = whole && Number(response.headers.get("content-length") ?? -1) === sink.received;
    if (named || (sink.received > 0 && sink.received === job.ended)) {
      throw invalidArtifact(`${entry.file} has ${sink.received} bytes, not ${entry.bytes}`, entry.field);
    }
    job.ended = sink.received;
    throw new Broken("the connection ended early");
  } finally {
    reader?.releaseLock();
  }
}

/**
 * Decides what a response's status and headers mean for this file.
 * @param {Response} response
 * @param {Job} job
 * @param {number} from first byte that was asked for
 */
function checkResponse(response, job, from) {
  const { status, headers } = response;
  const { entry } = job;
  if (status === 408 || status === 429 || (status >= 500 && !(from > 0 && status === 501))) {
    throw new Broken(`HTTP ${status}`);
  }
  if (status === 206) {
    // A server of another origin may hide Content-Range; then the hash tells in the end.
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    const wrong = range !== null && (Number(range[1]) !== from || (range[2] !== "*" && Number(range[2]) !== entry.bytes));
    const unread = headers.has("content-encoding") || /^multipart\//.test(headers.get("content-type") ?? "");
    if (from > 0 && (wrong || unread)) throw new Refused("another range than was asked for");
    if (wrong) throw invalidArtifact(`${entry.file} is sent as ${brief(range[0])}, not as ${entry.bytes} bytes`, entry.field);
  } else if (status !== 200) {
    if (from > 0) throw new Refused(`HTTP ${status}`);
    if (status === 404 || status === 410) throw invalidArtifact(`${entry.file} is missing (HTTP ${status})`, entry.field);
    throw new EngineError("network", `${entry.file}: HTTP ${status}`, entry.field);
  } else if (from > 0) job.ranges = false; // the server ignores Range
}

/**
 * fetch and its body reject with a TypeError for whatever goes wrong on the way.
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
async function broken(promise) {
  try {
    return await promise;
  } catch (error) {
    throw new Broken(String(error), { cause: error });
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
