/**
 * @file Answers under way, one a conversation, whichever conversation is shown. A question waits for the model as long as
 * it takes; what an answer has is stored as it grows, and goes on after a reload, token for token.
 */

import { unfinished } from "../../client/unfinished.js";
import { EngineError } from "../../engine/format/errors.js";
import { heldLocks, holdLock, takeLock } from "../../engine/host/site_data.js";
import { OURS, requestParams } from "../settings.js";
import { fit, TooLong } from "./context.js";

/**
 * @typedef {import("../../client/inpage.js").InPage} InPage
 * @typedef {import("../../client/inpage.js").Piece} Piece
 * @typedef {import("../../client/types.js").Completion} Completion
 * @typedef {import("../types.js").Message} Message
 * @typedef {import("../types.js").Settings} Settings
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {{stop: AbortController, conversation: Conversation, message: Message}} Run
 * @typedef {object} Host
 * @property {import("../model/engine.js").Engine} engine
 * @property {() => Settings} settings
 * @property {(conversation: Conversation, message: Message) => void} changed its text or status: show it
 * @property {(conversation: Conversation, messages: Message[]) => Promise<void>} save
 * @property {(conversation: Conversation) => Promise<boolean>} renew with what storage has of it; false where it was deleted
 * @property {(conversation: Conversation, message: Message, dropped: number) => void} fitted how many messages are not read
 * @property {(error: unknown) => void} failed
 * @property {(completion: Completion, message: Message) => void} ended
 */

/** Says to other tabs that a message is written here. */
const LOCK = "inpage-run-";
/** Between two times that an answer under way is stored. */
const SAVE_MS = 1000;

export class Runs {
  /** @type {Map<string, Run>} */
  #running = new Map();
  /** Messages that another page may still have. @type {Set<string>} */
  #awaited = new Set();
  #host;

  /** @param {Host} host */
  constructor(host) {
    this.#host = host;
  }

  /** @param {string} id of a conversation @returns {Message | null} what is answered there */
  of(id) {
    return this.#running.get(id)?.message ?? null;
  }

  /** @param {string} id of a conversation */
  stop(id) {
    this.#running.get(id)?.stop.abort();
  }

