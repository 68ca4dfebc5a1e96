/** @file The page: files that are dropped or chosen, a question, passages and an answer. Texts of files are texts only. */

import { InPage } from "../../client/inpage.js";
import { answer, prompt } from "./answer.js";
import { Library, readText } from "./library.js";
import { Store } from "./store.js";

/** @typedef {import("./library.js").Passage} Passage */

const EMBEDDER = "all-minilm-l6-v2";
const CHAT = "smollm2-135m-instruct";
/** Both models together: whichever is idle leaves where they do not fit side by side. */
const MEMORY = { target_memory: 400e6, least_context: 2048 };
const PASSAGES = 5;
/** Of these, what the chat model reads. */
const SOURCES = 3;

const body = document.body;
const [form] = document.forms;
const [error, work, state, cancel] = ["error", "work", "state", "cancel"].map(byId);
const progress = /** @type {HTMLProgressElement} */ (byId("progress"));
const choose = /** @type {HTMLInputElement} */ (byId("choose"));

/** @type {InPage} */
let inpage;
/** @type {Library} */
let library;
/** One thing after another. @type {Promise<unknown>} */
let turn = Promise.resolve();
/** Ends all that was begun. */
let end = new AbortController();
/** Ends the last question: the next one takes its place. */
let asked = new AbortController();
/** What is waited for: the start, then each attempt. */
let running = 1;

try {
  show("Starting");
  // On any static host: threads (after one reload where it sends no headers), and no need of a network after this visit.
  await InPage.register({ worker: "../../sw.js", isolate: true, offline: true });
  inpage = await InPage.start({
    base: "../../",
    model: EMBEDDER,
    models: [{ model: CHAT }],
    settings: { models: MEMORY },
    onProgress({ phase, model, loaded = 0, total = 0 }) {
      if (running) show(`Loading ${model ?? EMBEDDER}: ${phase}`, loaded, total); // after a cancelled wait a load goes on
    },
  });
  library = await Library.open({
    embed: async (texts, how) => (await inpage.embed(texts, { ...how, model: EMBEDDER, truncate: true })).vectors,
    embedder: inpage.info.revision,
    store: await Store.open(),
    kernel: new URL("top_k.wasm", import.meta.url),
  });
  for (const button of form.querySelectorAll("button")) button.disabled = false;
  choose.disabled = false;
  state.textContent = "Ready.";
  list();
  for (const name of library.stale) enqueue((signal) => library.renew(name, reading(name, signal)));
} catch (failure) {
  complain(`The page could not start: ${why(failure)}`);
} finally {
  ended();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = String(new FormData(form).get("question")).trim();
  const answered = event.submitter?.getAttribute("name") === "answer";
  if (!question || !library) return;
  asked.abort();
  asked = new AbortController();
  void attempt((signal) => search(question, answered, signal), AbortSignal.any([end.signal, asked.signal]));
});

choose.addEventListener("change", () => {
  add(choose.files);
  choose.value = "";
});
cancel.addEventListener("click", () => {
  end.abort();
  end = new AbortController();
  state.textContent = "Cancelled.";
});
body.addEventListener("dragover", (event) => {
  event.preventDefault();
  body.classList.add("dropping");
});
body.addEventListener("dragleave", (event) => event.relatedTarget ?? body.classList.remove("dropping"));
body.addEventListener("drop", (event) => {
  event.preventDefault();
  body.classList.remove("dropping");
  add(event.dataTransfer?.files);
});

/** @param {FileList | null} [files] */
function add(files) {
  if (!library) return;
  clear();
  for (const file of files ?? []) {
    enqueue(async (signal) => {
      const done = await library.add(file.name, await readText(file), reading(file.name, signal));
      state.textContent = { added: `${file.name} can be searched.`, unchanged: `${file.name} is as it was.`, "not kept": `${file.name} can be searched until this page is closed: storage has no room for it.` }[done];
    }, `${file.name} was not added`);
  }
}

/** @param {string} name @param {AbortSignal} signal @returns {import("./library.js").Progress} */
function reading(name, signal) {
  return { signal, onProgress: (done, total) => show(`Reading ${name}: ${done} of ${total} passages`, done, total) };
}

/**
 * @param {string} question
 * @param {boolean} answered
 * @param {AbortSignal} signal
 */
