/**
 * @file One answer: read as it comes and, when the router dies meanwhile, asked for again with what it had. The router's
 * sampling is keyed by seed and position, so the answer goes on as it would have. Its time and its end by a signal do not
 * depend on a router that answers.
 */

import { EngineError } from "../engine/format/errors.js";
import { plain } from "../engine/format/json.js";
import { DEATHS, poisoned, Turn } from "./turns.js";

/**
 * @typedef {import("./remote.js").AnyLink} Link
 * @typedef {import("./turns.js").Turns} Turns
 * @typedef {import("./types.js").Completion} Completion
 * @typedef {import("./types.js").Failover} Failover
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").Piece} Piece
 * @typedef {{value?: any, error?: any}} Ending
 */

/** The router keeps deadlines itself, and ends what it is told to end: it knows more of the answer. */
const LATE_MS = 500;
const CANCEL_MS = 250;

/**
 * @param {() => Promise<Link>} connect gives the router that lives, started again where it had died
 * @param {Turns} turns
 * @param {object} message
 * @param {Params} params
 * @returns {AsyncGenerator<Piece, void, void>}
 */
export async function* answer(connect, turns, message, { signal, ...params }) {
  const asked = new Asked(message, params);
  const cancel = () => asked.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    if (signal?.aborted) cancel();
    for (;;) {
      const ending = asked.run(connect, turns);
      yield* asked.pieces();
      const { value, error } = await ending;
      if (!error) {
        yield asked.last(value);
        return;
      }
      if (error !== asked.link?.ended) throw error;
      asked.died(error);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    asked.close();
    turns.leave(asked.turn);
  }
}

/** What is known of an answer so far. */
class Asked {
  turn = new Turn();
  /** @type {Link | null} the router that was asked last */
  link = null;
  #message;
  #params;
  #began = performance.now();
  #ttft = 0;
  #lostAt = 0;
  #reason = "";
  /** @type {number[]} */
  #tokens;
  #text = "";
  /** @type {Failover[]} */
  #failovers = [];
  /** @type {Piece[]} arrived and not yet read */
  #arrived = [];
  #wake = () => {};
  #cancelled = false;
  /** @type {Ending | null} of this run */
  #ending = null;
  /** @type {(ending: Ending) => void} of this run */
  #settle = () => {};
  /** @type {ReturnType<typeof setTimeout>[]} */
  #timers = [];

  /** @param {object} message @param {Params} params */
  constructor(message, params) {
    const { params: given, ...rest } = plain({ ...message, params });
    this.#message = rest;
    this.#params = given;
    this.#tokens = Array.isArray(given.resume) ? [...given.resume] : [];
    const { timeout } = given;
    if (typeof timeout !== "number" || !(timeout > 0) || timeout > 1e6) return;
    const over = new EngineError("timeout", `the answer was not whole after ${timeout} s: allow more time, or ask when less is waiting`);
    this.#timers.push(setTimeout(() => this.#giveUp({ error: over }), timeout * 1000 + LATE_MS));
  }

