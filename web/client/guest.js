/**
 * @file Another tab at the router of this one (tabs.js): relays its calls, in turn with those of this tab (turns.js), and
 * ends them where that tab is gone. The other end, and what goes to and fro, is remote.js.
 */

import { EngineError, toWire } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";
import { openChannel, whenFree } from "../engine/host/site_data.js";
import { toHost } from "./tab_messages.js";
import { HARMLESS, standing, Turn } from "./turns.js";

/**
 * @typedef {import("./remote.js").AnyLink} AnyLink
 * @typedef {import("./turns.js").Standing} Standing
 * @typedef {import("./supervisor.js").Supervisor} Supervisor
 * @typedef {{turn: Turn | null, link: AnyLink | null, number: number}} Relayed
 */

export class Guest {
  #channel;
  #owner;
  /** @type {Map<number, Relayed>} */
  #calls = new Map();
  #seen;
  hidden;

  /**
   * @param {string} name of its link
   * @param {import("./tab_messages.js").Hello} hello
   * @param {Supervisor} owner
   * @param {{seen: () => void, gone: () => void}} on seen: `hidden` changed; gone: that tab is no more
   */
  constructor(name, { models, hidden }, owner, { seen, gone }) {
    this.#owner = owner;
    this.#seen = seen;
    this.hidden = hidden;
    this.#channel = openChannel(name, (message) => this.#receive(message));
    this.#channel.post({ here: true });
    whenFree(name, gone);
    void this.#welcome(models);
  }

  /** What belongs to no call. @param {object} event */
  tell(event) {
    this.#channel.post({ event });
  }

  /** The router of this tab died. @param {AnyLink} link whose turns know by now who is to blame */
  died(link) {
    /** @type {Record<number, Standing>} */
    const standings = {};
    for (const [id, { turn, link: asked }] of this.#calls) if (turn && asked === link) standings[id] = standing(turn);
    this.#channel.post({ died: toWire(link.ended), standings });
    this.close();
  }

  /** This tab gives its router up. */
  bye() {
    this.#channel.post({ bye: true });
    this.close();
  }

  /** Nothing of it is wanted any more. */
  close() {
    for (const id of [...this.#calls.keys()]) this.#cancel(id);
    this.#channel.close();
  }

  /** @param {any[]} models */
  async #welcome(models) {
    try {
      await this.#owner.learn(models);
      await this.#owner.connect();
      this.#channel.post({ welcome: this.#owner.info });
    } catch {
      // Where no router can be started this tab gives up, and says so to all.
    }
  }

  /** @param {unknown} said */
  #receive(said) {
    const message = toHost(said);
    if (message === null) return;
    if (message === "ping") this.#channel.post("pong");
    else if ("cancel" in message) this.#cancel(message.cancel);
    else if ("hidden" in message) {
      this.hidden = message.hidden;
      this.#seen();
    } else void this.#relay(message);
  }

  /** @param {{id: number, call: string, standing: Standing | null}} message */
  async #relay({ id, call, standing: brought }) {
    let message;
    try {
      message = requestOf(call);
    } catch (error) {
      return this.#channel.post({ id, error: toWire(error) });
    }
    if (message.op === "add" && this.#owner.knows(/** @type {any} */ (message))) return this.#channel.post({ id, value: message.model });
    const turn = HARMLESS.has(message.op) ? null : Object.assign(new Turn(), brought);
    /** @type {Relayed} */
    const relayed = { turn, link: null, number: 0 };
    const { turns } = this.#owner;
    this.#calls.set(id, relayed);
    try {
      if (turn) await turns.enter(turn);
      const link = this.#calls.has(id) && (await this.#owner.connect());
      if (!link || !this.#calls.has(id)) return;
      this.#channel.post({ admitted: id });
      const { id: number, answer } = link.call(message, (heard) => {
        if (turn && progressed(heard)) turns.got(turn);
        this.#channel.post({ id, heard });
      });
      Object.assign(relayed, { link, number });
      if (turn) Object.assign(turn, { router: link, call: number });
      const value = await answer;
      this.#owner.noted(message);
      this.#channel.post({ id, value });
    } catch (error) {
      // Of a router that died the tab learns by `died`.
      if (!relayed.link || error !== relayed.link.ended) this.#channel.post({ id, error: toWire(error) });
    } finally {
      this.#calls.delete(id);
      if (turn) turns.leave(turn);
    }
  }

  /** @param {number} id */
  #cancel(id) {
    const call = this.#calls.get(id);
    if (!call) return;
    if (call.link) call.link.cancel(call.number);
    else {
      this.#calls.delete(id);
      if (call.turn) this.#owner.turns.leave(call.turn);
    }
  }
}

/** @param {string} call @returns {{op: string, [name: string]: unknown}} */
function requestOf(call) {
  const message = /** @type {any} */ (parsed(call, "message"));
  if (typeof message?.op === "string") return message;
  throw new EngineError("invalid_request", "the message is no request", "message");
}

/** Whether a request has shown that it does the router no harm. @param {any} heard */
function progressed({ begun, piece, chunk, token_ids }) {
  if (piece) return piece.token_ids.length > 0;
  return chunk === undefined ? !begun : Boolean(token_ids?.length);
}