async function search(question, answered, signal) {
  clear();
  byId("answer").hidden = true;
  const passages = await library.search(question, PASSAGES, { signal });
  signal.throwIfAborted();
  byId("found").hidden = !passages.length;
  byId("passages").replaceChildren(...passages.map(passageItem));
  state.textContent = passages.length ? `${passages.length} passages, the nearest in ${passages[0].name}.` : "There is nothing to search yet: add files first.";
  if (!answered || !passages.length) return;
  const text = byId("answer-text");
  text.textContent = "";
  byId("sources").textContent = "";
  show(`Loading ${CHAT}`);
  const { sources, messages } = await unlessAborted(prompt(inpage, CHAT, question, passages.slice(0, SOURCES)), signal);
  byId("answer").hidden = false;
  show("Answering");
  byId("sources").replaceChildren("From ", ...sources.map(({ name }, i) => make("a", { href: `#passage-${i + 1}`, textContent: `[${i + 1}] ${name}` })));
  text.ariaBusy = "true"; // who listens hears it as a whole
  signal.addEventListener("abort", () => (text.ariaBusy = "false"), { once: true });
  try {
    for await (const piece of answer(inpage, CHAT, messages, signal)) {
      signal.throwIfAborted();
      text.append(piece);
    }
  } finally {
    if (!signal.aborted) text.ariaBusy = "false"; // else the next answer may have begun
  }
}

/** @param {Passage} passage @param {number} i */
function passageItem({ name, text, score }, i) {
  const head = make("div", { className: "row" }, make("h3", { textContent: `[${i + 1}] ${name}` }), make("span", { className: "quiet small number", textContent: score.toFixed(2), title: "cosine" }));
  return make("li", { id: `passage-${i + 1}`, tabIndex: -1 }, head, make("p", { textContent: text }));
}

function list() {
  const files = library.files;
  byId("hint").hidden = files.length > 0;
  byId("files").replaceChildren(...files.map(({ name, passages }) => fileItem(name, `${passages} ${passages === 1 ? "passage" : "passages"}`)), ...library.stale.map((name) => fileItem(name, "to be read again")));
}

/** @param {string} name @param {string} what */
function fileItem(name, what) {
  const remove = make("button", { type: "button", className: "plain small", textContent: "Remove", ariaLabel: `Remove ${name}` });
  remove.addEventListener("click", () => {
    enqueue(async () => {
      await library.remove(name);
      state.textContent = `${name} is removed.`;
    });
    choose.focus();
  });
  return make("li", {}, make("span", { className: "name", textContent: name }), make("span", { className: "quiet small number", textContent: what }), remove);
}

/** What changes the library, one after another. @param {(signal: AbortSignal) => Promise<unknown>} action @param {string} [failed] */
function enqueue(action, failed) {
  const { signal } = end;
  turn = turn.then(() => attempt(action, signal, failed)).then(list);
}

/** @param {(signal: AbortSignal) => Promise<unknown>} action @param {AbortSignal} signal @param {string} [failed] what an error means */
async function attempt(action, signal, failed) {
  if (signal.aborted) return;
  running++;
  try {
    await action(signal);
  } catch (failure) {
    if (!signal.aborted) complain(failed ? `${failed}: ${why(failure)}` : why(failure));
  } finally {
    ended();
  }
}

function ended() {
  if (!--running) show();
}

/** What is being done, and how far it is; nothing: all is done. @param {string} [what] @param {number} [done] @param {number} [total] */
function show(what, done = 0, total = 0) {
  work.hidden = !what;
  cancel.hidden = !library;
  byId("work").firstElementChild?.replaceChildren(what ?? "");
  if (total) progress.value = done / total;
  else progress.removeAttribute("value");
}

function clear() {
  error.hidden = true;
  error.textContent = "";
}

/** @param {string} what */
function complain(what) {
  error.append(...(error.hidden ? [] : ["\n"]), what);
  error.hidden = false;
}

/** For people. @param {any} failure */
function why({ code, message }) {
  if (code === "network") return `${message}\nA model is fetched once, when it is first needed: that takes a network.`;
  return code === "artifact_invalid" ? `${message}\nThe models of this page have to be on its site: examples/search/README.md says how.` : message;
}

/** A wait that is left at once where it is cancelled; what it waits for goes on. @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>} */
function unlessAborted(promise, signal) {
  const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  return /** @type {Promise<T>} */ (Promise.race([promise, aborted]));
}

/** @param {string} id @returns {HTMLElement} */
function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Partial<HTMLElementTagNameMap[T]>} properties
 * @param {...Node} children
 */
function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
