/** @file The box: what is typed stays there until it is in the conversation, also over a reload. */

import { keepTabValue, tabValue } from "../../engine/host/site_data.js";
import { element } from "../dom.js";
import { t } from "../i18n.js";

const DRAFT = "inpage-draft";

export class Composer {
  #form = element("ask", HTMLFormElement);
  #text = element("text", HTMLTextAreaElement);
  #send = element("send", HTMLButtonElement);
  #stop = element("stop", HTMLButtonElement);
  #running = false;

  /** What was sent before the page could take it is sent then. */
  #early = false;
  /** @type {{ask: (question: string) => boolean, stop: () => void} | null} */
  #actions = null;

  constructor() {
    this.#text.value ||= tabValue(DRAFT) ?? ""; // typed while the scripts came
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const question = this.#text.value.trim();
      this.#early = !this.#actions;
      if (!question || this.#running || !this.#actions?.ask(question)) return;
      this.#text.value = "";
      this.#typed();
    });
    this.#text.addEventListener("input", () => this.#typed());
    this.#text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    this.#stop.addEventListener("click", () => this.#actions?.stop());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
      // There it closes what is open, or clears what is typed.
      if (document.querySelector("dialog[open], body.side-open") || (event.target instanceof HTMLInputElement && event.target.type === "search")) return;
      this.#actions?.stop();
    });
    this.#controls();
  }

  /** @param {{ask: (question: string) => boolean, stop: () => void}} actions ask: whether the question was taken */
  connect(actions) {
    this.#actions = actions;
    if (this.#early) this.#form.requestSubmit();
  }

  /** In the reader's language. */
  draw() {
    this.#text.placeholder = t("ask");
  }

  /** @param {boolean} running */
  show(running) {
    if (this.#running === running) return;
    const had = this.#form.contains(document.activeElement);
    this.#running = running;
    this.#controls();
    if (had || document.activeElement === document.body) this.focus();
  }

  focus() {
    this.#text.focus();
  }

  #typed() {
    keepTabValue(DRAFT, this.#text.value);
    this.#controls();
  }

  #controls() {
    this.#send.hidden = this.#running;
    this.#stop.hidden = !this.#running;
    this.#send.disabled = !this.#text.value.trim();
  }
}
