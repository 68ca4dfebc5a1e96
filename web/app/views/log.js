/** @file The conversation that is shown: its messages, what can be done with each, and what the model does not read. */

import { canGoOn } from "../chat/runs.js";
import { button, copyButton, element, iconButton, make } from "../dom.js";
import { t } from "../i18n.js";
import { ending } from "../messages.js";
import { AnswerView } from "../render/answer.js";

/**
 * @typedef {import("../chat/tree.js").Conversation} Conversation
 * @typedef {import("../types.js").Message} Message
 * @typedef {{edit: (message: Message, text: string) => void, again: (message: Message) => void, on: (message: Message) => void,
 *   show: (message: Message) => void, redraw: () => void}} Actions redraw: as it is now
 */

/** Nearer to the end than this, what is written scrolls along. */
const NEAR = 80;

export class Log {
  #log = element("log", HTMLElement);
  #scroller = /** @type {HTMLElement} */ (this.#log.parentElement);
  #end = element("to-end", HTMLButtonElement);
  /** @type {Map<string, {box: HTMLElement, answer: AnswerView | null, text: string, key: string}>} */
  #shown = new Map();
  #follow = true;
  #actions;
  #hello;
  #divider = make("p", "divider");
  #notes = /** @type {Map<string, string>} */ (new Map());

  /** @param {Actions} actions @param {HTMLElement} hello what stands where no message is */
  constructor(actions, hello) {
    this.#actions = actions;
    this.#hello = hello;
    this.#scroller.addEventListener("scroll", () => {
      if (this.#shown.size === 0) return;
      this.#follow = this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#scroller.clientHeight < NEAR;
      this.#end.hidden = this.#follow;
    }, { passive: true });
    this.#end.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#stay()).observe(this.#scroller);
  }

  toEnd() {
    this.#follow = true;
    this.#stay();
  }

  /** What to say of an answer beside its end: an engine that died. @param {string} id @param {string} text */
  note(id, text) {
    this.#notes.set(id, text);
  }

  /**
   * @param {Conversation} conversation
   * @param {string | null} running id of the message that is written
   * @param {number} dropped messages of the branch that the model does not read
   * @param {string} model the name of the one that runs
   */
  show(conversation, running, dropped, model) {
    const path = conversation.path();
    const ids = new Set(path.map(({ id }) => id));
    for (const [id, { box }] of this.#shown) {
      if (ids.has(id)) continue;
      box.remove();
      this.#shown.delete(id);
    }
    if (path.length) this.#hello.remove();
    else if (this.#log.firstChild !== this.#hello || this.#log.childElementCount > 1) {
      this.#log.replaceChildren(this.#hello);
      this.#scroller.scrollTop = 0;
      this.#end.hidden = true;
    }
    /** @type {ChildNode | null} */
    let before = null;
    for (const [i, message] of path.entries()) {
      const box = this.#message(conversation, message, message.id === running, i === path.length - 1, model);
      box.classList.toggle("left-out", i < dropped);
      const place = /** @type {ChildNode | null} */ (before ? before.nextSibling : this.#log.firstChild);
      if (place !== box) this.#log.insertBefore(box, place);
      before = box;
      if (i === dropped - 1) {
        this.#divider.textContent = t("left_out");
        box.after(this.#divider);
        before = this.#divider;
      }
    }
    if (dropped === 0) this.#divider.remove();
    this.#stay();
  }

  /** @param {Message} message that grows @returns {boolean} false where it is not shown as one that does */
  grow(message) {
    const shown = this.#shown.get(message.id);
    if (shown?.box.ariaBusy !== "true") return false;
    shown.answer?.update(message.text, false);
    if (message.text) shown.box.classList.replace("waiting", "writing");
    return true;
  }

  #stay() {
    if (this.#follow && this.#shown.size) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   * @param {boolean} running
   * @param {boolean} last
   * @param {string} model
   */
  #message(conversation, message, running, last, model) {
    const variants = conversation.variants(message);
    const key = JSON.stringify([message.status, message.note, running, last, variants.length, variants.indexOf(message), !model || message.model === model, document.documentElement.lang, this.#notes.get(message.id)]);
    const before = this.#shown.get(message.id);
    if (before?.box.querySelector(".edit")) return before.box; // what is typed there stands until it is sent or left
    if (before && before.key === key && before.text === message.text) return before.box;
    const answer = before?.answer ?? (message.role === "assistant" ? new AnswerView(() => this.#stay()) : null);
    const box = before?.box ?? make("article", "");
    const focused = box.contains(document.activeElement) ? document.activeElement?.ariaLabel : null;
    box.className = `message ${message.role}${running ? (message.text ? " writing" : " waiting") : ""}`;
    box.ariaLabel = t(message.role === "user" ? "you" : "answer");
    box.ariaBusy = String(running); // so that a screen reader reads the answer whole
    if (answer) {
      answer.update(message.text, !running);
      box.replaceChildren(answer.element);
    } else box.replaceChildren(make("div", "said", message.text));
    const said = [this.#notes.get(message.id) ?? "", running ? "" : ending(message)].filter(Boolean);
    for (const text of said) box.append(make("span", "ending", text));
    // What another page writes, or is about to be taken up here, has not ended.
    if (!running && !["running", "waiting"].includes(message.status)) box.append(this.#bar(conversation, message, variants, last, model));
    this.#shown.set(message.id, { box, answer, text: message.text, key });
    if (focused) /** @type {HTMLElement | undefined} */ ([...box.querySelectorAll("button")].find(({ ariaLabel }) => ariaLabel === focused))?.focus();
    return box;
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   * @param {Message[]} variants
   * @param {boolean} last
   * @param {string} model
   */
  #bar(conversation, message, variants, last, model) {
    const bar = make("div", last ? "actions last" : "actions");
    if (variants.length > 1) {
      const at = variants.indexOf(message);
      const go = (/** @type {number} */ to) => () => variants[to] && this.#actions.show(variants[to]);
      const [back, on] = [iconButton("left", t("variant_before"), go(at - 1)), iconButton("right", t("variant_after"), go(at + 1))];
      back.disabled = at === 0;
      on.disabled = at === variants.length - 1;
      bar.append(back, make("span", "number", `${at + 1}/${variants.length}`), on);
    }
    if (message.text) bar.append(copyButton(() => message.text, t("copy")));
    if (message.role === "user") bar.append(iconButton("edit", t("edit"), () => this.#edit(message)));
    else {
      bar.append(iconButton("again", t("again"), () => this.#actions.again(message)));
      if (last && canGoOn(message) && (!model || message.model === model)) bar.append(button(t("go_on"), "plain small", () => this.#actions.on(message)));
    }
    return bar;
  }

  /** In place of a question. @param {Message} message */
  #edit(message) {
    const shown = this.#shown.get(message.id);
    if (!shown) return;
    const form = make("form", "edit");
    const text = make("textarea", "");
    text.value = message.text;
    text.ariaLabel = t("edit_label");
    const row = make("div", "row end");
    const save = make("button", "primary", t("edit_send"));
    const leave = () => {
      form.remove();
      shown.key = ""; // made anew
      this.#actions.redraw();
    };
    row.append(button(t("cancel"), "plain", leave), save);
    form.append(text, row);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (text.value.trim()) this.#actions.edit(message, text.value.trim());
    });
    form.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    shown.box.replaceChildren(form);
    text.focus();
  }
}
