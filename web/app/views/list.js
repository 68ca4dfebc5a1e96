/** @file The list of conversations: search, open, rename, delete (which can be undone), export and import. */

import { button, element, icon, iconButton, make } from "../dom.js";
import { day, t } from "../i18n.js";

/**
 * @typedef {import("../types.js").Head} Head
 * @typedef {{open: (id: string) => void, rename: (id: string, title: string) => void, remove: (id: string) => void,
 *   exportAs: (id: string, form: "json" | "markdown") => void, search: (words: string) => Promise<Set<string>>}} Actions
 */

/** In typing, before it is searched. */
const PAUSE_MS = 120;

export class List {
  #list = element("conversations", HTMLElement);
  #search = element("search", HTMLInputElement);
  #actions;
  /** @type {Head[]} */
  #heads = [];
  /** @type {string | null} */
  #open = null;
  /** What is drawn. */
  #shown = "";
  /** @type {Set<string> | null} those that have what is searched for */
  #found = null;

  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    this.#search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => void this.#look(), PAUSE_MS);
    });
  }

  /** @param {Head[]} heads @param {string} open */
  show(heads, open) {
    this.#heads = heads.filter(({ title }) => title);
    this.#open = open;
    this.#renew();
  }

  /** Where something of it changed; not under a menu, or a title, that a person has open. */
  #renew() {
    const shown = JSON.stringify([this.#heads.map(({ id, title, updated }) => [id, title, updated]), this.#open, this.#found && [...this.#found], document.documentElement.lang]);
    if (shown === this.#shown || this.#list.querySelector("details[open], form")) return;
    this.#shown = shown;
    this.#draw();
  }

  async #look() {
    const words = this.#search.value.trim();
    const found = words ? await this.#actions.search(words) : null;
    if (words !== this.#search.value.trim()) return; // typed on meanwhile
    this.#found = found;
    this.#renew();
  }

  #draw() {
    const heads = this.#heads.filter(({ id }) => !this.#found || this.#found.has(id));
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest("[data-id]"))?.dataset.id;
    this.#list.replaceChildren(...heads.map((head) => this.#entry(head)));
    element("no-conversations", HTMLElement).hidden = heads.length > 0;
    element("no-conversations", HTMLElement).textContent = this.#found ? t("nothing_found") : t("no_conversations");
    if (focused) /** @type {HTMLElement | null} */ (this.#list.querySelector(`[data-id="${focused}"] .open`))?.focus();
  }

  /** @param {Head} head */
  #entry(head) {
    const { id, title, updated } = head;
    const entry = make("li", id === this.#open ? "current" : "");
    entry.dataset.id = id;
    const open = button("", "open", () => this.#actions.open(id));
    if (id === this.#open) open.setAttribute("aria-current", "true");
    open.append(make("span", "title", title), make("span", "when", day(updated)));
    const menu = make("details", "menu");
    const summary = make("summary", "icon");
    summary.ariaLabel = t("more_of", { title });
    summary.title = t("more");
    summary.append(icon("more"));
    const box = make("div", "menu-box");
    const act = (/** @type {() => void} */ go) => () => {
      menu.open = false;
      go();
    };
    box.append(
      button(t("rename"), "", act(() => this.#rename(entry, head))),
      button(t("export_markdown"), "", act(() => this.#actions.exportAs(id, "markdown"))),
      button(t("export_json"), "", act(() => this.#actions.exportAs(id, "json"))),
      button(t("delete"), "bad", act(() => this.#actions.remove(id))),
    );
    menu.append(summary, box);
    menu.addEventListener("toggle", () => !menu.open && this.#renew());
    menu.addEventListener("focusout", (event) => {
      if (!(event.relatedTarget instanceof Node && menu.contains(event.relatedTarget))) menu.open = false;
    });
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      event.stopPropagation();
      menu.open = false;
      summary.focus();
    });
    entry.append(open, menu);
    return entry;
  }

  /** @param {HTMLElement} entry @param {Head} head */
  #rename(entry, { id, title }) {
    const form = make("form", "rename");
    const field = make("input", "");
    field.value = title;
    field.maxLength = 200;
    field.ariaLabel = t("rename_label");
    let over = false;
    const end = (/** @type {boolean} */ keep) => {
      if (over) return;
      over = true;
      this.#draw();
      if (keep && field.value.trim() && field.value.trim() !== title) this.#actions.rename(id, field.value.trim());
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end(true);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation();
      end(false);
    });
    field.addEventListener("blur", () => end(true));
    form.append(field, iconButton("done", t("rename"), () => end(true)));
    entry.replaceChildren(form);
    field.select();
  }
}
