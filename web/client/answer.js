/**
 * @file One answer: read as it comes and, when the router dies meanwhile, asked for again with what it had. The router's
 * sampling is keyed by seed and position, so the answer goes on as it would have.
 */

import { EngineError } from "../engine/errors.js";

/**
 * @typedef {import("./link.js").Link} Link
 * @typedef {import("./types.js").Completion} Completion
 * @typedef {import("./types.js").Failover} Failover
 * @typedef {import("./types.js").Params} Params
 * @typedef {import("./types.js").Piece} Piece
 */

/** A request that runs each time the router dies, this often without a new token, is not tried again. */
const DEATHS = 2;

/**
 * @param {() => Promise<Link>} connect gives the router that lives, started again where it had died
 * @param {object} message
 * @param {Params} params
 * @returns {AsyncGenerator<Piece, void, void>}
 */
export async function* answer(connect, message, { signal, ...params }) {
  const asked = new Asked(message, params);
  const cancel = () => asked.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (;;) {
      const link = await connect();
      const ending = asked.of(link);
      if (signal?.aborted) cancel();
      yield* asked.pieces(ending);
      const { value, error } = await ending;
      if (!error) {
        yield asked.last(value);
        return;
      }
      if (error !== link.ended) throw error;
      asked.died(error);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}

/** What is known of an answer so far. */
class Asked {
  #message;
  #params;
  #began = performance.now();
  #ttft = 0;
  #deaths = 0;
  #lostAt = 0;
  #reason = "";
  /** @type {number[]} */
  #tokens;
  /** @type {Failover[]} */
  #failovers = [];
  /** @type {Piece[]} arrived and not yet read */
  #arrived = [];
  #wake = () => {};
  #cancel = () => {};

  /** @param {object} message @param {Params} params */
  constructor(message, params) {
    this.#message = message;
    this.#params = params;
    this.#tokens = [...(params.resume ?? [])];
  }

  /**
   * Ask a router for what is still missing.
   * @param {Link} link
   * @returns {Promise<{value?: any, error?: any}>}
   */
  of(link) {
    const resume = this.#tokens.length ? { resume: this.#tokens } : {};
    const call = link.call({ ...this.#message, params: { ...this.#params, ...resume } }, (heard) => this.#hear(heard));
    this.#cancel = () => link.cancel(call.id);
    return call.answer.then((value) => ({ value }), (error) => ({ error })).finally(() => this.#wake());
  }

  cancel() {
    this.#cancel();
  }

  /**
   * Pieces as they arrive, until the call ended.
   * @param {Promise<unknown>} ending
   * @returns {AsyncGenerator<Piece, void, void>}
   */
  async *pieces(ending) {
    let ended = false;
    void ending.then(() => {
      ended = true;
      this.#wake();
    });
    for (;;) {
      const piece = this.#arrived.shift();
      if (piece) yield piece;
      else if (ended) return;
      else await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
  }

  /** @param {EngineError} error */
  died(error) {
    this.#lostAt ||= performance.now();
    this.#reason = `${error.code}: ${error.message}`;
    if (++this.#deaths < DEATHS) return;
    throw new EngineError("poison_request", `the router died ${DEATHS} times with this request: ${error.message}`);
  }

  /** @param {Completion} completion @returns {Piece} */
  last(completion) {
    const { finish_reason, usage, load_ms, prefill_tps, decode_tps } = completion;
    const ttft_ms = this.#failovers.some(({ from }) => from === "router") ? this.#ttft : completion.ttft_ms;
    const whole = { ...completion, ttft_ms, failovers: this.#failovers };
    return { text: "", token_ids: [], finish_reason, usage, timing: { load_ms, ttft_ms, prefill_tps, decode_tps }, completion: whole };
  }

  /** @param {{begun?: {seed: number}, piece?: Piece}} heard */
  #hear({ begun, piece }) {
    if (begun) this.#params = { ...this.#params, seed: begun.seed };
    if (!piece) return;
    const now = performance.now();
    this.#ttft ||= now - this.#began;
    const gap = { from: "router", to: "router", reason: this.#reason, gap_ms: now - this.#lostAt };
    if (this.#lostAt) piece.failovers = [gap, ...(piece.failovers ?? [])];
    this.#failovers.push(...(piece.failovers ?? []));
    this.#deaths = this.#lostAt = 0;
    this.#tokens.push(...piece.token_ids);
    this.#arrived.push(piece);
    this.#wake();
  }
}
