/**
 * @file The conversation that is shown, and the list of all: what a person asks, edits, opens, deletes, takes out and brings
 * in, and what other tabs do to them.
 */

import { Store } from "../data/store.js";
import { t } from "../i18n.js";
import { explain, interruption } from "../messages.js";
import { List } from "../views/list.js";
import { Log } from "../views/log.js";
import { Side } from "../views/side.js";
import { Library } from "./library.js";
import { Runs } from "./runs.js";

/**
 * @typedef {import("../types.js").Message} Message
 * @typedef {import("../../client/types.js").Completion} Completion
 * @typedef {object} Host
 * @property {import("../model/engine.js").Engine} engine
 * @property {() => import("../types.js").Settings} settings
 * @property {import("../views/composer.js").Composer} composer
 * @property {import("../views/notices.js").Notices} notices
 * @property {HTMLElement} hello what stands where no message is
 * @property {() => void} shown another conversation, or a question more
 * @property {(completion: Completion) => void} ended
 */

export class Talk {
  #host;
  #runs;
  #log;
  #list;
  #side = new Side();
  #store = new Store((id, gone) => void this.#elsewhere(id, gone));
  #library = new Library(this.#store);
  #title = document.title;
  /** How often the list was looked up. */
  #listing = 0;
  /** Messages of a conversation that its last prompt left out. @type {Map<string, number>} */
  #dropped = new Map();

