/**
 * @file Answers that were under way when the system ended their page, as it does with tabs on phones. While an answer with
 * `keep` runs, what it takes to go on lies in storage: the request, its seed, the tokens so far. It is gone when the answer
 * ends, however it does; what is still there and runs in no page can be resumed, and goes on token for token, since the
 * router's sampling is keyed by seed and position.
 */

import { EngineError } from "../engine/format/errors.js";
import { plain } from "../engine/format/json.js";
import { REQUEST_CHARS } from "../engine/format/limits.js";
import { heldLocks, holdLock } from "../engine/host/site_data.js";
import { inStore } from "../router/in_store.js";
import { headOf, progressOf } from "./unfinished_records.js";

/**
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").Piece} Piece
 * @typedef {import("./types.js").Unfinished} Unfinished
 * @typedef {import("./unfinished_records.js").Head} Head
 * @typedef {import("./unfinished_records.js").Message} Message
 * @typedef {import("./unfinished_records.js").Progress} Progress
 */

const NAME = "inpage-unfinished";
const STORE = "answers";
const LOCK = "inpage-answer-";
/** Between two writes of what there is. */
const WRITE_MS = 300;
/** Without Web Locks: what was written later than this may still be running. */
const ALIVE_MS = 5000;
const AGE_MS = 24 * 3600 * 1000;

/**
 * An answer that can be resumed. Without `keep` it is the answer alone.
 * @param {Message} message
 * @param {Params} params
 * @param {(message: Message, params: Params) => AsyncGenerator<Piece, void, void>} ask
 * @returns {AsyncGenerator<Piece, void, void>}
 */
export function keeping(message, { keep, ...params }, ask) {
  if (keep === undefined) return ask(message, params);
  if (typeof keep !== "string" || !keep || keep.length > 200) {
    throw new EngineError("invalid_request", "keep must be a text of 1 to 200 characters", "keep");
  }
  if (params.seed === undefined && params.temperature !== 0) params.seed = random(2)[0] * 2 ** 21 + (random(1)[0] >>> 11);
  const head = { id: random(4).join("-"), keep, began: Date.now(), message, params: { ...params, signal: undefined } };
  return recorded(head, { at: 0, tokens: [], text: "" }, params, ask);
}

/**
 * Go on with an answer that was left unfinished. Its first piece is what there was of it.
 * @param {string} id
 * @param {Pick<Params, "signal">} how
 * @param {(message: Message, params: Params) => AsyncGenerator<Piece, void, void>} ask
 * @returns {AsyncGenerator<Piece, void, void>}
 */
export async function* resuming(id, { signal }, ask) {
  const found = (await stored()).find(({ head }) => head.id === id);
  if (!found) throw new EngineError("invalid_request", "there is no such unfinished answer: it ended, or runs in another page", "id");
  const { head, progress } = found;
  const { tokens, text } = progress;
  if (tokens.length) yield { text, token_ids: tokens };
  const resume = [...(head.params.resume ?? []), ...tokens];
  yield* recorded(head, { ...progress, tokens: [...tokens] }, { ...head.params, ...(resume.length ? { resume } : {}), signal }, ask);
}

/**
 * Those that run in no page, the latest first.
 * @param {string} [keep] only of this name
 * @returns {Promise<Unfinished[]>}
 */
export async function unfinished(keep) {
  return (await stored())
    .filter(({ head }) => keep === undefined || head.keep === keep)
    .map(({ head: { id, keep, began, message }, progress: { tokens, text } }) => {
      const { model, messages, prompt } = /** @type {any} */ (message);
      return { id, keep, began, model, messages, prompt, text, tokens: tokens.length };
    })
    .sort((a, b) => b.began - a.began);
}

/** Forget one. @param {string} id */
export async function discard(id) {
  await inStore(NAME, STORE, "readwrite", (store) => {
    store.delete(id);
    return store.delete(`${id}+`);
  });
}

/**
 * @param {Head} head
 * @param {Progress} progress
 * @param {Params} params
 * @param {(message: Message, params: Params) => AsyncGenerator<Piece, void, void>} ask
 * @returns {AsyncGenerator<Piece, void, void>}
 */
async function* recorded(head, progress, params, ask) {
  const { params: written, ...message } = /** @type {Message & {params: Params}} */ (plain({ ...head.message, params: head.params }));
  const text = JSON.stringify({ ...head, message, params: written });
  const release = hold(head.id);
  const small = text.length <= REQUEST_CHARS;
  // Each write follows the one before: what is deleted in the end is not written again.
  let writing = small ? put(head.id, text) : Promise.resolve(null);
  let [last, busy] = [0, false];
  const write = () => {
    const now = Date.now();
    if (!small || busy || now - last < WRITE_MS) return;
    [last, busy] = [now, true];
    writing = writing.then(() => put(`${head.id}+`, JSON.stringify({ ...progress, at: now }))).finally(() => (busy = false));
  };
  try {
    for await (const piece of ask(message, params)) {
      progress.tokens.push(...piece.token_ids);
      progress.text += piece.text;
      write();
      yield piece;
    }
  } finally {
    void writing.then(() => discard(head.id)).finally(release);
  }
}

/** @param {string} key @param {string} text */
function put(key, text) {
  return inStore(NAME, STORE, "readwrite", (store) => store.put(text, key));
}

/** What is there and can be resumed; what is damaged, or too old, goes. @returns {Promise<{head: Head, progress: Progress}[]>} */
async function stored() {
  const keys = (await inStore(NAME, STORE, "readonly", (store) => store.getAllKeys())) ?? [];
  const locks = await heldLocks();
  const found = [];
  for (const id of keys.map(String).filter((key) => !key.endsWith("+"))) {
    if (locks?.has(LOCK + id)) continue;
    const head = headOf(await inStore(NAME, STORE, "readonly", (store) => store.get(id)), id);
    if (!head || Date.now() - head.began > AGE_MS) {
      await discard(id);
      continue;
    }
    const progress = progressOf(await inStore(NAME, STORE, "readonly", (store) => store.get(`${id}+`)));
    if (locks || Date.now() - progress.at > ALIVE_MS) found.push({ head, progress });
  }
  return found;
}

/** Says to other pages that this answer runs here. @param {string} id @returns {() => void} */
function hold(id) {
  return holdLock(LOCK + id, () => {});
}

/** @param {number} words @returns {Uint32Array} */
function random(words) {
  return crypto.getRandomValues(new Uint32Array(words));
}
