/** @file The chat page: the model that answers, its settings, and how the parts hang together. Engine and router live in workers; nothing here computes. */

import { InPage } from "../client/inpage.js";
import { Talk } from "./chat/talk.js";
import { speak, t } from "./i18n.js";
import { Engine } from "./model/engine.js";
import { storedOf } from "./model/site.js";
import { NONE, toAddress } from "./settings.js";
import { Details } from "./views/details.js";
import { Hello } from "./views/hello.js";
import { Loading } from "./views/loading.js";
import { Notices } from "./views/notices.js";
import { pickModel } from "./views/picker.js";
import { editSettings } from "./views/settings.js";
import { Status } from "./views/status.js";
import { showStorage } from "./views/storage.js";

/**
 * @typedef {import("./views/composer.js").Composer} Composer
 * @typedef {import("./types.js").Settings} Settings
 * @typedef {import("./types.js").Site} Site
 * @typedef {import("../client/types.js").Completion} Completion
 */

export class Page {
  /** @type {Settings} */
  #settings;
  #site;
  #composer;
  #loading = new Loading();
  #notices = new Notices(() => this.#start());
  #status = new Status(this.#notices, { consent: () => this.#consent(), restart: (changes) => this.#restart(changes) });
  #hello;
  #engine;
  #talk;
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
    this.#hello = new Hello({ start: () => this.#consent(), ask: (question) => void this.#talk.ask(question), choose: several ? () => this.pickModel() : null });
    this.#engine = new Engine(site, {
      change: () => this.#engineChanged(),
      progress: (event) => (event.phase === "ready" ? this.#loading.end() : this.#loading.show(event)),
      info: () => this.#engineChanged(),
      update: () => this.newVersion(),
    });
    this.#talk = new Talk({
      engine: this.#engine,
      settings: () => this.#settings,
      composer,
      notices: this.#notices,
      hello: this.#hello.element,
      shown: () => this.#status.offer(this.#now, this.#talk),
      ended: (completion) => {
        this.#last = completion;
        this.#details?.show(this.#facts());
        this.#status.slow(this.#now, completion);
      },
    });
  }

  /** The model that answers. */
  get #model() {
    return this.#site.models.find(({ id }) => id === this.#settings.model) ?? this.#site.models[0];
  }

  get #now() {
    return { model: this.#model, settings: this.#settings, engine: this.#engine };
  }

  /** @param {boolean} at_once without asking, as the address says */
  async begin(at_once) {
    this.translate();
    await this.#talk.restore();
    const stored = at_once ? null : await storedOf(this.#model, this.#settings.level);
    if (!stored || stored.bytes === stored.total) this.#start();
    this.#talk.takeUp();
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
    this.#talk.interrupt();
    void this.#engine.start({ ...this.#settings, model: this.#model.id });
  }

  #engineChanged() {
    const now = this.#now;
    if (this.#engine.state !== "loading") this.#loading.end();
    this.#status.show(now);
    this.#status.offer(now, this.#talk);
    this.#status.slow(now, this.#last);
    void this.#hello.show(now.model, now.settings.level, this.#engine.state);
    this.#details?.show(this.#facts());
    this.#talk.draw();
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
    void this.#talk.saveSettings({ ...this.#settings, backend: null, threads: null });
  }

  // -- conversations ------------------------------------------------------------------------------------------------

  fresh() {
    this.#talk.fresh();
  }

  /** @param {File} file */
  importFile(file) {
    return this.#talk.importFile(file);
  }

  exportAll() {
    this.#talk.exportAll();
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
      void this.#talk.listed();
    });
  }

  showStorage() {
    showStorage(this.#site.models);
  }
}