  /** The model goes: what it writes stops, and can go on; what waits for one waits on. */
  interrupt() {
    for (const { stop, message } of this.#running.values()) if (message.status === "running") stop.abort();
  }

  /**
   * Answer the question that is the message's parent.
   * @param {Conversation} conversation
   * @param {Message} message the answer, empty, or with text where it should go on
   * @param {boolean} [held] other tabs know already that it is written here
   */
  async answer(conversation, message, held = false) {
    await this.#run(conversation, message, async (inpage, signal) => {
      if (message.tokens.length) sameModel(message, inpage);
      const settings = this.#host.settings();
      const { tokens } = message;
      const most = (settings.max_tokens ?? OURS.max_tokens) + tokens.length;
      const count = (/** @type {{role: string, content: string}[]} */ messages) => inpage.countTokens(messages);
      const how = { system: settings.system, max_tokens: most, context: inpage.info.context, written: tokens.length };
      const { messages, dropped, max_tokens } = await fit(conversation.path(message.parent), how, count);
      this.#host.fitted(conversation, message, dropped);
      message.model = inpage.info.name;
      message.from = { text: message.text.length, tokens: tokens.length };
      const params = { ...requestParams(settings), max_tokens, keep: message.id, signal };
      if (tokens.length) Object.assign(params, { resume: [...tokens], ...(message.seed === null ? {} : { seed: message.seed }) });
      return inpage.chat(messages, params);
    }, held);
  }

  /**
   * Go on with an answer that was under way when its page was ended; asked anew where nothing is left of it.
   * @param {Conversation} conversation
   * @param {Message} message
   */
  async takeUp(conversation, message) {
    if (this.#running.has(conversation.id) || this.#awaited.has(message.id)) return;
    this.#awaited.add(message.id);
    // Another tab may write it, or the page before a reload still has it: until that is gone.
    const free = await takeLock(LOCK + message.id, {}, () => {}).catch(() => null);
    try {
      const now = (await this.#host.renew(conversation)) && conversation.get(message.id);
      if (now) await this.#goOn(conversation, now);
    } finally {
      free?.();
      this.#awaited.delete(message.id);
    }
  }

  /** @param {Conversation} conversation @param {Message} message */
  async #goOn(conversation, message) {
    if (message.status === "waiting") return this.answer(conversation, message, true);
    if (message.status !== "running" || this.#running.has(conversation.id)) return;
    const left = await leftOf(message.id);
    if (!left) {
      message.status = "stopped";
      this.#host.changed(conversation, message);
      await this.#save(conversation, message);
      return;
    }
    await this.#run(conversation, message, async (inpage, signal) => {
      sameModel(message, inpage);
      return anew(message, inpage.resume(left.id, { signal }));
    }, true);
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   * @param {(inpage: InPage, signal: AbortSignal) => Promise<AsyncGenerator<Piece, void, void>>} begin
   * @param {boolean} held
   */
  async #run(conversation, message, begin, held) {
    if (this.#running.has(conversation.id)) return;
    const stop = new AbortController();
    const release = held ? () => {} : holdLock(LOCK + message.id, () => {});
    this.#running.set(conversation.id, { stop, conversation, message });
    message.note = "";
    if (message.status !== "running") message.status = "waiting";
    void this.#save(conversation, message);
    this.#host.changed(conversation, message);
    try {
      const inpage = await this.#host.engine.ready(stop.signal);
      await this.#stream(await begin(inpage, stop.signal), conversation, message);
    } catch (error) {
      this.#broke(error, message, stop.signal.aborted);
    } finally {
      this.#running.delete(conversation.id);
      this.#host.changed(conversation, message);
      await this.#save(conversation, message); // a tab that waits for the lock reads how it ended
      release();
    }
  }

  /**
   * @param {AsyncGenerator<Piece, void, void>} pieces
   * @param {Conversation} conversation
   * @param {Message} message
   */
  async #stream(pieces, conversation, message) {
    message.status = "running";
    void this.#save(conversation, message);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    for await (const { text, token_ids, finish_reason, completion } of pieces) {
      message.text += text;
      message.tokens.push(...token_ids);
      if (completion) this.#finish(message, completion, finish_reason ?? "stop");
      else timer ??= setTimeout(() => {
        timer = undefined;
        if (message.status === "running") void this.#save(conversation, message);
      }, SAVE_MS);
      this.#host.changed(conversation, message);
    }
    clearTimeout(timer);
  }

  /** @param {Message} message @param {Completion} completion @param {Completion["finish_reason"]} reason */
  #finish(message, completion, reason) {
    message.seed = Number.isSafeInteger(completion.seed) ? completion.seed : null;
    message.status = reason === "cancelled" ? "stopped" : reason === "length" ? "cut" : completion.ended === "repeats" ? "circles" : "done";
    this.#host.ended(completion, message);
  }

  /** @param {unknown} error @param {Message} message @param {boolean} stopped */
  #broke(error, message, stopped) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (stopped || code === "cancelled") {
      message.status = "stopped";
      return;
    }
    message.status = "failed";
    if (code === "device_lost") this.#host.engine.lost(error);
    else if (!(error instanceof TooLong)) this.#host.failed(error); // which its note says
    message.note = error instanceof TooLong ? (message.tokens.length ? "full" : "too_long") : String(code || "error");
  }

  /** @param {Conversation} conversation @param {Message} message @returns {Promise<void>} */
  #save(conversation, message) {
    return this.#host.save(conversation, [message]);
  }
}

/**
 * The first piece has all that was written since the answer was asked for or continued: what was stored with the
 * conversation stands until it is there.
 * @param {Message} message
 * @param {AsyncGenerator<Piece, void, void>} pieces
 * @returns {AsyncGenerator<Piece, void, void>}
 */
async function* anew(message, pieces) {
  const { text, tokens } = message.from;
  let first = true;
  for await (const piece of pieces) {
    if (first) [message.text, message.tokens] = [message.text.slice(0, text), message.tokens.slice(0, tokens)];
    first = false;
    yield piece;
  }
}

/**
 * What there is of an answer whose page is gone.
 * @param {string} id
 * @returns {Promise<import("../../client/types.js").Unfinished | undefined>}
 */
async function leftOf(id) {
  for (let tries = 0; ; tries++) {
    const [left] = await unfinished(id);
    // A page that ends gives its locks back one after the other.
    const held = [...((await heldLocks()) ?? [])].some((name) => name.startsWith("inpage-answer-"));
    if (left || !held || tries === 10) return left;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** @param {Message} message @param {InPage} inpage @throws {EngineError} its tokens mean nothing to another model */
function sameModel({ model }, { info }) {
  if (model && model !== info.name) throw new EngineError("invalid_request", `the answer was begun by ${model}, and ${info.name} runs now`, "model");
}

/** Whether an answer can be made longer. @param {Message} message */
export function canGoOn({ role, status, tokens, text, note }) {
  return role === "assistant" && note !== "full" && ["stopped", "cut", "failed"].includes(status) && tokens.length > 0 && text.trim() !== "";
}
