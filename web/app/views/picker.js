/** @file The models of the site: how large, how precise, how much they read, and whether this device has room for them. */

import { bytesOf, storedOf } from "../model/site.js";
import { forecast } from "../model/device.js";
import { button, make } from "../dom.js";
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
      head.append(make("h3", "", model.name), make("span", "quiet", described(model, level)));
      const fit = make("p", "fit", t("looking"));
      const use = button(t(current ? "in_use" : "use_model"), current ? "plain" : "primary", () => {
        dialog.close();
        choose(model.id, level);
      });
      use.disabled = current;
      use.ariaLabel = `${use.textContent}: ${model.name}${level ? ` ${level}` : ""}`;
      card.append(head, fit, ...smallNote(model), use);
      body.append(card);
      void said(model, level, fit);
    }
  }
}

/** @param {SiteModel} model @param {string | null} level @param {HTMLElement} place */
async function said(model, level, place) {
  const stored = await storedOf(model, level);
  const made = await forecast(bytesOf(model, level), stored.bytes);
  place.className = `fit ${made.fit}`;
  place.textContent = fitText(made) + (stored.bytes === stored.total ? ` ${t("is_stored")}` : "");
}
