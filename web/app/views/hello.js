/** @file What stands where no message is yet: what this is, the model, and before it was ever loaded what loading takes. */

import { bytesOf, costOf, storedOf } from "../model/site.js";
import { forecast, SMALL } from "../model/device.js";
import { button, make, megabytes } from "../dom.js";
import { number, t } from "../i18n.js";

/**
 * @typedef {import("../types.js").SiteModel} SiteModel
 * @typedef {import("../model/device.js").Forecast} Forecast
 * @typedef {import("../model/engine.js").State} State
 */

const AS_GOOD = 0.002; // a perplexity that little above the source's

export class Hello {
  element = make("section", "hello");
  #card = make("div", "card");
  #actions;
  /** @type {State} */
  #state = "idle";

  /** @param {{start: () => void, ask: (question: string) => void, choose: (() => void) | null}} actions choose: where there is a choice */
  constructor(actions) {
    this.#actions = actions;
  }

  /** In the reader's language. */
  draw() {
    const ideas = make("ul", "ideas");
    for (const key of /** @type {const} */ (["idea_1", "idea_2", "idea_3"])) {
      const item = make("li", "");
      item.append(button(t(key), "idea", () => this.#actions.ask(t(key))));
      ideas.append(item);
    }
    this.element.replaceChildren(make("h2", "", t("hello")), make("p", "lead", t("hello_lead")), this.#card, ideas);
  }

  /**
   * @param {SiteModel} model
   * @param {string | null} level
   * @param {State} state
   */
  async show(model, level, state) {
    this.#state = state;
    this.#card.hidden = state === "loading" || state === "ready";
    if (this.#card.hidden) return;
    const stored = await storedOf(model, level);
    const made = await forecast(bytesOf(model, level), stored.bytes);
    if (this.#state !== state) return;
    const rows = make("div", "card-head");
    rows.append(make("strong", "", model.name), make("span", "quiet", described(model, level)));
    const start = button(stored.bytes === stored.total ? t("start") : t("download_start", { size: megabytes(stored.total - stored.bytes) }), "primary", this.#actions.start);
    start.id = "start";
    const act = make("div", "row");
    act.append(start, ...(this.#actions.choose ? [button(t("choose_model"), "plain", this.#actions.choose)] : []));
    this.#card.replaceChildren(rows, make("p", `fit ${made.fit}`, fitText(made)), ...smallNote(model), act);
  }
}

/** @param {SiteModel} model @returns {HTMLElement[]} a very small model is named for what it is */
export function smallNote({ parameters }) {
  if (!parameters || parameters >= SMALL) return [];
  return [make("p", "quiet small", t("very_small", { millions: number(parameters / 1e6) }))];
}

/** @param {SiteModel} model @param {string | null} level @param {boolean} [named] the level too @returns {string} */
export function described(model, level, named = true) {
  const parts = [megabytes(bytesOf(model, level))];
  if (level && named) parts.push(level);
  const cost = costOf(model, level);
  if (cost !== null) parts.push(cost < AS_GOOD ? t("as_good") : t("costs", { percent: number(cost * 100, 1) }));
  if (model.context) parts.push(t("context_tokens", { tokens: number(model.context) }));
  if (model.license) parts.push(model.license);
  return parts.join(" · ");
}

/** @param {Forecast} forecast @returns {string} what this device will make of it */
export function fitText({ fit, memory, storage, need }) {
  const size = megabytes(need);
  if (memory === "not") return t("fit_not", { size });
  if (memory === "tight") return t("fit_tight_memory", { size });
  if (storage === "not") return t("fit_no_storage");
  if (fit === "tight") return t("fit_tight_storage");
  return memory === null ? t("fit_unknown", { size }) : t("fits", { size });
}
