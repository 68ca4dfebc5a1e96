/**
 * @file One HTTP request to the router: the head, then the body as it comes. Where the router dies meanwhile it is asked
 * again: for all of it as long as nothing was answered, else, of a stream of one answer, for what is missing.
 */

import { EngineError } from "../engine/format/errors.js";
import { DEATHS, poisoned, Turn } from "./turns.js";

/**
 * @typedef {import("./remote.js").AnyLink} Link
 * @typedef {import("./turns.js").Turns} Turns
 * @typedef {{status: number, headers: Record<string, string>}} Head
 * @typedef {{id: string, created: number, seed: number, token_ids: number[], events: number}} Position
 */

export class Exchange {
  #turn = new Turn();
  #message;
  /** @type {Link | null} the router that was asked last */
  #link = null;
  /** @type {Position | null} how far a stream is that another router can go on with */
  #position = null;
  #begun = false;
  #over = false;
  #bytes = new TextEncoder();
  /** @type {(head: Head) => void} */
  #begin = () => {};
  /** @type {(reason: unknown) => void} */
  #refuse = () => {};
  /** @type {ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>} */
  #body = /** @type {any} */ (null);
  #turns;

  /** @type {Promise<Head>} rejects with what `run` fails of, as long as nothing was answered */
  head = new Promise((resolve, reject) => {
    this.#begin = resolve;
    this.#refuse = reject;
  });
  /** Cancelling it ends the answer. @type {ReadableStream<Uint8Array<ArrayBuffer>>} */
  body = new ReadableStream({
    start: (controller) => {
      this.#body = controller;
    },
    cancel: () => this.#leave(),
  });

  /** @param {Turns} turns @param {{op: "http", method: string, path: string, body: string}} message */
  constructor(turns, message) {
    this.#turns = turns;
    this.#message = message;
  }

  /** Nothing is wanted any more. @param {unknown} reason */
  abort(reason) {
    if (this.#over) return;
    this.#leave();
    this.#refuse(reason);
    this.#body.error(reason);
  }

  /** @param {() => Promise<Link>} connect gives the router that lives, started again where it had died */
  async run(connect) {
    try {
      while (!(await this.#asked(connect)));
      if (!this.#over) this.#body.close();
    } catch (error) {
      if (this.#over) return;
      this.#refuse(error);
      this.#body.error(error);
    } finally {
      this.#over = true;
      this.#turns.leave(this.#turn);
    }
  }

  /** @param {() => Promise<Link>} connect @returns {Promise<boolean>} whether it has come to its end */
  async #asked(connect) {
    const turn = this.#turn;
    await this.#turns.enter(turn);
    const link = await connect();
    if (this.#over) return true;
    const { id, answer } = link.call({ ...this.#message, resume: this.#position ?? undefined }, (heard) => this.#hear(heard), turn);
    this.#link = turn.router = link;
    turn.call = id;
    try {
      await answer;
      return true;
    } catch (error) {
      if (this.#over) return true;
      if (error !== link.ended) throw error;
      if (turn.deaths >= DEATHS) throw poisoned(link.ended);
      if (this.#begun && !this.#position) throw error;
      return false;
    }
  }

  #leave() {
    this.#over = true;
    this.#link?.cancel(this.#turn.call ?? 0);
    this.#turns.leave(this.#turn);
  }

  /** @param {{begun?: Head & {body: string | null, resume: Omit<Position, "token_ids" | "events"> | null}, chunk?: string, token_ids?: number[], events?: number}} heard */
  #hear({ begun, chunk, token_ids, events = 0 }) {
    if (this.#over) return;
    if (begun && this.#begun) {
      // Where what was going on is refused now, its head says so too late.
      if (begun.status !== 200) this.abort(new EngineError("device_lost", `the stream cannot go on after its router died: HTTP ${begun.status}`));
      return;
    }
    if (begun) {
      this.#begun = true;
      if (begun.resume) this.#position = { ...begun.resume, token_ids: [], events: 0 };
      this.#begin({ status: begun.status, headers: begun.headers });
      if (begun.body !== null) {
        this.#body.enqueue(this.#bytes.encode(begun.body));
        this.#body.close();
        this.#over = true;
      }
    }
    if (chunk === undefined) return;
    this.#body.enqueue(this.#bytes.encode(chunk));
    if (!this.#position || !token_ids) return;
    this.#position.token_ids.push(...token_ids);
    this.#position.events = events;
    if (token_ids.length) this.#turns.got(this.#turn);
  }
}
