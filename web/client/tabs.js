/**
 * @file One router for all tabs of an origin that start the same version of inpage with the same options. The tab that has
 * the lock hosts it, the others ask that tab (remote.js, guest.js). When it goes, closed or crashed, the browser gives the
 * lock to the next that waits for it; a tab that is frozen gives its router up, and one that was frozen without a word, and
 * does not answer, is robbed of the lock. Then the next one starts a router, and each tab asks there for what it still
 * misses.
 *
 * On the channel of all: {hello: name of a link, models, hidden} by a tab that looks for the host, {host} by a new host.
 */

import { EngineError } from "../engine/format/errors.js";
import { hasChannels, locksAnswer, openChannel, takeLock } from "../engine/host/site_data.js";
import { digestOf } from "../engine/storage/sha256.js";
import { Guest } from "./guest.js";
import { RemoteLink } from "./remote.js";
import { toAll } from "./tab_messages.js";
import { VERSION } from "./version.js";

/**
 * @typedef {import("./link.js").Link} Link
 * @typedef {import("./supervisor.js").Supervisor} Supervisor
 * @typedef {import("./visibility.js").Seen} Seen
 */

/** After one tab took over from a frozen one, no other takes it from that before it had heard of it. */
const TAKING_MS = 1000;

/**
 * @param {object} options what makes routers the same
 * @param {Supervisor} owner
 * @returns {Promise<Tabs | null>} null where the browser has no locks or channels: each tab has its own router
 */
export async function joined(options, owner) {
  if (!hasChannels() || !(await locksAnswer())) return null;
  const digest = await digestOf(new TextEncoder().encode(JSON.stringify(options)));
  return new Tabs(`inpage-tabs-${VERSION}-${digest}`, owner);
}

export class Tabs {
  #name;
  #owner;
  #channel;
  /** Gives the lock back, while this tab hosts the router. @type {(() => void) | null} */
  #release = null;
  /** Ends the waiting for the lock. @type {AbortController | null} */
  #queue = null;
  /** @type {RemoteLink | null} */
  #remote = null;
  /** @type {Map<string, Guest>} by link */
  #guests = new Map();
  #taking = false;
  #closed = false;
  /** While the page is frozen, or gone. @type {{awake: Promise<void>, wake: () => void} | null} */
  #asleep = null;
  /** @type {Seen} of this tab */
  #seen = { hidden: globalThis.document?.visibilityState === "hidden", frozen: false };
  /** The router knows that nobody sees any of the tabs. */
  #toldHidden = false;
  #events = new AbortController();

