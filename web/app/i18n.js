/** @file The page's words in the reader's language: texts.js has all of them. */

import { TEXTS } from "./texts.js";

/** @typedef {keyof typeof TEXTS.en} Key */

export const LANGUAGES = /** @type {const} */ ({ en: "English", de: "Deutsch" });
/** @type {keyof typeof LANGUAGES} */
let language = "en";

/** @param {string | null} wanted null: as the browser says */
export function speak(wanted) {
  const asked = wanted ? [wanted] : navigator.languages;
  const found = asked.map((each) => each.slice(0, 2)).find((each) => Object.hasOwn(LANGUAGES, each));
  language = /** @type {keyof typeof LANGUAGES} */ (found ?? "en");
  document.documentElement.lang = language;
  for (const each of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-t]"))) each.textContent = t(/** @type {Key} */ (each.dataset.t));
  for (const each of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-label]"))) labelled(each, t(/** @type {Key} */ (each.dataset.label)));
}

/** @param {HTMLElement} each @param {string} text */
function labelled(each, text) {
  each.ariaLabel = text;
  if (each instanceof HTMLInputElement) each.placeholder = text;
  else if (each instanceof HTMLButtonElement) each.title = text;
}

/**
 * @param {Key} key
 * @param {Record<string, string | number>} [values] for what stands in braces
 */
export function t(key, values = {}) {
  return TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** @param {number} value @param {number} [digits] */
export function number(value, digits = 0) {
  return value.toLocaleString(language, { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}

/** @param {number} time @returns {string} of today the hour, else the day */
export function day(time) {
  const date = new Date(time);
  if (date.toDateString() === new Date().toDateString()) return date.toLocaleTimeString(language, { hour: "numeric", minute: "2-digit" });
  return date.toLocaleDateString(language, { day: "numeric", month: "short", year: "numeric" });
}
