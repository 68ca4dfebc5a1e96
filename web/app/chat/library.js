/** @file What is done with conversations as a whole: open, rename, delete, export, import; and what other tabs do. */

import { keepTabValue, tabValue } from "../../engine/host/site_data.js";
import { readAtMost } from "../../engine/format/bounded.js";
import { EngineError } from "../../engine/format/errors.js";
import { FILE_BYTES, fromFile, toJson, toMarkdown } from "../data/transfer.js";
import { download, megabytes } from "../dom.js";
import { t } from "../i18n.js";
import { Conversation } from "./tree.js";

/** @typedef {import("../data/store.js").Store} Store */

/** This tab's conversation outlives the page: a tab that the system ended keeps it, another tab has its own. */
const KEY = "inpage-conversation";

export class Library {
  #store;
  /** Those that were opened here, so that one that is answered in the background is the same. @type {Map<string, Conversation>} */
  #open = new Map();
  /** Of those that were deleted, here or in another tab: an answer that ends after that must not bring one back. @type {Set<string>} */
  #removed = new Set();
  /** How often another conversation was called for: of two, the later call counts, whichever is read first. */
  #turn = 0;
  current = Conversation.fresh();

  /** @param {Store} store */
  constructor(store) {
    this.#store = store;
  }

  /** The conversation that this tab had before a reload. */
  async restore() {
    const id = tabValue(KEY);
    if (id) await this.open(id);
  }

  fresh() {
    this.#turn++;
    if (!this.current.empty) this.current = Conversation.fresh();
    keepTabValue(KEY, this.current.id);
  }

  /** @param {string} id @returns {Promise<boolean>} false where there is none, or another was called for since */
  async open(id) {
    const turn = ++this.#turn;
    const open = this.#open.get(id) ?? (await this.#load(id));
    if (!open || turn !== this.#turn) return false;
    this.current = open;
    keepTabValue(KEY, id);
    return true;
  }

  /** @param {string} id */
  async #load(id) {
    const found = await this.#store.load(id);
    if (!found || this.#removed.has(id)) return null;
    const open = this.#open.get(id);
    if (open) return open; // meanwhile: there must not be two of one
    const loaded = new Conversation(found.head, found.messages);
    this.#open.set(id, loaded);
    return loaded;
  }

  /** @param {Conversation} conversation @param {import("../types.js").Message[]} messages @returns {Promise<void>} */
  async save(conversation, messages) {
    if (this.#removed.has(conversation.id)) return;
    this.#open.set(conversation.id, conversation);
    if (conversation === this.current) keepTabValue(KEY, conversation.id);
    return this.#store.save(conversation.head, messages);
  }

  /**
   * Another tab changed it.
   * @param {string} id
   * @param {string | null} running what is written here stays as it is here
   * @returns {Promise<boolean>} false where there is none any more
   */
  async changed(id, running) {
    if (!this.#open.has(id) && !this.#removed.has(id)) return true;
    const found = await this.#store.load(id);
    if (!found) return false;
    this.#removed.delete(id); // the other tab took the deletion back
    const open = this.#open.get(id);
    if (!open) return true;
    const { leaf } = open.head;
    open.merge(found.messages.filter((message) => message.id !== running));
    open.head.title = found.head.title;
    // Where the other tab went on from here, this one follows.
    if (!running && found.head.leaf && open.path(found.head.leaf).some((message) => message.id === leaf)) open.head.leaf = found.head.leaf;
    return true;
  }

  /** It was deleted. @param {string} id */
  gone(id) {
    this.#removed.add(id);
    this.#open.delete(id);
    if (id === this.current.id) this.current = Conversation.fresh();
  }

  /** @param {string} id @param {string} title */
  async rename(id, title) {
    const open = this.#open.get(id) ?? (await this.#load(id));
    if (!open) return;
    open.head.title = title.slice(0, 200);
    await this.#store.save(open.head, []);
  }

  /** @param {string} id @returns {Promise<{title: string, undo: () => Promise<void>} | null>} */
  async remove(id) {
    const gone = this.#open.get(id) ?? (await this.#load(id));
    if (!gone) return null;
    const was = gone === this.current;
    this.gone(id);
    await this.#store.remove(id);
    return {
      title: gone.head.title,
      undo: async () => {
        const turn = this.#turn;
        this.#removed.delete(id);
        this.#open.set(id, gone);
        await this.#store.save(gone.head, gone.all());
        if (was && this.current.empty && turn === this.#turn) await this.open(id);
      },
    };
  }

  /** @param {string} id @param {"json" | "markdown"} form */
  async exportAs(id, form) {
    const one = this.#open.get(id) ?? (await this.#load(id));
    if (!one) return;
    const name = one.head.title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";
    if (form === "json") download(toJson([one]), `${name}.json`, "application/json");
    else download(toMarkdown(one, { user: t("you"), assistant: t("answer") }), `${name}.md`, "text/markdown");
  }

  async exportAll() {
    const all = [];
    for (const { id } of await this.#store.heads()) {
      const one = this.#open.get(id) ?? (await this.#load(id));
      if (one) all.push(one);
    }
    download(toJson(all), "inpage.json", "application/json");
  }

  /** @param {Blob} file @returns {Promise<number>} how many @throws {EngineError} invalid_request */
  async import(file) {
    const turn = this.#turn;
    const tooLarge = () => new EngineError("invalid_request", t("import_large", { size: megabytes(FILE_BYTES) }), "file");
    const bytes = await readAtMost(file.stream(), FILE_BYTES, tooLarge);
    const found = fromFile(new TextDecoder().decode(bytes));
    for (const conversation of found) await this.#store.save(conversation.head, conversation.all());
    const [first] = found;
    if (first && turn === this.#turn) await this.open(first.id);
    return found.length;
  }
}
