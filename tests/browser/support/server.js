/**
 * @file A static server for tests that can do to a download what networks and broken hosts do: cut it off, end it early,
 * change a byte, ignore ranges, answer with an error, or wait. It logs what was asked for.
 */

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/**
 * @typedef {object} Fault what one request gets
 * @property {number} [status] answer with this status and nothing else
 * @property {number} [cutAfter] send so many bytes of the body, then break the connection
 * @property {number} [endAfter] send so many bytes without a Content-Length, then end as if that were all
 * @property {boolean} [ignoreRange] answer 200 with the whole file
 * @property {number} [shiftRange] answer a range that starts so many bytes later than asked
 * @property {number} [flip] offset in the file of a byte that is sent inverted
 * @property {number} [append] so many bytes more than the file has, without a Content-Length
 * @property {Promise<unknown>} [hold] wait for this before the first byte of the body
 * @property {Record<string, string>} [headers] in place of the usual ones
 * @property {Promise<unknown>} [silent] wait for this before anything is sent
 * @property {Uint8Array} [body] send this instead of the file
 * @property {string} [encoding] the Content-Encoding of that body
 * @property {boolean | "piece"} [gzip] send it compressed; of a range what lies there in the compressed file, or the piece of
 *   the file compressed
 * @property {boolean} [ranges] only for requests of a range: others get the file, and leave this for the next
 * @property {boolean} [always] for every request from now on, not for one
 * @typedef {{path: string, range: string | null, status: number}} LogEntry
 */

const TYPES = new Map([
  [".html", "text/html; charset=utf-8"],
  [".js", "text/javascript; charset=utf-8"],
  [".mjs", "text/javascript; charset=utf-8"],
  [".json", "application/json"],
  [".css", "text/css; charset=utf-8"],
  [".svg", "image/svg+xml"],
  [".png", "image/png"],
  [".webmanifest", "application/manifest+json"],
  [".wasm", "application/wasm"],
]);
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'";

const PIECE = 1 << 20;
const PRELUDE = "/prelude.js";
const WEB = fileURLToPath(new URL("../../../web/", import.meta.url));
/** The page's workers: they come bundled, as a built site has them, and a load asks for ten scripts instead of a hundred and thirty. */
const WORKER = /\/(router\/(worker|text_worker|memory_worker)|engine\/(worker|wasm\/thread|storage\/prefetch_worker|grammar\/grammar_worker))\.js$/;

