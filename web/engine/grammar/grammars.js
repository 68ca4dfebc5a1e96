/**
 * @file Both ends of the grammar workers: their maker's, who has grammars made ready, and the engine's, which asks for
 * masks. There are two workers at most, so that a grammar is compiled in one while the engine's answers are held to
 * others in the other; XGrammar cannot hand a compiled grammar on.
 */

import { EngineError, fromWire } from "../format/errors.js";
import { place } from "../host/places.js";
import { startWorker } from "../host/workers.js";

const MOST = 2;
/** Grammars whose place is remembered; a worker keeps as many compiled. */
const KNOWN = 32;

/**
 * @typedef {import("../core/protocol.js").Constraint} Constraint
 * @typedef {{resolve: (value: any) => void, reject: (error: EngineError) => void}} Pending
 * @typedef {{worker: Worker, end: () => void, pending: Map<number, Pending>}} Helper
 * @typedef {{port: MessagePort, pending: Map<number, Pending>}} Asked
 */

/** Those of one loaded model, for its `EngineClient`. They start when a grammar is first asked for. */
export class GrammarWorkers {
  /** @type {(Helper | null)[]} */
  #helpers = [];
  /** @type {Map<string, number>} grammar → its worker, the one used last is last */
  #homes = new Map();
  /** @type {Set<string>} grammars that running answers are held to */
  #serving = new Set();
  #nextId = 1;
  #opening;
  #tell;

  /**
   * @param {import("../core/protocol.js").GrammarOptions} opening
   * @param {(message: {helper: number, port?: MessagePort, lost?: string}, transfer: Transferable[]) => void} tell the engine
   */
  constructor(opening, tell) {
    this.#opening = opening;
    this.#tell = tell;
  }

