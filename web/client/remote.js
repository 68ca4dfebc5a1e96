/**
 * @file A link to the router of another tab (tabs.js), used as the link to a worker (link.js): calls go to the tab that
 * hosts the router, which relays them (guest.js). It ends when that tab goes, gives its router up, or says nothing for too
 * long; what was pending is asked again by whoever asked.
 *
 * Each link has a channel and a lock of its own name. The lock tells the host when this tab is gone. To the host go
 * "ping", {id, call: text, standing}, {cancel: id} and {hidden}; from it come "pong", {here}, {progress}, {welcome: info},
 * {event}, {admitted: id}, {id, heard}, {id, value}, {id, error}, {bye}, and {died: error, standings}.
 */

import { EngineError, fromWire } from "../engine/format/errors.js";
import { toJson } from "../engine/format/json.js";
import { holdLock, openChannel } from "../engine/host/site_data.js";
import { toGuest } from "./tab_messages.js";
import { standing } from "./turns.js";
import { Watch } from "./watch.js";

/**
 * @typedef {import("./link.js").Link | RemoteLink} AnyLink
 * @typedef {import("./types.js").Info} Info
 * @typedef {import("./turns.js").Turn} Turn
 * @typedef {import("./turns.js").Standing} Standing
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {((message: any) => void) | undefined} heard
 * @property {Turn | null} turn
 * @property {boolean} admitted the router has it
 */

/**
 * A host that is asked something and says nothing for so long is frozen. A page answers between two tasks of its main
 * thread, however busy its router is.
 */
const SILENT_MS = 3000;

/** @param {string} why */
const gone = (why) => new EngineError("device_lost", `the tab that ran the model ${why}`);

export class RemoteLink {
  #channel;
  #release;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #next = 1;
  /** @type {EngineError | null} */
  #ended = null;
  #heard;
  #died;
  #watch;
  #here = false;
  #hello;
  /** @type {(info: Info) => void} */
  #welcomed = () => {};
  /** @type {(reason: EngineError) => void} */
  #refused = () => {};
  /** What the router runs, once it does. @type {Promise<Info>} */
  welcome = new Promise((resolve, reject) => {
    this.#welcomed = resolve;
    this.#refused = reject;
  });
  /** Only the host knows. */
  blamed = null;
  /** It ended because the host gave its router up, for another to start one. */
  left = false;

  /**
   * @param {string} name of this link
   * @param {object} on
   * @param {() => void} on.hello ask for a host
   * @param {(message: any) => void} on.heard what belongs to no call
   * @param {() => void} on.died the host went without a word; called before what is pending rejects
   * @param {() => void} on.silent the host says nothing; called again and again
   */
  constructor(name, { hello, heard, died, silent }) {
    this.#hello = hello;
    this.#heard = heard;
    this.#died = died;
    this.#channel = openChannel(name, (message) => this.#receive(message));
    this.#watch = new Watch(() => this.#channel.post("ping"), silent, SILENT_MS);
    this.#watch.job = null;
    this.#watch.on = true;
    this.#release = holdLock(name, () => this.#ended || hello());
    this.welcome.catch(() => {});
  }

  /** Why nothing can be asked any more. @returns {EngineError | null} */
  get ended() {
    return this.#ended;
  }

  /**
   * @param {object} message
   * @param {(message: any) => void} [heard]
   * @param {Turn | null} [turn]
   * @returns {{id: number, answer: Promise<any>}} the answer rejects with `ended` where the link ended over it
   */
  call(message, heard, turn = null) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => {
      const text = toJson(message);
      if (this.#ended) throw this.#ended;
      this.#pending.set(id, { resolve, reject, heard, turn, admitted: false });
      this.#channel.post({ id, call: text, standing: turn && standing(turn) });
      this.#watch.on = true;
    });
    return { id, answer };
  }

  /** End a request from outside. What the router does not have yet is not answered then. @param {number} id */
  cancel(id) {
    const call = this.#pending.get(id);
    if (!call) return;
    this.#channel.post({ cancel: id });
    if (!call.admitted) this.#settled(id);
  }

  /** @param {boolean} hidden whether nobody sees this tab */
  see(hidden) {
    this.#channel.post({ hidden });
  }

  /** Another tab hosts the router now. */
  replaced() {
    if (this.#here) this.end(gone("is gone"));
    else this.#hello();
  }

  /**
   * @param {EngineError} reason
   * @param {boolean} [left] nothing went wrong: nobody is to blame
   * @param {Record<number, Standing>} [standings] who is to blame, as the host found
   */
  end(reason, left = false, standings = undefined) {
    if (this.#ended) return;
    this.#ended = reason;
    this.left = left;
    this.#watch.on = false;
    this.#channel.close();
    this.#release();
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const [id, { turn, admitted }] of pending) {
      if (!turn) continue;
      if (!admitted) turn.router = null; // it had no part in it
      Object.assign(turn, standings?.[id]);
    }
    if (!left && !standings) this.#died();
    this.#refused(reason);
    for (const [, { reject }] of pending) reject(reason);
  }

  /** @param {unknown} said */
  #receive(said) {
    const message = toGuest(said);
    if (message === null) return;
    this.#watch.heard();
    if (message === "pong" || this.#ended) return;
    if (message.here) this.#here = true;
    else if (message.welcome) {
      this.#welcomed(message.welcome);
      this.#watch.on = this.#pending.size > 0;
    } else if (message.bye) this.end(gone("gave it up"), true);
    else if (message.died) this.end(fromWire(message.died), false, message.standings);
    else if (message.admitted !== undefined) Object.assign(this.#pending.get(message.admitted) ?? {}, { admitted: true });
    else if (message.event) this.#heard(message.event);
    else if (message.heard) this.#pending.get(message.id)?.heard?.(message.heard);
    else {
      const call = this.#pending.get(message.id);
      this.#settled(message.id);
      if (message.error) call?.reject(fromWire(message.error));
      else call?.resolve(message.value);
    }
  }

  /** @param {number} id */
  #settled(id) {
    this.#pending.delete(id);
    if (!this.#pending.size) this.#watch.on = false;
  }
}
