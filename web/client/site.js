/**
 * @file Where things of a site lie: absolute URLs, since the worker that is told them has another address than the page.
 */

import { array, object } from "../engine/format/check.js";
import { EngineError } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";
import { ENTRIES } from "../engine/format/limits.js";
import { brief, said } from "../engine/format/quoting.js";
import { bytesOf, STALL_MS, within } from "../engine/host/waits.js";

/** The last part of a URL, or the id itself. @param {string} model @returns {string} */
export function nameOf(model) {
  return model.split("/").filter(Boolean).at(-1) ?? model;
}

/**
 * @param {string | URL | undefined} base
 * @param {string} model
 * @returns {string}
 */
export function artifactUrl(base, model) {
  return siteUrl(base, /[/:]/.test(model) ? model : `models/${model.replace(/#|$/, "/$&")}`);
}

/**
 * @param {string | URL | undefined} base of the site
 * @param {string} path
 * @returns {string}
 */
function siteUrl(base, path) {
  try {
    return new URL(path, new URL(base ?? "./", globalThis.document?.baseURI ?? globalThis.location.href)).href;
  } catch (error) {
    throw new EngineError("invalid_request", `no URL: base ${brief(String(base))}, ${brief(path)}: ${said(error)}`, "base", error);
  }
}

/**
 * @param {string | URL | undefined} base of the site
 * @returns {Promise<string[] | null>} ids of the models that the site says it has; null where it says nothing
 */
export async function siteModels(base) {
  try {
    const response = await within(fetch(siteUrl(base, "site.json")), STALL_MS, "site.json", "model");
    return modelsIn(new TextDecoder().decode(await bytesOf(response, "site", "site.json", "model")));
  } catch {
    return null;
  }
}

/**
 * @param {string} text of a site.json
 * @returns {string[] | null} null where it does not say so
 */
export function modelsIn(text) {
  const { models } = object(parsed(text, "site.json"), "site.json");
  const known = array(models, "models", ENTRIES).map((each, i) => object(each, `models[${i}]`).id);
  return known.every((id) => typeof id === "string") ? known : null;
}

/**
 * Settings with the bundle of answers where the site has it.
 * @param {string | URL | undefined} base
 * @param {import("./types.js").StartOptions["settings"]} settings
 */
export function placed(base, settings) {
  const { bundle } = settings?.answers ?? {};
  return typeof bundle === "string" ? { ...settings, answers: { ...settings?.answers, bundle: siteUrl(base, bundle) } } : settings;
}
