// The chat page: loads the model, keeps one conversation, streams answers. The engine and the Python router live in
// workers; nothing here computes.
import { InPage } from "../client/inpage.js";
import { unfinished } from "../client/unfinished.js";
import { readBounded } from "../engine/format/bounded.js";
import { element, make, megabytes } from "./dom.js";
import { Loading } from "./loading.js";
import { explain, interruption } from "./messages.js";
import { conversationName, newConversation } from "./conversation.js";
import { Panel } from "./panel.js";

/** @typedef {{role: string, content: string}} Message */
/** @typedef {import("../client/inpage.js").Piece} Piece */
/** @typedef {{id: string, name: string, path: string, bytes: number}} SiteModel */

const log = element("log", HTMLElement);
const hello = element("hello", HTMLElement);
const scroller = /** @type {HTMLElement} */ (log.parentElement);
const form = element("ask", HTMLFormElement);
const text = element("text", HTMLTextAreaElement);
const send = element("send", HTMLButtonElement);
const stop = element("stop", HTMLButtonElement);
const fresh = element("new", HTMLButtonElement);
const retry = element("retry", HTMLButtonElement);
const speed = element("speed", HTMLElement);
const loading = new Loading();
const panel = new Panel({ pin: (name) => void restart(name), report: () => (model ? model.report() : InPage.report()) });

const query = new URLSearchParams(location.search);
/** How answers are made: `?temperature=`, `?top_p=`, `?seed=` and `?max_tokens=` and `?max_repeats=` say otherwise. */
const params = {
  max_tokens: number("max_tokens") ?? 1024, // a small model that lost its way should not ramble on to the context's end
  max_repeats: number("max_repeats") ?? 8, // and one that goes in circles ends
  temperature: number("temperature"),
  top_p: number("top_p"),
  seed: number("seed"),
};

/** What the service worker does: the site works offline after this visit, and its pages have the endpoint. */
const OFFLINE = { offline: true, isolate: true };

/** @type {Message[]} */
let conversation = [];
/** @type {InPage | null} */
let model = null;
/** @type {Promise<void> | null} */
let starting = null;
/** @type {AbortController | null} */
let answering = null;

/** Loads the model that the site opens with; `?model=`, `?backend=` and `?threads=` choose otherwise. */
async function start() {
  showError(null);
  loading.show({ phase: "python" });
  // Threads where the host sends no headers, and a later version: before a model is loaded, as the page is reloaded.
  if (!globalThis.crossOriginIsolated || navigator.serviceWorker?.controller) await InPage.register(OFFLINE).catch(() => {});
  const site = await siteDescription();
  const chosen = site.models.find((entry) => entry.id === query.get("model")) ?? site.models[0];
  element("model", HTMLElement).textContent = `${chosen.name} · ${megabytes(chosen.bytes)}`;
  model = await InPage.start({
    base: new URL("./", document.baseURI).href,
    model: chosen.id,
    backend: query.get("backend") ?? undefined,
    threads: number("threads"),
    shared: true, // a second tab costs no second copy of the model
    settings: site.answers ? { answers: { enabled: true, bundle: site.answers } } : undefined,
    onProgress: (event) => (event.phase === "ready" ? loading.end() : loading.show(event)),
    onChange: (info) => panel.show(info, query.get("backend")),
  });
  loading.end();
  panel.show(model.info, query.get("backend"));
  void model.serve(OFFLINE).catch(() => {}); // without a service worker all else works
}

/**
 * Load again, on the backend that a person chose; null leaves the choice to measuring. The conversation stays.
 * @param {string | null} pin
 */
async function restart(pin) {
  answering?.abort();
  if (pin) query.set("backend", pin);
  else query.delete("backend");
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  const before = starting;
  starting = Promise.resolve(before).catch(() => {}).then(async () => {
    await model?.unload();
    model = null;
    starting = null;
    await started();
  });
  await starting.catch(() => {}); // shown by showError
}

/** What the site holds: site.json. @returns {Promise<{models: SiteModel[], answers?: string}>} */
async function siteDescription() {
  const response = await fetch("site.json").catch((error) => ({ status: String(error) }));
  if (response instanceof Response && response.ok) return JSON.parse(new TextDecoder().decode(await readBounded(response, "site", "site.json", null)));
  throw Object.assign(new Error(`site.json: ${response.status}`), { code: "network" });
}

/**
 * A number of the page's address.
 * @param {string} name
 */
function number(name) {
  const value = parseFloat(query.get(name) ?? "");
  return Number.isFinite(value) ? value : undefined;
}

/** Starts once; a message sent meanwhile waits for it. */
function started() {
  starting ??= start().catch((error) => {
    starting = null;
    model = null;
    loading.end();
    showError(error);
    throw error;
  });
  return starting;
}