export class FaultServer {
  /** @type {LogEntry[]} */
  log = [];
  /** @type {Map<string, Fault[]>} */
  #faults = new Map();
  #http = createServer((request, response) => {
    this.#serve(request, response).catch(() => response.destroy());
  });
  /** @type {[prefix: string, folder: string][]} */
  #mounts = [];
  #isolated;
  /** Content-Security-Policy of every response. */
  policy = POLICY;
  /** A script that every worker runs before its own. */
  prelude = "";
  /** Whether pages of other origins may read what this sends. */
  open = false;
  /** Whether workers come as the modules that they are made of. */
  apart = false;

  /**
   * @param {Record<string, string>} mounts URL prefix → folder; the longest prefix wins
   * @param {{isolated: boolean}} options isolated: send COOP and COEP
   */
  constructor(mounts, { isolated }) {
    for (const [prefix, folder] of Object.entries(mounts)) this.mount(prefix, folder);
    this.#isolated = isolated;
  }

  /**
   * @param {string} prefix
   * @param {string} folder
   */
  mount(prefix, folder) {
    this.#mounts.push([prefix, folder]);
    this.#mounts.sort(([a], [b]) => b.length - a.length);
  }

  /** @returns {Promise<string>} the origin, on a free loopback port */
  async start() {
    await new Promise((resolve) => {
      this.#http.listen(0, "127.0.0.1", () => resolve(null));
    });
    const address = /** @type {import("node:net").AddressInfo} */ (this.#http.address());
    return `http://127.0.0.1:${address.port}`;
  }

  async stop() {
    this.#http.closeAllConnections();
    await new Promise((resolve) => {
      this.#http.close(resolve);
    });
  }

  /**
   * Faults for the next requests of a path, in order.
   * @param {string} url path
   * @param {...Fault} faults
   */
  fault(url, ...faults) {
    this.#faults.set(url, [...(this.#faults.get(url) ?? []), ...faults]);
  }

  /** @param {string} url path @returns {LogEntry[]} */
  requests(url) {
    return this.log.filter((entry) => entry.path === url);
  }

  /** Forget the log and all faults. */
  clear() {
    this.log = [];
    this.#faults.clear();
  }

  /** @param {string} url @param {boolean} ranged @returns {Fault} */
  #nextFault(url, ranged) {
    const queue = this.#faults.get(url) ?? [];
    if (queue[0]?.ranges && !ranged) return {};
    return (queue[0]?.always ? queue[0] : queue.shift()) ?? {};
  }

  /**
   * @param {import("node:http").IncomingMessage} request
   * @param {import("node:http").ServerResponse} response
   */
  async #serve(request, response) {
    const url = decodeURIComponent(new URL(request.url ?? "/", "http://host").pathname);
    const fault = this.#nextFault(url, request.headers.range !== undefined);
    await fault.silent;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const file = this.#find(url);
    const size = file ? await stat(file).then((s) => (s.isFile() ? s.size : -1), () => -1) : -1;
    response.setHeader("Cache-Control", "no-cache");
    if (this.policy) response.setHeader("Content-Security-Policy", this.policy);
    response.setHeader("Content-Type", TYPES.get(path.extname(url)) ?? "application/octet-stream");
    if (this.#isolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    if (url === PRELUDE || (this.prelude && WORKER.test(url) && file && Object.keys(fault).length === 0)) {
      response.setHeader("Content-Type", "text/javascript; charset=utf-8");
      response.end(url === PRELUDE ? this.prelude : `import "${PRELUDE}";\n${await readFile(/** @type {string} */ (file), "utf-8")}`);
      return;
    }
    if (this.open) {
      response.setHeader("Access-Control-Allow-Origin", "*");
      response.setHeader("Access-Control-Allow-Headers", "range");
    }
    if (fault.gzip && file) {
      const from = range ? Number(range[1]) : 0;
      const plain = await readFile(file);
      const whole = fault.gzip === "piece" ? Buffer.concat([plain.subarray(0, from), gzipSync(plain.subarray(from))]) : gzipSync(plain);
      this.log.push({ path: url, range: request.headers.range ?? null, status: from ? 206 : 200 });
      if (from) response.setHeader("Content-Range", `bytes ${from}-${whole.length - 1}/${whole.length}`);
      response.writeHead(from ? 206 : 200, { "Content-Encoding": "gzip", "Content-Length": whole.length - from });
      response.end(whole.subarray(from, from + (fault.cutAfter ?? whole.length)));
      return;
    }
    for (const [name, value] of Object.entries(fault.headers ?? {})) response.setHeader(name, value);
    let start = 0;
    let end = size;
    response.statusCode = fault.status ?? (size < 0 ? 404 : 200);
    if (response.statusCode === 200 && range && !fault.ignoreRange) {
      start = Number(range[1]) + (fault.shiftRange ?? 0);
      if (range[2]) end = Math.min(end, Number(range[2]) + 1);
      response.statusCode = start < size ? 206 : 416;
      response.setHeader("Content-Range", start < size ? `bytes ${start}-${end - 1}/${size}` : `bytes */${size}`);
    }
    if (fault.encoding) response.setHeader("Content-Encoding", fault.encoding);
    this.log.push({ path: url, range: request.headers.range ?? null, status: response.statusCode });
    if (fault.body || !file || response.statusCode > 206) {
      response.end(fault.body);
      return;
    }
    await this.#body(response, file, start, end, fault);
  }

  /**
   * @param {import("node:http").ServerResponse} response
   * @param {string} file
   * @param {number} start
   * @param {number} end exclusive
   * @param {Fault} fault
   */
  async #body(response, file, start, end, fault) {
    const stop = Math.min(end, start + (fault.cutAfter ?? fault.endAfter ?? Infinity));
    if (fault.endAfter === undefined && fault.append === undefined) response.setHeader("Content-Length", end - start);
    response.flushHeaders();
    await fault.hold;
    if (stop > start) {
      let at = start;
      for await (const chunk of createReadStream(file, { start, end: stop - 1, highWaterMark: PIECE })) {
        const flip = (fault.flip ?? -1) - at;
        if (flip >= 0 && flip < chunk.length) chunk[flip] ^= 0xff;
        at += chunk.length;
        await new Promise((resolve) => {
          response.write(chunk, resolve);
        });
      }
    }
    if (fault.append) response.write(Buffer.alloc(fault.append));
    if (fault.cutAfter !== undefined) response.destroy();
    else response.end();
  }

  /** @param {string} url @returns {string | null} */
  #find(url) {
    for (const [prefix, folder] of this.#mounts) {
      if (!url.startsWith(prefix)) continue;
      const file = path.resolve(folder, `.${path.posix.normalize(`/${url.slice(prefix.length)}`)}`);
      if (!file.startsWith(path.resolve(folder))) return null;
      return !this.apart && WORKER.test(url) && file.startsWith(WEB) ? path.join(WEB, "bundled", file.slice(WEB.length)) : file;
    }
    return null;
  }
}
