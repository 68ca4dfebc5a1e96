/**
 * @file OpenAI's interface for JavaScript on the page: `fetch` whose server is the router. What goes wrong is a status and
 * a body in OpenAI's shape, as from any server; an abort rejects as fetch's does. Answers are not compressed: browsers
 * unpack what comes from the network, not what a page or a service worker answers, and here nothing is sent anywhere.
 */

import { readAtMost } from "../engine/format/bounded.js";
import { EngineError } from "../engine/format/errors.js";
import { REQUEST_CHARS } from "../engine/format/limits.js";
import { brief, said } from "../engine/format/quoting.js";
import { Exchange } from "./exchange.js";

/**
 * @typedef {import("./remote.js").AnyLink} Link
 * @typedef {import("./turns.js").Turns} Turns
 */

/** Of errors that the router did not answer with itself; others are 500. @type {Record<string, number>} */
const STATUS = { invalid_request: 400, unsupported: 400, cancelled: 503, device_lost: 503, out_of_memory: 503, network: 503 };

/**
 * The endpoint's path, whatever base it is asked at.
 * @param {string} url
 * @returns {string}
 */
export function endpointPath(url) {
  const { pathname } = new URL(url);
  return /\/(?:v1\/(?!.*\/v1\/).*|health|metrics)$/.exec(pathname.replace(/\/$/, ""))?.[0] ?? pathname;
}

/**
 * @param {() => Promise<Link>} connect
 * @param {Turns} turns
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} rejects where the request is none, and with the signal's reason
 */
export async function respond(connect, turns, input, init) {
  const request = new Request(input, init);
  const { signal } = request;
  signal.throwIfAborted();
  try {
    const body = await textOf(request);
    signal.throwIfAborted();
    const exchange = new Exchange(turns, { op: "http", method: request.method, path: endpointPath(request.url), body });
    const abort = () => exchange.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    void exchange.run(connect).finally(() => signal.removeEventListener("abort", abort));
    const { status, headers } = await exchange.head;
    return new Response(exchange.body, { status, headers });
  } catch (error) {
    signal.throwIfAborted();
    return refused(error);
  }
}

/** A body that is not read. */
class BodyError extends EngineError {
  /** @param {number} status @param {import("../engine/format/errors.js").ErrorCode} code @param {string} message @param {string | null} [field] */
  constructor(status, code, message, field = null) {
    super(code, message, field);
    this.status = status;
  }
}

/** @param {unknown} error @returns {Response} */
function refused(error) {
  const { code, message, field } = error instanceof EngineError ? error : new EngineError("error", said(error));
  const status = error instanceof BodyError ? error.status : (STATUS[code] ?? 500);
  const type = status < 500 ? "invalid_request_error" : status === 503 ? "service_unavailable_error" : "server_error";
  return Response.json({ error: { message, type, param: field, code: code === "invalid_request" ? null : code } }, { status });
}

/** @param {Request} request @returns {Promise<string>} its body, unpacked */
async function textOf(request) {
  const encoding = request.headers.get("content-encoding")?.trim().toLowerCase() ?? "identity";
  if (!["identity", "gzip", ""].includes(encoding)) {
    throw new BodyError(415, "unsupported", `content-encoding is ${brief(encoding)}: send gzip, or none`, "content-encoding");
  }
  const plain = new Blob([await request.arrayBuffer()]).stream();
  const stream = encoding === "gzip" ? plain.pipeThrough(new DecompressionStream("gzip")) : plain;
  const tooLarge = () => new BodyError(413, "invalid_request", `the body is larger than ${REQUEST_CHARS} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readAtMost(stream, REQUEST_CHARS, tooLarge));
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError("invalid_request", `the body is not ${encoding === "gzip" ? "gzip of UTF-8" : "UTF-8"}: ${said(error)}`);
  }
}
