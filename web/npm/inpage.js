/**
 * @file The npm package `inpage`. It is the page's client (client/inpage.js), and says where the files lie that workers
 * load: each in the one form that Vite, webpack and a browser without a bundler all follow. Workers are whole files by
 * themselves (tools/package.py), so that a bundler has to copy them and no more.
 */

import { provide } from "../engine/host/places.js";

/**
 * @typedef {import("../client/types.js").Candidate} Candidate
 * @typedef {import("../client/types.js").Completion} Completion
 * @typedef {import("../client/types.js").Embeddings} Embeddings
 * @typedef {import("../client/types.js").EmbedParams} EmbedParams
 * @typedef {import("../client/types.js").Health} Health
 * @typedef {import("../client/types.js").Info} Info
 * @typedef {import("../client/types.js").Message} Message
 * @typedef {import("../client/types.js").ModelOptions} ModelOptions
 * @typedef {import("../client/types.js").ModelState} ModelState
 * @typedef {import("../client/types.js").Params} Params
 * @typedef {import("../client/types.js").Piece} Piece
 * @typedef {import("../client/types.js").Progress} Progress
 * @typedef {import("../client/types.js").Ranking} Ranking
 * @typedef {import("../client/types.js").Score} Score
 * @typedef {import("../client/types.js").StartOptions} StartOptions
 * @typedef {import("../client/types.js").Unfinished} Unfinished
 * @typedef {import("../engine/format/errors.js").ErrorCode} ErrorCode
 */

provide({
  "inpage.zip": new URL("./files/inpage.zip", import.meta.url).href,
  "engine/storage/prefetch_worker.js": new URL("./files/prefetch.js", import.meta.url).href,
  "engine/wasm/thread.js": new URL("./files/thread.js", import.meta.url).href,
  "engine/webgpu/choosing.wgsl": new URL("./files/choosing.wgsl", import.meta.url).href,
  "engine/webgpu/sampling.wgsl": new URL("./files/sampling.wgsl", import.meta.url).href,
  "engine/worker.js": new URL("./files/engine.js", import.meta.url).href,
  "python.bin": new URL("./files/python.bin", import.meta.url).href,
  "python.json": new URL("./files/python.json", import.meta.url).href,
  "router/memory_worker.js": new URL("./files/memory.js", import.meta.url).href,
  "router/text_worker.js": new URL("./files/text.js", import.meta.url).href,
  "router/worker.js": new URL("./files/router.js", import.meta.url).href,
  "vendor/pyodide/pyodide-lock.json": new URL("./files/pyodide-lock.json", import.meta.url).href,
  "vendor/pyodide/pyodide.asm.js": new URL("./files/pyodide.asm.js", import.meta.url).href,
  "vendor/pyodide/pyodide.asm.wasm": new URL("./files/pyodide.asm.wasm", import.meta.url).href,
  "vendor/pyodide/python_stdlib.zip": new URL("./files/python_stdlib.zip", import.meta.url).href,
});

export { InPage } from "../client/inpage.js";
export { EngineError } from "../engine/format/errors.js";
