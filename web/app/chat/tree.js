/**
 * @file A conversation as a tree: an edited question and an answer that was asked for again are siblings of what was there
 * before. Shown is the branch that ends at the head's leaf.
 */

import { newId, titleOf } from "../data/records.js";

/**
 * @typedef {import("../types.js").Head} Head
 * @typedef {import("../types.js").Message} Message
 */

export class Conversation {
  /** @type {Map<string, Message>} */
  #messages = new Map();
  /** By parent, the oldest first; made when it is asked for. @type {Map<string | null, Message[]> | null} */
  #children = null;

  /** @param {Head} head @param {Message[]} messages in any order; those that hang on nothing become first ones */
  constructor(head, messages = []) {
    this.head = { ...head };
    this.merge(messages);
  }

  /** @returns {Conversation} */
  static fresh() {
    const now = Date.now();
    return new Conversation({ id: newId(), title: "", created: now, updated: now, leaf: null });
  }

  get id() {
    return this.head.id;
  }

  get empty() {
    return this.#messages.size === 0;
  }

  /** Take what another tab or storage has. @param {Message[]} messages */
  merge(messages) {
    for (const message of messages) this.#messages.set(message.id, message);
    this.#children = null;
    /** Those that lead to a first message. */
    const rooted = new Set();
    for (const message of this.#messages.values()) {
      const way = new Set();
      for (let at = /** @type {Message | undefined} */ (message); at && !rooted.has(at.id); at = this.get(at.parent)) {
        way.add(at.id);
        if (at.parent !== null && (!this.#messages.has(at.parent) || way.has(at.parent))) at.parent = null; // damaged
      }
      for (const id of way) rooted.add(id);
    }
    if (!this.head.leaf || !this.#messages.has(this.head.leaf)) this.head.leaf = this.#latest()?.id ?? null;
  }

  /** @param {string | null} id @returns {Message | undefined} */
  get(id) {
    return id === null ? undefined : this.#messages.get(id);
  }

  /** @returns {Message[]} all, of every branch, the oldest first */
  all() {
    return [...this.#messages.values()].sort((a, b) => a.created - b.created);
  }

  /** @param {string | null} [to] the shown branch's end if not given @returns {Message[]} from the first message */
  path(to = this.head.leaf) {
    /** @type {Message[]} */
    const path = [];
    for (let at = this.get(to); at; at = this.get(at.parent)) path.push(at);
    return path.reverse();
  }

  /** @param {Message} message @returns {Message[]} what stands at its place, itself included, the oldest first */
  variants({ parent, role }) {
    return this.#after(parent).filter((each) => each.role === role);
  }

  /** @param {string | null} parent */
  #after(parent) {
    if (!this.#children) {
      this.#children = new Map();
      for (const message of this.all()) this.#children.set(message.parent, [...(this.#children.get(message.parent) ?? []), message]);
    }
    return this.#children.get(parent) ?? [];
  }

  /**
   * @param {Pick<Message, "role" | "text" | "parent"> & Partial<Message>} given
   * @returns {Message}
   */
  add(given) {
    const message = { id: newId(), created: this.#now(), status: /** @type {Message["status"]} */ ("done"), model: "", tokens: [], from: { text: 0, tokens: 0 }, seed: null, note: "", ...given };
    this.#messages.set(message.id, message);
    this.#children = null;
    this.head.leaf = message.id;
    this.head.updated = Date.now();
    if (!this.head.title && message.role === "user") this.head.title = titleOf(message.text);
    return message;
  }

  /** Show the branch of a message, to its end. @param {Message} message */
  show(message) {
    let end = message;
    for (;;) {
      const next = this.#after(end.id).at(-1);
      if (!next) break;
      end = next;
    }
    this.head.leaf = end.id;
  }

  /** Times of one conversation differ, so that their order is one. */
  #now() {
    let now = Date.now();
    for (const { created } of this.#messages.values()) now = Math.max(now, created + 1);
    return now;
  }

  #latest() {
    return this.all().at(-1);
  }
}

/**
 * Messages as a model is asked: what has no text is left out, and what follows the same speaker is one message, since many
 * templates take only turns that alternate.
 * @param {Message[]} path
 * @param {string} system
 * @returns {{role: string, content: string}[]}
 */
export function asked(path, system) {
  /** @type {{role: string, content: string}[]} */
  const messages = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  for (const { role, text } of path) {
    const content = role === "assistant" ? text.replace(/^\s*<think>[\s\S]*?(<\/think>\s*|$)/, "") : text;
    if (!content.trim()) continue;
    const last = messages.at(-1);
    if (last?.role === role) last.content += `\n\n${content}`;
    else messages.push({ role, content });
  }
  return messages;
}