  /**
   * Compile a grammar, so that it costs no step anything.
   * @param {Pick<Constraint, "kind" | "source">} grammar
   * @returns {Promise<void>}
   * @throws {EngineError} invalid_request: it is none; unsupported, network
   */
  async prepare({ kind, source }) {
    const { worker, pending } = /** @type {Helper} */ (this.#helpers[this.#home(keyOf({ kind, source }))]);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      pending.set(id, { resolve: () => resolve(undefined), reject });
      worker.postMessage({ id, kind, source });
    });
  }

  /**
   * A call's input as the engine takes it: constraints with the workers that know them.
   * @template {{constraints?: Constraint[]}} T
   * @param {T} input
   * @param {boolean} all whether whatever runs is in it
   * @returns {T}
   */
  placed(input, all) {
    const { constraints = [] } = input;
    if (constraints.length || all) this.#serving = new Set(constraints.map(keyOf));
    if (!constraints.length) return input;
    return { ...input, constraints: constraints.map((each) => ({ ...each, helper: this.#home(keyOf(each)) })) };
  }

  /** @param {EngineError} reason */
  end(reason) {
    for (const helper of this.#helpers) {
      helper?.end();
      for (const { reject } of helper?.pending.values() ?? []) reject(reason);
    }
    this.#helpers = [];
    this.#homes.clear();
  }

  /**
   * Its worker: for a grammar not seen before one that no running answer needs, if there is or can be such a one.
   * @param {string} key
   * @returns {number}
   */
  #home(key) {
    const known = this.#homes.get(key);
    const home = known ?? this.#choose();
    this.#homes.delete(key);
    this.#homes.set(key, home);
    if (this.#homes.size > KNOWN) this.#homes.delete(/** @type {string} */ (this.#homes.keys().next().value));
    this.#helpers[home] ??= this.#start(home);
    return home;
  }

  /** @returns {number} */
  #choose() {
    const serving = new Set([...this.#serving].map((key) => this.#homes.get(key)));
    const load = Array.from({ length: MOST }, (_, i) => {
      const waiting = this.#helpers[i]?.pending.size ?? 0;
      return 2 * Number(serving.has(i)) + Number(waiting > 0);
    });
    return load.indexOf(Math.min(...load));
  }

  /** @param {number} home @returns {Helper} */
  #start(home) {
    /** @type {Map<number, Pending>} */
    const pending = new Map();
    const { port1, port2 } = new MessageChannel();
    const { worker, end } = startWorker(place("engine/grammar/grammar_worker.js"), "grammar", ({ message }) => {
      this.#helpers[home] = null;
      for (const [key, at] of this.#homes) if (at === home) this.#homes.delete(key);
      this.#tell({ helper: home, lost: message }, []);
      for (const { reject } of pending.values()) reject(gone(message));
    });
    worker.onmessage = ({ data }) => settle(pending, data);
    worker.postMessage({ open: this.#opening, port: port1 }, [port1]);
    this.#tell({ helper: home, port: port2 }, [port2]);
    return { worker, end, pending };
  }
}

/** The engine's end. */
export class GrammarPorts {
  /** @type {Map<number, Asked>} */
  #helpers = new Map();
  #nextId = 1;

  /** What the workers' maker tells. @param {{helper: number, port?: MessagePort, lost?: string}} message */
  hear({ helper, port, lost }) {
    for (const { reject } of this.#helpers.get(helper)?.pending.values() ?? []) reject(gone(lost ?? "the grammar worker is gone: another took its place"));
    this.#helpers.delete(helper);
    if (!port) return;
    /** @type {Asked} */
    const asked = { port, pending: new Map() };
    port.onmessage = ({ data }) => settle(asked.pending, data);
    this.#helpers.set(helper, asked);
  }

  /**
   * Which tokens may follow in each of these answers.
   * @param {{constraint: Constraint, tokens: number[]}[]} held
   * @param {number} words of one answer's mask
   * @returns {Promise<Uint32Array>} [held * words]
   * @throws {EngineError} invalid_request: a grammar is none, the tokens do not follow it, or nothing may follow
   */
  async masks(held, words) {
    const homes = [...new Set(held.map(({ constraint }) => constraint.helper ?? 0))];
    const parts = await Promise.all(
      homes.map((home) => {
        const mine = held.filter(({ constraint }) => (constraint.helper ?? 0) === home);
        const asked = mine.map(({ constraint: { id, kind, source }, tokens }) => ({ id, kind, source, tokens }));
        return this.#ask(home, { held: asked, words });
      }),
    );
    if (parts.length === 1) return parts[0];
    const mask = new Uint32Array(held.length * words);
    const next = homes.map(() => 0);
    held.forEach(({ constraint }, i) => {
      const part = homes.indexOf(constraint.helper ?? 0);
      const at = next[part]++ * words;
      mask.set(parts[part].subarray(at, at + words), i * words);
    });
    return mask;
  }

  /** The request has ended. @param {Constraint} constraint */
  forget({ helper = 0, id }) {
    this.#helpers.get(helper)?.port.postMessage({ forget: id });
  }

  /** @param {number} home @param {object} message @returns {Promise<Uint32Array>} */
  #ask(home, message) {
    const asked = this.#helpers.get(home);
    if (!asked) return Promise.reject(gone("the grammar worker is gone: it was not started"));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      asked.pending.set(id, { resolve: ({ mask }) => resolve(mask), reject });
      asked.port.postMessage({ id, ...message });
    });
  }
}

/** @param {Map<number, Pending>} pending @param {{id: number, error?: import("../format/errors.js").WireError}} answer
 */
function settle(pending, answer) {
  const waiting = pending.get(answer.id);
  pending.delete(answer.id);
  if (answer.error) waiting?.reject(fromWire(answer.error));
  else waiting?.resolve(answer);
}

/** @param {{kind: string, source: string}} grammar */
function keyOf({ kind, source }) {
  return `${kind} ${source}`;
}

/** @param {string} why @returns {EngineError} no engine is lost by it */
function gone(why) {
  return new EngineError("network", why, "grammar");
}
