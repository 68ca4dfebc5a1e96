/** @file The chat page: what is shown, and what each control does. Engine and router live in workers; nothing here computes. */

import { InPage } from "../client/inpage.js";
import { Library } from "./chat/library.js";
import { Runs } from "./chat/runs.js";
import { Store } from "./data/store.js";
import { element, megabytes } from "./dom.js";
import { speak, t } from "./i18n.js";
import { explain, interruption } from "./messages.js";
import { Engine } from "./model/engine.js";
import { storedOf, bytesOf } from "./model/site.js";
import { NONE, toAddress } from "./settings.js";
import { Details } from "./views/details.js";
import { Hello } from "./views/hello.js";
import { List } from "./views/list.js";
import { Loading } from "./views/loading.js";
import { Log } from "./views/log.js";
import { Notices } from "./views/notices.js";
import { pickModel } from "./views/picker.js";
import { editSettings } from "./views/settings.js";
import { Side } from "./views/side.js";
import { showStorage } from "./views/storage.js";
import { runsOn, slowness } from "./views/words.js";

/**
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./views/composer.js").Composer} Composer
 * @typedef {import("./types.js").Settings} Settings
 * @typedef {import("./types.js").Site} Site
 * @typedef {import("../client/types.js").Completion} Completion
 */

export class Page {
  /** @type {Settings} */
  #settings;
  #site;
  #engine;
  #runs;
  #store = new Store((id, gone) => void this.#elsewhere(id, gone));
  #library = new Library(this.#store);
  #loading = new Loading();
  #side = new Side();
  #notices = new Notices(() => this.#start());
  #hello;
  #log;
  #list = new List({
    open: (id) => void this.#open(id),
    rename: (id, title) => void this.#library.rename(id, title).then(() => this.#listed()),
    remove: (id) => void this.#remove(id),
    exportAs: (id, form) => this.#exported(this.#library.exportAs(id, form)),
    search: (words) => this.#store.search(words),
  });
  #composer;
  #title = document.title;
  /** Messages of a conversation that its last prompt left out. @type {Map<string, number>} */
  #dropped = new Map();
  /** @type {Completion | null} */
  #last = null;
  /** @type {Details | null} */
  #details = null;

  /** @param {Site} site @param {Settings} settings with a model of the site @param {Composer} composer */
  constructor(site, settings, composer) {
    this.#composer = composer;
    this.#site = site;
    this.#settings = settings;
    const several = site.models.length > 1 || site.models[0].levels.length > 1;
    this.#hello = new Hello({ start: () => this.#consent(), ask: (question) => void this.#ask(question), choose: several ? () => this.pickModel() : null });
    this.#log = new Log({
      edit: (message, text) => this.#edit(message, text),
      again: (message) => this.#again(message),
      on: (message) => void this.#runs.answer(this.#library.current, message),
      show: (message) => this.#show(message),
      redraw: () => this.#draw(),
    }, this.#hello.element);
    this.#engine = new Engine(site, {
      change: () => this.#engineChanged(),
      progress: (event) => (event.phase === "ready" ? this.#loading.end() : this.#loading.show(event)),
      info: () => this.#engineChanged(),
      update: () => this.newVersion(),
    });
    this.#runs = new Runs({
      engine: this.#engine,
      settings: () => this.#settings,
      changed: (conversation, message) => this.#grew(conversation.id, message),
      save: (conversation, messages) => {
        const saved = this.#library.save(conversation, messages);
        void this.#listed();
        return saved;
      },
      renew: (conversation) => this.#library.changed(conversation.id, null),
      fitted: (conversation, _message, dropped) => {
        this.#dropped.set(conversation.id, dropped);
        this.#draw();
      },
      failed: (error) => this.#notices.error(error),
      ended: (completion, message) => this.#ended(completion, message),
    });
  }

  /** The model that answers. */
  get #model() {
    return this.#site.models.find(({ id }) => id === this.#settings.model) ?? this.#site.models[0];
  }

  /** @param {boolean} at_once without asking, as the address says */
  async begin(at_once) {
    this.translate();
    await this.#library.restore();
    this.#composer.connect({ ask: (question) => this.#ask(question), stop: () => this.#runs.stop(this.#library.current.id) });
    this.#draw();
    void this.#listed();
    this.#notices.show("kept", this.#store.kept ? null : t("not_kept"));
    const stored = at_once ? null : await storedOf(this.#model, this.#settings.level);
    if (!stored || stored.bytes === stored.total) this.#start();
    this.#takeUp();
  }

  /** All words again, in the language of the settings. */
  translate() {
    speak(this.#settings.lang);
    this.#hello.draw();
    this.#composer.draw();
    this.#engineChanged();
  }

  /** @param {"unknown_model" | "unknown_level"} key @param {string} asked */
  unknown(key, asked) {
    this.#notices.show("unknown", t(key, { asked: asked.slice(0, 60), name: this.#model.name, names: this.#site.models.map(({ id }) => id).join(", ") }));
  }

  /** The address has one that is no JSON. @param {string} why */
  schemaWrong(why) {
    this.#notices.show("schema", t("schema_wrong", { why }));
  }

  newVersion() {
    const act = () => void InPage.update().then((taken) => taken || this.#notices.show("version", t("close_others"), { label: t("reload"), act }, "news"));
    this.#notices.show("version", t("new_version"), { label: t("reload"), act }, "news");
  }

  // -- the model --------------------------------------------------------------------------------------------------

  /** A person said so: what is downloaded now should stay. */
  #consent() {
    void InPage.storage.persist();
    this.#start();
  }

  #start() {
    this.#runs.interrupt();
    void this.#engine.start({ ...this.#settings, model: this.#model.id });
  }

  #engineChanged() {
    const { state, error, info } = this.#engine;
    if (state !== "loading") this.#loading.end();
    this.#notices.error(state === "failed" ? error : null, true);
    const pins = /** @type {const} */ (["backend", "threads"]).flatMap((name) => (this.#settings[name] === null ? [] : [`${name}=${this.#settings[name]}`]));
    const unpin = { label: t("use_fastest"), act: () => this.#restart({ backend: null, threads: null }), needed: true };
    this.#notices.show("pinned", state === "failed" && pins.length ? t("pin_failed", { pins: pins.join(", ") }) : null, unpin);
    element("model-name", HTMLElement).textContent = this.#model.name + (this.#settings.level ? ` · ${this.#settings.level}` : "");
    const engine = element("engine", HTMLButtonElement);
    engine.textContent = info ? runsOn(info) : t(state === "loading" ? "starting" : "not_loaded");
    engine.dataset.variant = info?.variant ?? "";
    engine.dataset.state = state;
    void this.#hello.show(this.#model, this.#settings.level, state);
    this.#offer();
    this.#notices.show("isolation", info && !globalThis.crossOriginIsolated ? t("one_thread") : null);
    this.#slow();
    this.#details?.show(this.#facts());
    this.#draw();
  }

  /** To load the model, where a conversation is shown and nothing is loaded yet. */
  #offer() {
    const { state } = this.#engine;
    const waits = this.#library.current.path().at(-1)?.status === "waiting";
    if (state !== "idle" || this.#library.current.empty) {
      this.#notices.show("offer", null);
      return;
    }
    const size = megabytes(bytesOf(this.#model, this.#settings.level));
    this.#notices.show("offer", t(waits ? "waiting_start" : "not_loaded"), { label: t("download_start", { size }), act: () => this.#consent(), needed: true }, "news");
  }

  #slow() {
    const { info } = this.#engine;
    const measured = this.#last && info && this.#last.variant === info.variant && this.#last.usage.completion_tokens > 8 ? this.#last.decode_tps : null;
    const words = info ? slowness(info, measured) : null;
    const pinned = this.#settings.backend !== null;
    this.#notices.show("slow", words, words && pinned ? { label: t("use_fastest"), act: () => this.#restart({ backend: null }) } : null);
  }

  #facts() {
    return { info: this.#engine.info, last: this.#last, pin: this.#settings.backend };
  }

  /** @param {Partial<Settings>} changes of how the model runs */
  #restart(changes) {
    this.#change(changes);
    this.#start();
  }

  /** @param {Partial<Settings>} changes */
  #change(changes) {
    this.#settings = { ...this.#settings, ...changes };
    const query = toAddress(new URLSearchParams(location.search), { ...this.#settings });
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    // A backend that a person tries is for this visit.
    void this.#store.saveSettings({ ...this.#settings, backend: null, threads: null });
  }

  // -- conversations ------------------------------------------------------------------------------------------------

  /** @param {string} question @returns {boolean} whether it is in the conversation */
  #ask(question) {
    const { current } = this.#library;
    if (this.#runs.of(current.id)) return false;
    const asked = current.add({ role: "user", text: question, parent: current.head.leaf });
    this.#answer(asked);
    return true;
  }

  /** @param {Message} asked */
  #answer(asked) {
    const { current } = this.#library;
    const answer = current.add({ role: "assistant", text: "", parent: asked.id, status: "waiting" });
    void this.#library.save(current, [asked, answer]);
    if (this.#engine.state !== "failed") this.#notices.error(null);
    this.#log.toEnd();
    void this.#runs.answer(current, answer);
    this.#offer();
  }

  /** @param {Message} message @param {string} text */
  #edit(message, text) {
    const { current } = this.#library;
    if (this.#runs.of(current.id)) return;
    this.#answer(current.add({ role: "user", text, parent: message.parent }));
    this.#composer.focus();
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
    this.#draw();
    this.#takeUp();
  }

  /** @param {string} id @param {Message} message */
  #grew(id, message) {
    if (id !== this.#library.current.id) return;
    if (message.status === "running" && message.text && this.#runs.of(id) && this.#log.grow(message)) return;
    this.#draw();
  }

  /** @param {Completion} completion @param {Message} message */
  #ended(completion, message) {
    this.#last = completion;
    if (completion.failovers.length) this.#log.note(message.id, interruption(completion.failovers));
    this.#details?.show(this.#facts());
    this.#slow();
  }

  #draw() {
    const { current } = this.#library;
    const running = this.#runs.of(current.id);
    this.#log.show(current, running?.id ?? null, this.#dropped.get(current.id) ?? 0, this.#engine.info?.name ?? "");
    this.#composer.show(running !== null);
    document.title = current.head.title ? `${current.head.title} · ${this.#title}` : this.#title;
  }

  async #listed() {
    this.#list.show(await this.#store.heads(), this.#library.current.id);
  }

  fresh() {
    this.#library.fresh();
    this.#opened();
  }

  /** @param {string} id */
  async #open(id) {
    await this.#library.open(id);
    this.#opened();
    this.#takeUp();
  }

  #opened() {
    this.#side.close();
    this.#log.toEnd();
    this.#draw();
    this.#offer();
    void this.#listed();
    this.#composer.focus();
  }

  /** Goes on with what was under way, or waited, when a page was ended. */
  #takeUp() {
    const { current } = this.#library;
    const last = current.path().at(-1);
    if (last && ["waiting", "running"].includes(last.status)) void this.#runs.takeUp(current, last).then(() => this.#draw());
    this.#offer();
  }

  /** @param {string} id */
  async #remove(id) {
    this.#runs.stop(id);
    const gone = await this.#library.remove(id);
    if (!gone) return;
    const undo = async () => {
      this.#notices.show("deleted", null);
      await gone.undo();
      this.#opened();
    };
    this.#notices.show("deleted", t("deleted", { title: gone.title }), { label: t("undo"), act: () => void undo() }, "news");
    this.#draw();
    await this.#listed();
  }

  /** @param {File} file */
  async importFile(file) {
    try {
      const count = await this.#library.import(file);
      this.#notices.show("file", t("import_done", { count }), null, "news");
      this.#opened();
    } catch (error) {
      this.#notices.show("file", explain(error), null, "bad");
    }
  }

  exportAll() {
    this.#exported(this.#library.exportAll());
  }

  /** @param {Promise<void>} saved */
  #exported(saved) {
    saved.catch((error) => this.#notices.show("file", explain(error), null, "bad"));
  }

  /**
   * Another tab changed a conversation, or deleted it; null: whether anything is kept has changed.
   * @param {string | null} id
   * @param {boolean} gone
   */
  async #elsewhere(id, gone) {
    if (id === null) {
      this.#notices.show("kept", this.#store.kept ? null : t("not_kept"));
      return;
    }
    if (gone) {
      const writing = this.#runs.of(id) !== null;
      this.#runs.stop(id);
      this.#library.gone(id);
      if (writing) await this.#store.remove(id); // what was just being written of it came after the deletion
    } else await this.#library.changed(id, this.#runs.of(id)?.id ?? null);
    this.#draw();
    await this.#listed();
  }

  // -- dialogs ------------------------------------------------------------------------------------------------------

  showDetails() {
    const report = () => this.#engine.inpage?.report() ?? InPage.report();
    this.#details = new Details({ facts: () => this.#facts(), pin: (backend) => this.#restart({ backend }), report, closed: () => (this.#details = null) });
  }

  pickModel() {
    pickModel(this.#site.models, { model: this.#model.id, level: this.#settings.level }, (model, level) => {
      this.#change({ model, level });
      this.#engineChanged();
      this.#consent();
    });
  }

  editSettings() {
    editSettings({ ...NONE, ...this.#settings }, (settings) => {
      this.#change(settings);
      this.translate();
      void this.#listed();
    });
  }

  showStorage() {
    showStorage(this.#site.models);
  }
}
