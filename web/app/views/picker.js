/** @file The models of the site: how large, how precise, how much they read, and whether this device has room for them. */

import { bytesOf, storedOf } from "../model/site.js";
import { forecast } from "../model/device.js";
import { button, make, megabytes } from "../dom.js";
import { t } from "../i18n.js";
import { described, fitText, smallNote } from "./hello.js";
import { sheet } from "./sheet.js";

/** @typedef {import("../types.js").SiteModel} SiteModel */

/**
 * @param {SiteModel[]} models
 * @param {{model: string, level: string | null}} now
 * @param {(model: string, level: string | null) => void} choose
 */
export function pickModel(models, now, choose) {
  const { dialog, body } = sheet("models", t("models"));
  body.append(make("p", "quiet", t("models_lead")));
  for (const model of models) {
    const levels = model.levels.length > 1 ? model.levels.map(({ name }) => name) : [null];
    for (const level of levels) {
      const current = model.id === now.model && (levels.length === 1 || level === (now.level ?? levels[0]));
      const card = make("section", current ? "card current" : "card");
      const head = make("div", "card-head");
      head.append(make("h3", "", level ? `${model.name} · ${level}` : model.name), make("span", "quiet", described(model, level, false)));
      const fit = make("p", "fit", t("looking"));
      const use = button(t("looking"), "primary", () => {
        dialog.close();
        choose(model.id, level);
      });
      use.disabled = true;
      card.append(head, fit, ...smallNote(model), current ? make("p", "quiet small", t("in_use")) : use);
      body.append(card);
      void told(model, level, fit, use);
    }
  }
}

/**
 * What the device will make of it, and what choosing it takes: nothing is downloaded that a person was not told of.
 * @param {SiteModel} model
 * @param {string | null} level
 * @param {HTMLElement} place
 * @param {HTMLButtonElement} use
 */
async function told(model, level, place, use) {
  const stored = await storedOf(model, level);
  const missing = stored.total - stored.bytes;
  use.textContent = missing ? t("use_download", { size: megabytes(missing) }) : t("use_model");
  use.ariaLabel = `${use.textContent}: ${model.name}${level ? ` ${level}` : ""}`;
  use.disabled = false;
  const made = await forecast(bytesOf(model, level), stored.bytes);
  place.className = `fit ${made.fit}`;
  place.textContent = fitText(made) + (stored.bytes === stored.total ? ` ${t("is_stored")}` : "");
}
