/** @file What a person should know and may dismiss, above the box; and the one error that stands now. */

import { button, element, iconButton, make } from "../dom.js";
import { t } from "../i18n.js";
import { explain } from "../messages.js";

export class Notices {
  #box = element("notice", HTMLElement);
  #error = element("error", HTMLElement);
  #retry = element("retry", HTMLButtonElement);
  /** @type {Map<string, HTMLElement>} */
  #shown = new Map();
  /** @type {Set<string>} */
  #dismissed = new Set();

  /** @param {() => void} retry */
  constructor(retry) {
    this.#retry.addEventListener("click", retry);
  }

  /**
   * @param {string} key of the notice: one of a key stands
   * @param {string | null} text null takes it away
   * @param {{label: string, act: () => void, needed?: boolean} | null} [action] needed: nothing goes on without it
   * @param {"" | "news" | "bad"} [kind] news: no warning; bad: what a person asked for failed
   */
  show(key, text, action = null, kind = "") {
    this.#shown.get(key)?.remove();
    this.#shown.delete(key);
    if (text !== null && !this.#dismissed.has(key + text)) {
      const line = make("div", `notice ${kind}`.trim());
      if (kind === "bad") line.setAttribute("role", "alert");
      const acts = make("span", "notice-acts");
      if (action) acts.append(button(action.label, action.needed ? "primary small" : "plain small", action.act));
      if (!action?.needed) {
        acts.append(iconButton("close", t("dismiss"), () => {
          if (!kind) this.#dismissed.add(key + text); // a state; what is told once may happen again
          this.show(key, null);
        }));
      }
      line.append(make("span", "", text), acts);
      this.#shown.set(key, line);
      this.#box.append(line);
    }
    this.#box.hidden = this.#shown.size === 0;
  }

  /** @param {unknown} error null takes the message away @param {boolean} [again] loading once more is offered */
  error(error, again = false) {
    this.#error.hidden = error === null;
    if (error === null) return;
    element("error-text", HTMLElement).textContent = explain(error);
    this.#retry.hidden = !again;
  }
}
