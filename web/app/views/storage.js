/** @file What this browser keeps of the site: by model, level and part, with what can be deleted, and how much room there is. */

import { InPage } from "../../client/inpage.js";
import { partsOf } from "../model/site.js";
import { button, make, megabytes } from "../dom.js";
import { number, t } from "../i18n.js";
import { explain } from "../messages.js";
import { sheet } from "./sheet.js";

/**
 * @typedef {import("../types.js").SiteModel} SiteModel
 * @typedef {import("../../client/storage.js").StoredFile} StoredFile
 * @typedef {{name: string, files: StoredFile[], total: number}} Group
 */

const KINDS = /** @type {const} */ (["prefixes", "answers", "unfinished", "python", "measurements", "site"]);

/** @param {SiteModel[]} models */
export function showStorage(models) {
  const { body } = sheet("storage", t("storage"));
  draw(body, models).catch((error) => body.replaceChildren(alert(explain(error))));
}

/** @param {HTMLElement} body @param {SiteModel[]} models @param {unknown} [error] of the last deletion */
async function draw(body, models, error) {
  const [files, kinds, space, all] = await Promise.all([InPage.storage.files(), InPage.storage.list(), InPage.storage.estimate(), groups(models)]);
  const again = (/** @type {() => Promise<unknown>} */ act) => async () => {
    const failed = await act().then(() => undefined, (why) => why);
    await draw(body, models, failed);
  };
  const parts = [];
  if (error) parts.push(alert(explain(error)));
  parts.push(...quota(space, again));
  parts.push(make("h3", "", t("stored_models")));
  const named = new Set();
  const rows = [];
  for (const { name, hashes, total } of all) {
    const own = files.filter(({ sha256 }) => hashes.has(sha256));
    for (const { sha256 } of own) named.add(sha256);
    if (own.length) rows.push(group({ name, files: own, total }, again));
  }
  const others = files.filter(({ sha256 }) => !named.has(sha256));
  if (others.length) rows.push(group({ name: t("stored_others"), files: others, total: 0 }, again));
  parts.push(...(rows.length ? rows : [make("p", "quiet", t("stored_none"))]));
  if (KINDS.some((kind) => kinds.some((each) => each.kind === kind && each.entries))) parts.push(make("h3", "", t("stored_rest")));
  for (const kind of KINDS) {
    const found = kinds.find((each) => each.kind === kind);
    if (!found?.entries) continue;
    const row = make("div", "row stored");
    const forget = button(t("delete"), "plain small", again(() => InPage.storage.delete(kind)));
    forget.ariaLabel = `${t("delete")}: ${t(`kind_${kind}`)}`;
    row.append(make("span", "", t(`kind_${kind}`)), make("span", "quiet grow", t("entries", { entries: number(found.entries) })), forget);
    parts.push(row);
  }
  body.replaceChildren(...parts);
}

/** @param {SiteModel[]} models @returns {Promise<{name: string, hashes: Set<string>, total: number}[]>} a level each */
async function groups(models) {
  const wanted = models.flatMap((model) => (model.levels.length ? model.levels.map(({ name }) => ({ model, level: /** @type {string | null} */ (name) })) : [{ model, level: null }]));
  return Promise.all(wanted.map(async ({ model, level }) => {
    const parts = await partsOf(model, level);
    const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
    return { name: level ? `${model.name} · ${level}` : model.name, hashes: new Set(parts.map(({ sha256 }) => sha256)), total };
  }));
}

/** @param {Group} group @param {(act: () => Promise<unknown>) => () => void} again */
function group({ name, files, total }, again) {
  const box = make("details", "stored-model");
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const summary = make("summary", "");
  const size = total && bytes < total ? t("bytes_of", { loaded: megabytes(bytes), total: megabytes(total) }) : megabytes(bytes);
  summary.append(make("span", "", name), make("span", "quiet", size));
  const list = make("ul", "parts");
  for (const [i, file] of files.entries()) list.append(make("li", "", `${t("part", { n: i + 1 })} · ${megabytes(file.bytes)}${file.whole ? "" : ` · ${t("part_open")}`} · ${file.sha256.slice(0, 12)}`));
  const forget = button(t("delete"), "plain small", again(() => InPage.storage.deleteFiles(files.map(({ sha256 }) => sha256))));
  forget.ariaLabel = `${t("delete")}: ${name}`;
  box.append(summary, list, forget);
  return box;
}

/**
 * @param {import("../../engine/host/site_data.js").Space} space
 * @param {(act: () => Promise<unknown>) => () => void} again
 * @returns {HTMLElement[]}
 */
function quota({ usage, quota: most, persisted }, again) {
  const parts = [];
  if (usage !== null && most !== null) {
    const meter = make("meter", "");
    [meter.max, meter.value, meter.high] = [most, usage, most * 0.9];
    meter.ariaLabel = t("quota");
    parts.push(make("p", "", t("quota_used", { used: megabytes(usage), all: megabytes(most) })), meter);
  }
  if (persisted) parts.push(make("p", "quiet", t("persisted")));
  else {
    const row = make("div", "row");
    row.append(make("span", "quiet", t("not_persisted")), button(t("persist"), "plain small", again(() => InPage.storage.persist())));
    parts.push(row);
  }
  return parts;
}

/** @param {string} text */
function alert(text) {
  const made = make("p", "notice bad", text);
  made.setAttribute("role", "alert");
  return made;
}
