/** @file Vectors for texts, and ranks of texts, from a router: one call each, with progress and an end from outside. */

import { EngineError } from "../engine/format/errors.js";
import { expect, idsOfEach, requestParams } from "./options.js";

/**
 * @typedef {import("./types.js").EmbedParams} EmbedParams
 * @typedef {import("./types.js").Embeddings} Embeddings
 * @typedef {import("./types.js").Ranking} Ranking
 * @typedef {(message: {op: string, [name: string]: unknown}, heard: (message: any) => void, signal?: AbortSignal) => Promise<any>} Ask a router
 */

/**
 * @param {Ask} ask
 * @param {string | unknown[] | Uint32Array | Int32Array} texts
 * @param {EmbedParams} [params]
 * @returns {Promise<Embeddings>}
 */
export async function embed(ask, texts, params) {
  const given = ArrayBuffer.isView(texts) ? idsOfEach([texts], "texts") : idsOfEach(texts, "texts");
  const { vectors, width, prompt_tokens } = await asked(ask, { op: "embed", texts: given }, params);
  const packed = atob(vectors);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i); // to iterate makes a string of each
  const all = new Float32Array(bytes.buffer);
  const each = Array.from({ length: all.length / width }, (_, i) => all.slice(i * width, (i + 1) * width));
  return { vectors: each, prompt_tokens };
}

/**
 * @param {Ask} ask
 * @param {string} query
 * @param {string[]} documents
 * @param {EmbedParams} [params]
 * @returns {Promise<Ranking>}
 */
export async function rerank(ask, query, documents, params) {
  return asked(ask, { op: "rerank", query, documents }, params);
}

/** @param {Ask} ask @param {{op: string, [name: string]: unknown}} message @param {EmbedParams} [given] */
function asked(ask, message, given) {
  const { model, signal, onProgress, ...params } = /** @type {EmbedParams} */ (requestParams(given));
  if (onProgress !== undefined) expect(onProgress, "onProgress", "function");
  if (signal?.aborted) return Promise.reject(new EngineError("cancelled", "it was cancelled"));
  return ask({ ...message, model, params }, ({ progress }) => {
    if (progress) onProgress?.(progress.done, progress.total);
  }, signal);
}