  /** @param {string} name @param {Supervisor} owner */
  constructor(name, owner) {
    this.#name = name;
    this.#owner = owner;
    this.#channel = openChannel(name, (message) => this.#heard(message));
    /** @param {EventTarget | undefined} target @param {string} event @param {() => void} heard */
    const on = (target, event, heard) => target?.addEventListener(event, heard, { signal: this.#events.signal });
    on(globalThis.document, "freeze", () => this.#sleep(this.#guests.size > 0));
    on(globalThis.document, "resume", () => this.#wake());
    on(globalThis, "pagehide", () => this.#sleep(true));
    on(globalThis, "pageshow", () => this.#wake());
  }

  /** @returns {Promise<Link | RemoteLink>} this tab's own router, to be loaded, or that of the tab that hosts it */
  async open() {
    while (this.#asleep) await this.#asleep.awake;
    if (!this.#release && !this.#closed) {
      const release = await this.#take({ ifAvailable: true });
      if (release) this.#became(release);
    }
    if (this.#closed) throw new EngineError("cancelled", "the model was unloaded");
    if (this.#asleep) return this.open();
    if (this.#release) return this.#owner.open();
    this.#wait();
    const link = `${this.#name}/${crypto.randomUUID()}`;
    const remote = new RemoteLink(link, {
      hello: () => this.#channel.post({ hello: link, models: this.#owner.models, hidden: this.#seen.hidden }),
      heard: (event) => this.#owner.heard(event),
      died: () => this.#owner.turns.died(remote, null),
      silent: () => void this.#rob(remote),
    });
    return (this.#remote = remote);
  }

  /** What belongs to no call, to all tabs. @param {object} event */
  tell(event) {
    for (const guest of this.#guests.values()) guest.tell(event);
  }

  /** The router of this tab died; all come again. @param {Link} link */
  died(link) {
    for (const guest of this.#guests.values()) guest.died(link);
    this.#guests.clear();
  }

  /** The router can be asked. */
  loaded() {
    this.#toldHidden = false;
    if (this.#release) this.#look();
  }

  /** @param {Seen} seen of this tab */
  see(seen) {
    this.#seen = seen;
    if (this.#release) this.#look();
    else this.#remote?.see(seen.hidden);
  }

  /** This tab wants no router any more. */
  close() {
    this.#closed = true;
    this.#events.abort();
    this.#asleep?.wake();
    this.#asleep = null;
    this.#queue?.abort();
    this.#leave();
    this.#remote?.end(new EngineError("cancelled", "the model was unloaded"), true);
    this.#channel.close();
  }

  /** @returns {boolean} whether other tabs use the router of this one */
  get shared() {
    return this.#guests.size > 0;
  }

  /** @param {Parameters<typeof takeLock>[1]} how */
  async #take(how) {
    /** @type {(() => void) | null} */
    let mine = null;
    mine = await takeLock(this.#name, how, () => mine && this.#release === mine && this.#robbed());
    return mine;
  }

  #wait() {
    if (this.#queue) return;
    const queue = (this.#queue = new AbortController());
    const granted = (/** @type {(() => void) | null} */ release) => {
      if (this.#queue === queue) this.#queue = null;
      if (!release) return;
      if (this.#closed || this.#asleep || this.#release) release();
      else this.#takeOver(release);
    };
    this.#take({ signal: queue.signal }).then(granted, () => {});
  }

  /** @param {() => void} release */
  #became(release) {
    if (this.#closed) return release();
    this.#release = release;
    this.#queue?.abort();
    this.#queue = null;
    this.#channel.post({ host: true });
  }

  /** The tab that hosted the router is no more. @param {() => void} release */
  #takeOver(release) {
    this.#became(release);
    this.#remote?.end(new EngineError("device_lost", "the tab that ran the model is gone"));
    this.#remote = null;
    this.#owner.wake();
  }

  /** The host does not answer: it is frozen. @param {RemoteLink} remote */
  async #rob(remote) {
    if (this.#taking || this.#closed || this.#asleep) return;
    this.#taking = true;
    try {
      const taking = await takeLock(`${this.#name}/taking`, { ifAvailable: true }, () => {});
      if (!taking) return; // another tab does it
      setTimeout(taking, TAKING_MS);
      if (remote.ended || this.#release) return;
      this.#queue?.abort();
      this.#queue = null;
      const release = await this.#take({ steal: true });
      if (release) this.#takeOver(release);
    } catch {
      // It is tried again as long as nobody answers.
    } finally {
      this.#taking = false;
    }
  }

  /** Another tab took over: this one had not answered. */
  #robbed() {
    this.#release = null;
    this.#leave();
    this.#owner.wake();
  }

  /** @param {unknown} said */
  #heard(said) {
    const message = toAll(said);
    if (message === null) return;
    if ("hello" in message && this.#release && !this.#asleep && !this.#guests.has(message.hello)) {
      const gone = () => {
        guest.close();
        if (this.#guests.delete(message.hello)) this.#look();
      };
      const guest = new Guest(message.hello, message, this.#owner, { gone, seen: () => this.#look() });
      this.#guests.set(message.hello, guest);
      this.#look();
    } else if ("host" in message && !this.#release) {
      this.#remote?.replaced();
      if (!this.#asleep) this.#owner.wake();
    }
  }

  /** The page will not run for a while, or no more. @param {boolean} letGo */
  #sleep(letGo) {
    if (this.#asleep) return;
    let wake = () => {};
    const awake = /** @type {Promise<void>} */ (new Promise((resolve) => (wake = () => resolve(undefined))));
    this.#asleep = { awake, wake };
    this.#queue?.abort();
    this.#queue = null;
    if (!letGo) return;
    this.#leave();
    // What is said to a page that the browser keeps for "back" is lost: it asks again when it is shown.
    this.#remote?.end(new EngineError("device_lost", "this tab was left"), true);
  }

  #wake() {
    this.#asleep?.wake();
    if (!this.#asleep) return;
    this.#asleep = null;
    if (!this.#release && this.#remote && !this.#remote.ended) this.#wait();
    this.#owner.wake();
  }

  /** Give the router up, if it is here. */
  #leave() {
    for (const guest of this.#guests.values()) guest.bye();
    this.#guests.clear();
    this.#owner.leave();
    this.#release?.();
    this.#release = null;
  }

  /** The router is told whether anybody sees any of the tabs. */
  #look() {
    const hidden = this.#seen.hidden && [...this.#guests.values()].every((guest) => guest.hidden);
    const frozen = this.#seen.frozen && !this.#guests.size;
    if (!hidden && !this.#toldHidden) return;
    this.#toldHidden = hidden;
    this.#owner.tellSeen({ hidden, frozen });
  }
}
