/** @file An answer as it is written: at most one change of the page a frame. */

import { make } from "../dom.js";
import { t } from "../i18n.js";
import { highlightMore } from "./highlight.js";
import { loadParser } from "./lexed.js";
import { codeBlock } from "./markdown.js";
import { callName, indented, parts } from "./parts.js";
import { Prose } from "./prose.js";

/** @typedef {import("./parts.js").Part} Part */
/** @typedef {Part & {element: HTMLElement, prose: Prose | null}} Shown */

/** Between two changes lies so many times what one takes. */
const SHARE = 3;
/** Characters that become elements in one frame: a long answer is shown in steps when all of it comes at once. */
const AT_ONCE = 2000;

export class AnswerView {
  element = make("div", "answer");
  /** How often the page was changed. */
  writes = 0;
  /** Milliseconds that the last change took, and when it was done: a long answer is shown in larger steps. */
  #cost = 0;
  #wrote = 0;
  /** @type {Shown[]} */
  #shown = [];
  #text = "";
  #whole = false;
  /** Whether the page has, or is about to have in steps, all of the text. */
  #written = true;
  #frame = 0;
  #after;

  /** @param {() => void} [after] each change */
  constructor(after = () => {}) {
    this.#after = after;
  }

  /** @param {string} text @param {boolean} whole nothing more comes */
  update(text, whole) {
    this.#text = text.replace(/\r\n?/g, "\n");
    this.#whole = whole;
    this.#written = false;
    // What was there before is shown at once, and so is the end where nobody looks: a hidden page has no frames.
    if (whole && (this.writes === 0 || document.hidden)) void loadParser().then(() => this.#write());
    else {
      void loadParser();
      this.#next();
    }
  }

  #next() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#written || this.#whole || performance.now() - this.#wrote >= SHARE * this.#cost) this.#write();
      else this.#next();
    });
  }

  #write() {
    const began = performance.now();
    this.writes++;
    if (!this.#written) this.#divide();
    this.#written = true;
    let left = AT_ONCE;
    for (const { prose } of this.#shown) left = prose?.advance(left) ?? left;
    const more = highlightMore() || this.#shown.some(({ prose }) => prose?.due);
    this.#wrote = performance.now();
    this.#cost = this.#wrote - began;
    this.#after();
    if (more) this.#next();
  }

  /** The text into its parts. */
  #divide() {
    const found = parts(this.#text, this.#whole);
    for (const [i, part] of found.entries()) {
      const shown = this.#shown[i];
      if (shown && shown.kind === part.kind) this.#renew(shown, part);
      else {
        for (const old of this.#shown.splice(i)) old.element.remove();
        this.#shown.push(this.#made(part));
        this.element.append(this.#shown[i].element);
      }
    }
    for (const old of this.#shown.splice(found.length)) old.element.remove();
  }

  /** @param {Shown} shown @param {Part} part */
  #renew(shown, part) {
    if (shown.text === part.text && shown.open === part.open) return;
    [shown.text, shown.open] = [part.text, part.open];
    if (shown.prose) shown.prose.update(part.text, !part.open);
    if (part.kind === "think") named(shown.element, part);
    if (part.kind === "call") {
      const { element } = this.#made(part);
      shown.element.replaceWith(element);
      shown.element = element;
    }
  }

  /** @param {Part} part @returns {Shown} */
  #made(part) {
    const { kind, text, open } = part;
    if (kind === "json") return { ...part, element: codeBlock(indented(text.trim()) ?? text, "json"), prose: null };
    if (kind === "call") {
      const element = make("div", "call");
      element.append(make("p", "call-name", open ? t("calling") : t("called", { name: callName(text) || "?" })), codeBlock(indented(text) ?? text, "json", open));
      return { ...part, element, prose: null };
    }
    const prose = new Prose();
    prose.update(text, !open);
    if (kind === "prose") return { ...part, element: prose.element, prose };
    const element = make("details", "think");
    element.append(make("summary", ""), prose.element);
    named(element, part);
    return { ...part, element, prose };
  }
}

/** @param {HTMLElement} element @param {Part} part */
function named(element, { open }) {
  const summary = element.querySelector("summary");
  if (summary) summary.textContent = open ? t("thinking") : t("thought");
}
