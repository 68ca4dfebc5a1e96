/** @file What the site holds (site.json), and what of it lies in this browser's storage already. */

import { InPage } from "../../client/inpage.js";
import { readBounded } from "../../engine/format/bounded.js";
import { EngineError } from "../../engine/format/errors.js";
import { parsed } from "../../engine/format/json.js";
import { isObject } from "../data/records.js";

/**
 * @typedef {import("../types.js").Site} Site
 * @typedef {import("../types.js").SiteModel} SiteModel
 * @typedef {{sha256: string, bytes: number}} Part
 */

/** @returns {Promise<Site>} @throws {EngineError} network, artifact_invalid */
export async function siteDescription() {
  const said = await json("site.json", "site");
  const { models, answers } = isObject(said) ? said : {};
  const read = Array.isArray(models) ? models.flatMap((each) => modelOf(each) ?? []) : [];
  if (!read.length) throw new EngineError("artifact_invalid", "site.json names no model: build the site again", "models");
  return { models: read, answers: typeof answers === "string" ? answers : null };
}

/** @param {unknown} value @returns {SiteModel | null} */
function modelOf(value) {
  if (!isObject(value) || typeof value.id !== "string" || typeof value.name !== "string") return null;
  const { id, name, path, bytes, license, context, parameters, levels, cost } = value;
  const count = (/** @type {unknown} */ each) => (typeof each === "number" && each > 0 ? each : 0);
  return {
    id, name,
    path: typeof path === "string" ? path : `models/${id}/`,
    bytes: count(bytes),
    license: typeof license === "string" ? license : "",
    context: count(context),
    parameters: count(parameters),
    cost: finite(cost),
    levels: (Array.isArray(levels) ? levels : []).filter((each) => isObject(each) && typeof each.name === "string").map((each) => ({ name: each.name, bytes: count(each.bytes), cost: finite(each.cost) })),
  };
}

/** @param {unknown} value @returns {number | null} */
function finite(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/**
 * @param {string} path
 * @param {"site" | "manifest"} kind
 */
async function json(path, kind) {
  const response = await fetch(path).catch((error) => ({ status: String(error) }));
  if (!(response instanceof Response && response.ok)) throw new EngineError("network", `${path}: ${response.status}`);
  return parsed(new TextDecoder().decode(await readBounded(response, kind, path, null)), path);
}

/** @param {SiteModel} model @param {string | null} level @returns {number} bytes of its weights */
export function bytesOf(model, level) {
  return model.levels.find(({ name }) => name === level)?.bytes ?? model.bytes;
}

/** @param {SiteModel} model @param {string | null} level @returns {number | null} by how much its perplexity is above the source's */
export function costOf(model, level) {
  return (model.levels.find(({ name }) => name === level) ?? model.levels[0] ?? model).cost;
}

/**
 * The files of a model's weights, as its manifest lists them.
 * @param {SiteModel} model
 * @param {string | null} level
 * @returns {Promise<Part[]>} empty where that cannot be told
 */
export async function partsOf(model, level) {
  try {
    const own = await json(`${model.path}manifest.json`, "manifest");
    const other = isObject(own) && Array.isArray(own.levels) ? own.levels.find((each) => isObject(each) && each.name === level) : null;
    const named = isObject(other?.manifest) && typeof other.manifest.file === "string" ? other.manifest.file : null;
    const manifest = named && /^[\w.-]+$/.test(named) ? await json(model.path + named, "manifest") : own;
    const shards = isObject(manifest) && isObject(manifest.weights) ? manifest.weights.shards : null;
    return (Array.isArray(shards) ? shards : []).filter((each) => typeof each?.sha256 === "string" && typeof each?.bytes === "number");
  } catch {
    return [];
  }
}

/**
 * @param {SiteModel} model
 * @param {string | null} level
 * @returns {Promise<{bytes: number, total: number}>} stored, of all
 */
export async function storedOf(model, level) {
  const [parts, files] = await Promise.all([partsOf(model, level), InPage.storage.files().catch(() => [])]);
  const whole = new Set(files.filter((file) => file.whole).map(({ sha256 }) => sha256));
  const sum = (/** @type {Part[]} */ some) => some.reduce((all, { bytes }) => all + bytes, 0);
  return { bytes: sum(parts.filter(({ sha256 }) => whole.has(sha256))), total: parts.length ? sum(parts) : bytesOf(model, level) };
}