/** @param {unknown} error null takes the message away */
function showError(error) {
  element("error", HTMLElement).hidden = error === null;
  if (error === null) return;
  const { text: words, again } = explain(error);
  element("error-text", HTMLElement).textContent = words;
  retry.hidden = !again;
}

const STOPPED = new Error("stopped before the model was loaded");

/** Rejects when the signal says so. @param {AbortSignal} signal @returns {Promise<never>} */
function aborted(signal) {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(STOPPED), { once: true }));
}

/** @param {string} question */
async function ask(question) {
  if (answering) return;
  const asked = conversation.concat({ role: "user", content: question });
  log.append(make("div", "message user", question));
  await answer(asked, (inpage, signal) => inpage.chat(asked, { ...params, keep: conversationName(), signal }));
}

/** Goes on with the answer that was under way when the system, or a reload, ended this tab. */
async function takeUp() {
  const name = conversationName();
  const [left] = name ? await unfinished(name) : [];
  if (!left || answering || conversation.length || !Array.isArray(left.messages)) return;
  const asked = /** @type {Message[]} */ (left.messages);
  conversation = asked.slice(0, -1);
  for (const { role, content } of asked) log.append(make("div", `message ${role}`, content));
  await answer(asked, (inpage, signal) => inpage.resume(left.id, { signal }));
}

/**
 * @param {Message[]} asked
 * @param {(inpage: InPage, signal: AbortSignal) => AsyncGenerator<Piece, void, void>} begin
 */
async function answer(asked, begin) {
  answering = new AbortController();
  hello.remove();
  fresh.hidden = false;
  showError(null);
  const before = conversation;
  const place = make("div", "message assistant waiting");
  place.ariaBusy = "true"; // so that a screen reader reads the answer whole
  log.append(place);
  scroller.scrollTop = scroller.scrollHeight;
  controls();
  try {
    await Promise.race([started(), aborted(answering.signal)]);
    if (!model) throw new Error("the model is not loaded");
    const answer = await stream(begin(model, answering.signal), place);
    // Not after "New chat", which began another conversation meanwhile.
    if (conversation === before) conversation = asked.concat({ role: "assistant", content: answer });
  } catch (error) {
    if (error === STOPPED) {
      place.append(make("span", "ending", "stopped"));
      return;
    }
    if (!place.textContent) place.remove();
    showError(error);
    if (error instanceof Error && "code" in error && error.code === "device_lost") {
      starting = null;
      model = null;
    }
  } finally {
    place.classList.remove("waiting", "writing");
    place.ariaBusy = "false";
    answering = null;
    controls();
    text.focus();
  }
}

/**
 * Writes the answer as it comes.
 * @param {AsyncGenerator<Piece, void, void>} pieces
 * @param {HTMLElement} place
 * @returns {Promise<string>}
 */
async function stream(pieces, place) {
  const written = document.createTextNode("");
  place.append(written);
  for await (const piece of pieces) {
    if (piece.text) {
      place.classList.replace("waiting", "writing");
      const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
      written.data += piece.text;
      if (atEnd) scroller.scrollTop = scroller.scrollHeight;
    }
    if (piece.finish_reason) finished(piece, place);
  }
  return written.data;
}

/**
 * @param {Piece} piece
 * @param {HTMLElement} place
 */
function finished(piece, place) {
  const { timing, usage } = piece;
  if (timing) {
    const first = `first token ${Math.round(timing.ttft_ms)} ms`;
    speed.textContent = timing.decode_tps ? `${timing.decode_tps.toFixed(1)} tokens/s · ${first}` : first;
    speed.title = usage ? `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written` : "";
  }
  const { failovers, ended } = /** @type {import("../client/types.js").Completion} */ (piece.completion);
  if (failovers.length) place.append(make("span", "ending", interruption(failovers)));
  if (piece.finish_reason === "cancelled") place.append(make("span", "ending", "stopped"));
  if (ended === "repeats") place.append(make("span", "ending", "ended: the answer went in circles"));
  if (piece.finish_reason === "length") place.append(make("span", "ending", "cut off: the answer reached its limit"));
}

function controls() {
  send.hidden = answering !== null;
  stop.hidden = answering === null;
  send.disabled = !text.value.trim();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = text.value.trim();
  if (!question || answering) return;
  text.value = "";
  void ask(question);
});
text.addEventListener("input", controls);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") answering?.abort();
});
stop.addEventListener("click", () => answering?.abort());
retry.addEventListener("click", () => void started().catch(() => {}));
fresh.addEventListener("click", () => {
  answering?.abort();
  conversation = [];
  newConversation();
  log.replaceChildren(hello);
  fresh.hidden = true;
  speed.textContent = "";
  showError(null);
  text.focus();
});
for (const idea of document.querySelectorAll(".idea")) {
  idea.addEventListener("click", () => void ask(idea.textContent ?? ""));
}

controls();
started().catch(() => {}); // shown by showError
void takeUp();
