/**
 * @file The snapshot of Python's memory that comes with a site (py/inpage/cli/snapshot.py): fetched where the line brings it
 * sooner than a start without it would take. What the line gives is what Python's library came with a moment ago; then what
 * the snapshot itself comes with, so that one that turns out slower is given up. Its hash stands in the site's python.json.
 */

import { integer, object } from "../engine/format/check.js";
import { invalidArtifact } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";
import { FILE_BYTES } from "../engine/format/limits.js";
import { digestOf } from "../engine/storage/sha256.js";
import { place } from "../engine/host/places.js";
import { bytesOf, STALL_MS, within } from "../engine/host/waits.js";
import { keyIn, plainStart } from "./kept_memory.js";

const RECORD = "python.json";
const STEP = "fetching Python's snapshot";
/** What a start without memory takes on a fast machine: assumed until one was seen here. */
const PLAIN_MS = 2000;
/** Of that, what a start from memory takes. */
const RESTORE = 0.2;
/** Before, what has come says little: this thread is busy with Pyodide's scripts. */
const SAMPLE_MS = 500;
/** Characters. */
const TEXT = 1000;
const GZIP = [0x1f, 0x8b];

/** @typedef {{bytes: Uint8Array<ArrayBuffer> | null, sha256: string, why: string}} Brought bytes: null where Python starts without */

/**
 * @param {string} key of what is wanted
 * @param {Promise<{bytes: number, ms: number}>} line what came over it
 * @returns {Promise<Brought>}
 */
export async function bring(key, line) {
  const none = (/** @type {string} */ why) => ({ bytes: null, sha256: "", why });
  try {
    const [record, seen] = await Promise.all([described(), plainStart()]);
    if (typeof record === "string") return none(record);
    const { connection } = /** @type {{connection?: {saveData?: boolean}}} */ (globalThis.navigator);
    if (connection?.saveData) return none("this browser saves data");
    const plain = seen ?? PLAIN_MS;
    const budget = plain * (1 - RESTORE);
    const { bytes, ms } = await line;
    const expected = (record.packed / bytes) * ms;
    const than = `a start without it takes ${seconds(plain)}${seen ? "" : " on a fast machine"}`;
    const size = `the site's snapshot of ${megabytes(record.packed)}`;
    if (expected > budget) return none(`${size} would take ${seconds(expected)}, ${than}`);
    const began = performance.now();
    const memory = await fetched(record, budget);
    const took = performance.now() - began;
    if ((await digestOf(memory)) !== record.sha256) return none(`${size} is not what the site's ${RECORD} says`);
    if (keyIn(memory) !== key) return none(`${size} is of another version`);
    return { bytes: memory, sha256: record.sha256, why: `${size} came in ${seconds(took)}, ${than}` };
  } catch (error) {
    return none(String(error instanceof Error ? error.message : error));
  }
}

/** @typedef {{file: string, packed: number, bytes: number, sha256: string}} Record */

/** @returns {Promise<Record | string>} a text: why there is none */
async function described() {
  const response = await within(fetch(place(RECORD), { cache: "no-cache" }), STALL_MS, STEP, RECORD);
  if (!response.ok) return "the site has no snapshot of it";
  const bytes = await bytesOf(response, "site", STEP, RECORD);
  const { file, why, ...rest } = object(parsed(new TextDecoder().decode(bytes), RECORD), RECORD);
  if (file === null) return `the site was built without a snapshot of it: ${text(why, "why")}`;
  return {
    file: text(file, "file"),
    packed: integer(rest.packed, "packed", 1, FILE_BYTES.python),
    bytes: integer(rest.bytes, "bytes", 1, FILE_BYTES.python),
    sha256: text(rest.sha256, "sha256"),
  };
}

/** @param {unknown} value @param {string} field @returns {string} */
function text(value, field) {
  if (typeof value !== "string" || value.length > TEXT) throw invalidArtifact("must be a short text", field);
  return value;
}

/**
 * Unpacked. Where a host says that the file is encoded, the browser has unpacked it.
 * @param {Record} record
 * @param {number} budget milliseconds
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function fetched({ file, packed, bytes }, budget) {
  const began = performance.now();
  const left = () => Math.max(1, budget - (performance.now() - began));
  const giveUp = new AbortController();
  try {
    const response = await within(fetch(place(file), { signal: giveUp.signal }), left(), STEP, file);
    if (!response.ok || !response.body) throw new Error(`${file}: HTTP ${response.status}`);
    const reader = response.body.getReader();
    const next = () => within(reader.read(), left(), STEP, file);
    let part = await next();
    const gzip = part.value?.[0] === GZIP[0] && part.value[1] === GZIP[1];
    const size = gzip ? packed : bytes;
    let came = 0;
    /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */
    const body = new ReadableStream({
      async pull(controller) {
        if (part.done) return controller.close();
        came += part.value.length;
        const ms = performance.now() - began;
        if (ms > SAMPLE_MS && ((size - came) / came) * ms > left()) throw new Error(`${file} came too slowly: ${megabytes(came)} in ${seconds(ms)}`);
        controller.enqueue(part.value);
        part = await next();
      },
    });
    return await filled(gzip ? body.pipeThrough(new DecompressionStream("gzip")) : body, bytes, file);
  } catch (error) {
    giveUp.abort();
    throw error;
  }
}

/** @param {ReadableStream<Uint8Array>} stream @param {number} bytes @param {string} file */
async function filled(stream, bytes, file) {
  const target = new Uint8Array(bytes);
  const reader = stream.getReader();
  let at = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (at + part.value.length > bytes) throw new Error(`${file} holds more than ${bytes} bytes`);
    target.set(part.value, at);
    at += part.value.length;
  }
  if (at < bytes) throw new Error(`${file} holds ${at} bytes, not ${bytes}`);
  return target;
}

/** @param {number} ms */
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
