/** @file What a person is told of the model that answers: its name, where it runs, what is slow, and what has to be done. */

import { element, megabytes } from "../dom.js";
import { t } from "../i18n.js";
import { bytesOf } from "../model/site.js";
import { runsOn, slowness } from "./words.js";

/**
 * @typedef {import("../types.js").Settings} Settings
 * @typedef {import("../types.js").SiteModel} SiteModel
 * @typedef {import("../../client/types.js").Completion} Completion
 * @typedef {{consent: () => void, restart: (changes: Partial<Settings>) => void}} Actions consent: load what is to be
 *   downloaded; restart: what runs, with other settings
 * @typedef {{model: SiteModel, settings: Settings, engine: import("../model/engine.js").Engine}} Now
 */

export class Status {
  #notices;
  #actions;
  #name = element("model-name", HTMLElement);
  #engine = element("engine", HTMLButtonElement);

  /** @param {import("./notices.js").Notices} notices @param {Actions} actions */
  constructor(notices, actions) {
    this.#notices = notices;
    this.#actions = actions;
  }

  /** @param {Now} now */
  show({ model, settings, engine: { state, error, info } }) {
    const failed = state === "failed";
    this.#notices.error(failed ? error : null, true);
    const pins = /** @type {const} */ (["backend", "threads"]).flatMap((name) => (settings[name] === null ? [] : [`${name}=${settings[name]}`]));
    const unpin = { label: t("use_fastest"), act: () => this.#actions.restart({ backend: null, threads: null }), needed: true };
    this.#notices.show("pinned", failed && pins.length ? t("pin_failed", { pins: pins.join(", ") }) : null, unpin);
    this.#name.textContent = model.name + (settings.level ? ` · ${settings.level}` : "");
    this.#engine.textContent = info ? runsOn(info) : t(state === "loading" ? "starting" : failed ? "failed" : "not_loaded");
    this.#engine.dataset.variant = info?.variant ?? "";
    this.#engine.dataset.state = state;
    this.#notices.show("isolation", info && !globalThis.crossOriginIsolated ? t("one_thread") : null);
  }

  /** To load the model, where a conversation is shown and nothing is loaded yet. @param {Now} now @param {{empty: boolean, waits: boolean}} talk */
  offer({ model, settings, engine }, { empty, waits }) {
    if (engine.state !== "idle" || empty) {
      this.#notices.show("offer", null);
      return;
    }
    const size = megabytes(bytesOf(model, settings.level));
    this.#notices.show("offer", t(waits ? "waiting_start" : "not_loaded"), { label: t("download_start", { size }), act: this.#actions.consent, needed: true }, "news");
  }

  /** @param {Now} now @param {Completion | null} last */
  slow({ settings, engine: { info } }, last) {
    const measured = last && info && last.variant === info.variant && last.usage.completion_tokens > 8 ? last.decode_tps : null;
    const words = info ? slowness(info, measured) : null;
    const pinned = settings.backend !== null;
    this.#notices.show("slow", words, words && pinned ? { label: t("use_fastest"), act: () => this.#actions.restart({ backend: null }) } : null);
  }
}
