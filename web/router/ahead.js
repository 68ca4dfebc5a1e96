/**
 * @file What a load is going to need, begun while Python starts: the manifest, the worker of an engine, and weights, which are
 * hashed or fetched. Whatever fails here fails again where the load needs it, and is told there.
 */

import { EngineClient } from "../engine/client.js";
import { EngineError } from "../engine/format/errors.js";
import { bytesOf, STALL_MS, within } from "../engine/host/waits.js";
import { bringAhead } from "../engine/storage/verify.js";

/** The manifest that is under way, for the one who asks first. @type {{url: string, text: Promise<string>} | null} */
let early = null;
/** @type {EngineClient | null} */
let spare = null;

/** @param {string} artifact URL of the model's folder; behind "#" stands a level */
export function prepareLoad(artifact) {
  const base = artifact.replace(/\/?(#.*)?$/, "/");
  const url = `${base}manifest.json`;
  const text = fetchText(url, "manifest", "manifest.json");
  early = { url, text };
  text.then((manifest) => {
    bringAhead(base, manifest);
    if (!early) return; // Python was there sooner
    spare = new EngineClient();
    spare.warm();
  }).catch(() => undefined);
}

/** @returns {EngineClient} */
export function newEngine() {
  const made = spare ?? new EngineClient();
  spare = null;
  return made;
}

/**
 * The text of a JSON file whose hash nobody knows beforehand. It is checked in Python, which knows the schema.
 * @param {string} url
 * @param {keyof typeof import("../engine/format/limits.js").FILE_BYTES} kind
 * @param {string} field what it is, for errors
 * @returns {Promise<string>}
 */
export function fetchJson(url, kind, field) {
  const found = early?.url === url ? early.text : null;
  if (found) early = null;
  return found ?? fetchText(url, kind, field);
}

/** @param {string} url @param {keyof typeof import("../engine/format/limits.js").FILE_BYTES} kind @param {string} field @returns {Promise<string>} */
async function fetchText(url, kind, field) {
  try {
    const response = await within(fetch(url, { cache: "no-cache" }), STALL_MS, url, field);
    if (response.status === 404) throw new EngineError("artifact_invalid", `there is nothing at ${url}`, field);
    if (!response.ok) throw new EngineError("network", `${url}: HTTP ${response.status}`, field);
    return new TextDecoder().decode(await bytesOf(response, kind, url, field));
  } catch (error) {
    throw error instanceof EngineError ? error : new EngineError("network", `${url}: ${String(error)}`, field, error);
  }
}