  /** @param {Host} host */
  constructor(host) {
    this.#host = host;
    this.#log = new Log({
      edit: (message, text) => this.#edit(message, text),
      again: (message) => this.#again(message),
      on: (message) => void this.#runs.answer(this.#library.current, message),
      show: (message) => this.#show(message),
      redraw: () => this.draw(),
    }, host.hello);
    this.#list = new List({
      open: (id) => void this.#open(id),
      rename: (id, title) => void this.#library.rename(id, title).then(() => this.listed()),
      remove: (id) => void this.#remove(id),
      exportAs: (id, form) => this.#exported(this.#library.exportAs(id, form)),
      search: (words) => this.#store.search(words),
    });
    this.#runs = new Runs({
      engine: host.engine,
      settings: host.settings,
      changed: (conversation, message) => this.#grew(conversation.id, message),
      save: (conversation, messages) => {
        const saved = this.#library.save(conversation, messages);
        void this.listed();
        return saved;
      },
      renew: (conversation) => this.#library.changed(conversation.id, null),
      fitted: (conversation, _message, dropped) => {
        this.#dropped.set(conversation.id, dropped);
        this.draw();
      },
      failed: (error) => host.notices.error(error),
      ended: (completion, message) => {
        if (completion.failovers.length) this.#log.note(message.id, interruption(completion.failovers));
        host.ended(completion);
      },
    });
  }

  get empty() {
    return this.#library.current.empty;
  }

  /** Whether a question waits for the model. */
  get waits() {
    return this.#library.current.path().at(-1)?.status === "waiting";
  }

  /** The conversation that this tab had before a reload. */
  async restore() {
    await this.#library.restore();
    this.#host.composer.connect({ ask: (question) => this.ask(question), stop: () => this.#runs.stop(this.#library.current.id) });
    this.draw();
    void this.listed();
    this.#tellKept();
  }

  draw() {
    const { current } = this.#library;
    const running = this.#runs.of(current.id);
    this.#log.show(current, running?.id ?? null, this.#dropped.get(current.id) ?? 0, this.#host.engine.info?.name ?? "");
    this.#host.composer.show(running !== null);
    document.title = current.head.title ? `${current.head.title} · ${this.#title}` : this.#title;
  }

  async listed() {
    const turn = ++this.#listing;
    const heads = await this.#store.heads();
    if (turn === this.#listing) this.#list.show(heads, this.#library.current.id); // else a later look follows
  }

  /** @param {object} settings to keep */
  saveSettings(settings) {
    return this.#store.saveSettings(settings);
  }

  /** The model goes. */
  interrupt() {
    this.#runs.interrupt();
  }

  // -- questions and answers ----------------------------------------------------------------------------------------

  /** @param {string} question @returns {boolean} whether it is in the conversation */
  ask(question) {
    const { current } = this.#library;
    if (this.#runs.of(current.id)) return false;
    this.#answer(current.add({ role: "user", text: question, parent: current.head.leaf }));
    return true;
  }

  /** @param {Message} asked */
  #answer(asked) {
    const { current } = this.#library;
    const answer = current.add({ role: "assistant", text: "", parent: asked.id, status: "waiting" });
    void this.#library.save(current, [asked, answer]);
    if (this.#host.engine.state !== "failed") this.#host.notices.error(null);
    this.#log.toEnd();
    void this.#runs.answer(current, answer);
    this.#host.shown();
  }

  /** @param {Message} message @param {string} text */
  #edit(message, text) {
    const { current } = this.#library;
    if (this.#runs.of(current.id)) return;
    this.#answer(current.add({ role: "user", text, parent: message.parent }));
    this.#host.composer.focus();
  }

  /** @param {Message} message an answer */
  #again(message) {
    const { current } = this.#library;
    const asked = current.get(message.parent);
    if (!asked || this.#runs.of(current.id)) return;
    this.#answer(asked);
  }

  /** @param {Message} message */
  #show(message) {
    const { current } = this.#library;
    if (!this.#runs.of(current.id)) current.show(message);
    void this.#library.save(current, []);
    this.draw();
    this.takeUp();
  }

  /** @param {string} id @param {Message} message */
  #grew(id, message) {
    if (id !== this.#library.current.id) return;
    if (message.status === "running" && message.text && this.#runs.of(id) && this.#log.grow(message)) return;
    this.draw();
  }

  /** Goes on with what was under way, or waited, when a page was ended. */
  takeUp() {
    const { current } = this.#library;
    const last = current.path().at(-1);
    if (last && ["waiting", "running"].includes(last.status)) void this.#runs.takeUp(current, last).then(() => this.draw());
    this.#host.shown();
  }

  // -- conversations ------------------------------------------------------------------------------------------------

  fresh() {
    this.#library.fresh();
    this.#opened();
  }

  /** @param {string} id */
  async #open(id) {
    if (!(await this.#library.open(id))) return void this.listed();
    this.#opened();
    this.takeUp();
  }

  #opened() {
    this.#side.close();
    this.#log.toEnd();
    this.draw();
    this.#host.shown();
    void this.listed();
    this.#host.composer.focus();
  }

  /** @param {string} id */
  async #remove(id) {
    const { notices } = this.#host;
    this.#runs.stop(id);
    const gone = await this.#library.remove(id);
    if (!gone) return;
    const undo = async () => {
      notices.show("deleted", null);
      await gone.undo();
      this.#opened();
    };
    notices.show("deleted", t("deleted", { title: gone.title }), { label: t("undo"), act: () => void undo() }, "news");
    this.draw();
    await this.listed();
  }

  /** @param {File} file */
  async importFile(file) {
    try {
      const count = await this.#library.import(file);
      this.#host.notices.show("file", t("import_done", { count }), null, "news");
      this.#opened();
    } catch (error) {
      this.#host.notices.show("file", explain(error), null, "bad");
    }
  }

  exportAll() {
    this.#exported(this.#library.exportAll());
  }

  /** @param {Promise<void>} saved */
  #exported(saved) {
    saved.catch((error) => this.#host.notices.show("file", explain(error), null, "bad"));
  }

  /**
   * Another tab changed a conversation, or deleted it; null: whether anything is kept has changed.
   * @param {string | null} id
   * @param {boolean} gone
   */
  async #elsewhere(id, gone) {
    if (id === null) {
      this.#tellKept();
      return;
    }
    if (gone) {
      const writing = this.#runs.of(id) !== null;
      this.#runs.stop(id);
      this.#library.gone(id);
      if (writing) await this.#store.remove(id); // what was just being written of it came after the deletion
    } else await this.#library.changed(id, this.#runs.of(id)?.id ?? null);
    this.draw();
    await this.listed();
  }

  #tellKept() {
    this.#host.notices.show("kept", this.#store.kept ? null : t("not_kept"));
  }
}