  /**
   * Ask for what is still missing, when it may be asked.
   * @param {() => Promise<Link>} connect
   * @param {Turns} turns
   * @returns {Promise<Ending>}
   */
  run(connect, turns) {
    this.#ending = null;
    this.link = null;
    const ending = new Promise((resolve) => {
      this.#settle = (ending) => {
        if (this.#ending) return;
        this.#ending = ending;
        // What reads the answer may take its time: others do not wait for that.
        if (!ending.error || ending.error !== this.link?.ended) turns.leave(this.turn);
        resolve(ending);
        this.#wake();
      };
    });
    if (this.#cancelled) this.#settle({ value: this.#broken() });
    else void this.#send(connect, turns).then((value) => this.#settle({ value }), (error) => this.#settle({ error }));
    return /** @type {Promise<Ending>} */ (ending);
  }

  /**
   * @param {() => Promise<Link>} connect
   * @param {Turns} turns
   * @returns {Promise<any>}
   */
  async #send(connect, turns) {
    await turns.enter(this.turn);
    const link = await connect();
    if (this.#ending) return undefined;
    const left = this.#params.timeout === undefined || !this.#lostAt ? {} : { timeout: this.#left(this.#params.timeout) };
    const resume = this.#tokens.length ? { resume: this.#tokens } : {};
    const params = { ...this.#params, ...resume, ...left };
    const call = link.call({ ...this.#message, params }, (heard) => this.#hear(heard, turns), this.turn);
    this.link = this.turn.router = link;
    this.turn.call = call.id;
    return call.answer;
  }

  /** Seconds of `timeout` that are left. @param {any} timeout */
  #left(timeout) {
    if (typeof timeout !== "number") return timeout;
    return Math.max(0.001, timeout - (performance.now() - this.#began) / 1000);
  }

  cancel() {
    this.#cancelled = true;
    if (!this.link) this.#settle({ value: this.#broken() });
    else {
      this.link.cancel(this.turn.call ?? 0);
      this.#timers.push(setTimeout(() => this.#giveUp({ value: this.#broken() }), CANCEL_MS));
    }
  }

  /** Nothing is wanted any more. */
  close() {
    for (const timer of this.#timers) clearTimeout(timer);
    if (this.#ending) return;
    this.link?.cancel(this.turn.call ?? 0);
    this.#settle({});
  }

  /** Without the router's word. @param {Ending} ending */
  #giveUp(ending) {
    if (this.#ending) return;
    this.link?.cancel(this.turn.call ?? 0);
    this.#settle(ending);
  }

  /**
   * Pieces as they arrive, until this run ended.
   * @returns {AsyncGenerator<Piece, void, void>}
   */
  async *pieces() {
    for (;;) {
      const piece = this.#arrived.shift();
      if (piece) yield piece;
      else if (this.#ending) return;
      else await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
  }

  /** @param {EngineError} error */
  died(error) {
    this.#lostAt ||= performance.now();
    this.#reason = `${error.code}: ${error.message}`;
    if (this.turn.deaths >= DEATHS) throw poisoned(error);
  }

  /** @param {Completion} completion @returns {Piece} */
  last(completion) {
    const { finish_reason, usage, load_ms, prefill_tps, decode_tps } = completion;
    const ttft_ms = this.#failovers.some(({ from }) => from === "router") ? this.#ttft : completion.ttft_ms;
    const whole = { ...completion, ttft_ms, failovers: this.#failovers };
    return { text: "", token_ids: [], finish_reason, usage, timing: { load_ms, ttft_ms, prefill_tps, decode_tps }, completion: whole };
  }

  /** What there is of an answer that the router did not end. @returns {Completion} */
  #broken() {
    const completion_tokens = this.#tokens.length;
    return {
      prompt_ids: [], token_ids: [...this.#tokens], text: this.#text, finish_reason: "cancelled", seed: this.#params.seed ?? 0,
      load_ms: 0, ttft_ms: this.#ttft, prefill_tps: 0, decode_tps: 0, threads: 0, backend: "", variant: "", why: "",
      usage: { prompt_tokens: 0, completion_tokens, total_tokens: completion_tokens, prompt_tokens_details: { cached_tokens: 0 } },
      failovers: [], cached_tokens: 0, source: "engine", logprobs: [], ended: "",
    };
  }

  /** @param {{begun?: {seed: number}, piece?: Piece}} heard @param {Turns} turns */
  #hear({ begun, piece }, turns) {
    if (begun) this.#params = { ...this.#params, seed: begun.seed };
    if (!piece || this.#ending) return;
    const now = performance.now();
    this.#ttft ||= now - this.#began;
    const gap = { from: "router", to: "router", reason: this.#reason, gap_ms: now - this.#lostAt };
    if (this.#lostAt) piece.failovers = [gap, ...(piece.failovers ?? [])];
    this.#failovers.push(...(piece.failovers ?? []));
    this.#lostAt = 0;
    this.#tokens.push(...piece.token_ids);
    this.#text += piece.text;
    this.#arrived.push(piece);
    if (piece.token_ids.length) turns.got(this.turn);
    this.#wake();
  }
}
