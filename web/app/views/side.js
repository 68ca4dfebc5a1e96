/** @file The side with the conversations: beside the column on a desktop, over it on a phone. */

import { element } from "../dom.js";

export class Side {
  #open = element("open-list", HTMLButtonElement);
  /** @type {MediaQueryList} */
  #narrow = matchMedia("(max-width: 52rem)");

  constructor() {
    this.#open.addEventListener("click", () => this.toggle());
    element("close-list", HTMLButtonElement).addEventListener("click", () => this.close());
    element("shade", HTMLElement).addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing || !document.body.classList.contains("side-open") || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.close();
    });
    this.#narrow.addEventListener("change", () => {
      document.body.classList.remove("side-open");
      this.#said();
    });
    this.#said();
  }

  toggle() {
    const open = document.body.classList.toggle(this.#narrow.matches ? "side-open" : "side-closed") === this.#narrow.matches;
    this.#said();
    if (open && this.#narrow.matches) element("close-list", HTMLButtonElement).focus();
  }

  /** On a phone, where it lies over the conversation. */
  close() {
    if (!document.body.classList.contains("side-open")) return;
    document.body.classList.remove("side-open");
    this.#said();
    this.#open.focus();
  }

  #said() {
    const { classList } = document.body;
    this.#open.ariaExpanded = String(this.#narrow.matches ? classList.contains("side-open") : !classList.contains("side-closed"));
    // What lies behind it is out of reach meanwhile.
    element("column", HTMLElement).inert = classList.contains("side-open");
  }
}
