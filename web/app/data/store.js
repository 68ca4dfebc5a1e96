/**
 * @file Conversations in this browser's storage: a record for each message, so that two tabs which write to the same
 * conversation make two branches of it and lose nothing. Where the browser keeps nothing (a private window, no room), all
 * works from memory, and `kept` says so.
 */

import { done, finished, openChannel, openDatabase } from "../../engine/host/site_data.js";
import { isObject, MOST_MESSAGES, readHead, readMessage } from "./records.js";

/**
 * @typedef {import("../types.js").Head} Head
 * @typedef {import("../types.js").Message} Message
 * @typedef {object} Known what was seen or written here of a conversation
 * @property {Head} head
 * @property {Map<string, Message>} messages
 * @property {Map<string, Message>} unsaved of these, what storage does not have yet
 * @property {boolean} due the head is not there yet
 * @property {boolean} failed the last write of it
 * @property {number} retries since then, with writes of other conversations
 */

const NAME = "inpage-conversations";
const HEADS = "heads";
const MESSAGES = "messages";
const SETTINGS = "settings";
/** A conversation that there is no room for must not be tried with each write of another. */
const RETRIES = 3;

export class Store {
  /** Whether all that was written reached the browser's storage. */
  kept = true;
  /** @type {Map<string, Known>} */
  #known = new Map();
  /** Writes follow each other. @type {Promise<unknown>} */
  #writing = Promise.resolve();
  #channel;
  #onChange;

  /**
   * @param {(id: string | null, gone: boolean) => void} onChange another tab changed a conversation, or deleted it; with
   *   null, `kept` changed here
   * @param {string} [channel]
   */
  constructor(onChange, channel = NAME) {
    this.#onChange = onChange;
    this.#channel = openChannel(channel, (message) => {
      const { changed, gone } = isObject(message) ? message : {};
      if (typeof gone === "string") this.#known.delete(gone);
      if (typeof changed === "string" || typeof gone === "string") onChange(String(changed ?? gone), typeof gone === "string");
    });
  }

  /** @returns {Promise<Head[]>} the latest first */
  async heads() {
    const found = await this.#read(HEADS, (store) => store.getAll());
    const heads = new Map([...this.#known].map(([id, { head }]) => [id, head]));
    for (const value of found ?? []) {
      const head = readHead(value);
      if (head && !this.#known.get(head.id)?.due) heads.set(head.id, head);
    }
    return [...heads.values()].sort((a, b) => b.updated - a.updated);
  }

  /** @param {string} id @returns {Promise<{head: Head, messages: Message[]} | null>} */
  async load(id) {
    await this.#writing;
    const stored = readHead(await this.#read(HEADS, (store) => store.get(id)));
    const found = await this.#read(MESSAGES, (store) => store.getAll(IDBKeyRange.bound([id], [id, []]), MOST_MESSAGES));
    const known = this.#known.get(id);
    const head = known?.due ? known.head : (stored ?? known?.head);
    if (!head) return null;
    const now = this.#of(head);
    now.head = head;
    for (const value of found ?? []) {
      const message = readMessage(value);
      if (message && !now.unsaved.has(message.id)) now.messages.set(message.id, message);
    }
    return { head, messages: [...now.messages.values()] };
  }

  /** What is known of a conversation. @param {Head} head */
  #of(head) {
    const known = this.#known.get(head.id) ?? { head, messages: new Map(), unsaved: new Map(), due: false, failed: false, retries: 0 };
    this.#known.set(head.id, known);
    return known;
  }

  /**
   * Put a head, and messages that are new or changed, with those that could not be written before. Where storage was
   * cleared meanwhile, all that is known of the conversation is written again.
   * @param {Head} head
   * @param {Message[]} messages
   * @returns {Promise<void>}
   */
  save(head, messages) {
    const known = this.#of(head);
    [known.head, known.due] = [{ ...head }, true];
    for (const message of messages) {
      const copy = { ...message, tokens: [...message.tokens] };
      known.messages.set(message.id, copy);
      known.unsaved.set(message.id, copy);
    }
    return this.#write(async () => {
      await this.#put(head.id);
      // Of others too, as nothing else may be written of them.
      for (const [id, each] of this.#known) if (each.failed && each.retries++ < RETRIES) await this.#put(id).catch(() => {});
    });
  }

  /** What storage does not have of a conversation. @param {string} id @returns {Promise<void>} rejects where it refuses */
  async #put(id) {
    const known = this.#known.get(id);
    if (!known || !(known.due || known.unsaved.size)) return; // deleted, or written with an earlier one
    const { head } = known;
    /** @type {Map<string, Message>} */
    let put = new Map();
    try {
      await change([HEADS, MESSAGES], (heads, rows) => {
        const before = heads.count(id);
        before.onsuccess = () => {
          put = new Map(before.result ? known.unsaved : known.messages);
          heads.put(head, id);
          for (const message of put.values()) rows.put(message, [id, message.id]);
        };
      });
    } catch (error) {
      known.failed = true;
      throw error;
    }
    [known.failed, known.retries] = [false, 0];
    if (known.head === head) known.due = false;
    // What was changed again meanwhile is another object.
    for (const [each, message] of put) if (known.unsaved.get(each) === message) known.unsaved.delete(each);
    this.#channel.post({ changed: id });
  }

  /** @param {string} id @returns {Promise<void>} */
  remove(id) {
    this.#known.delete(id);
    return this.#write(async () => {
      await change([HEADS, MESSAGES], (heads, rows) => {
        heads.delete(id);
        rows.delete(IDBKeyRange.bound([id], [id, []]));
      });
      this.#channel.post({ gone: id });
    });
  }

  /** @param {string} words @returns {Promise<Set<string>>} ids of the conversations that have all of these words */
  async search(words) {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    await this.#writing;
    /** @type {Map<string, string>} */
    const texts = new Map();
    const add = (/** @type {string} */ id, /** @type {string} */ text) => texts.set(id, `${texts.get(id) ?? ""}\n${text.toLowerCase()}`);
    for (const { id, title } of await this.heads()) add(id, title);
    const keys = (await this.#read(MESSAGES, (store) => store.getAllKeys())) ?? [];
    const rows = (await this.#read(MESSAGES, (store) => store.getAll())) ?? [];
    for (const [i, key] of keys.entries()) {
      const text = readMessage(rows[i])?.text;
      if (text && Array.isArray(key) && texts.has(String(key[0]))) add(String(key[0]), text);
    }
    if (!this.kept) for (const [id, { messages }] of this.#known) for (const { text } of messages.values()) add(id, text);
    return new Set([...texts].filter(([, text]) => wanted.every((word) => text.includes(word))).map(([id]) => id));
  }

  /** @param {object} settings */
  saveSettings(settings) {
    return this.#write(() => change([SETTINGS], (store) => void store.put({ ...settings }, "all")));
  }

  /**
   * @template T
   * @param {string} name
   * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
   * @returns {Promise<T | null>}
   */
  async #read(name, ask) {
    try {
      return await read(name, ask);
    } catch {
      this.#say(false);
      return null;
    }
  }

  /** @param {() => Promise<void>} act @returns {Promise<void>} */
  #write(act) {
    const written = this.#writing.then(async () => {
      try {
        await act();
        this.#say([...this.#known.values()].every(({ failed }) => !failed));
      } catch {
        this.#say(false); // no room, a private window: memory has it
      }
    });
    this.#writing = written;
    return written;
  }

  /** @param {boolean} kept */
  #say(kept) {
    if (this.kept === kept) return;
    this.kept = kept;
    this.#onChange(null, false);
  }
}

/** @returns {Promise<unknown>} as they were stored: to be checked; null where there are none */
export function storedSettings() {
  return read(SETTINGS, (store) => store.get("all")).catch(() => null);
}

/**
 * @template T
 * @param {string} name
 * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
 * @returns {Promise<T>}
 */
async function read(name, ask) {
  const database = await open();
  try {
    return await done(ask(database.transaction(name).objectStore(name)));
  } finally {
    database.close();
  }
}

/** @param {string[]} names @param {(...stores: IDBObjectStore[]) => void} act @returns {Promise<void>} */
async function change(names, act) {
  const database = await open();
  try {
    const transaction = database.transaction(names, "readwrite");
    act(...names.map((name) => transaction.objectStore(name)));
    await finished(transaction);
  } finally {
    database.close();
  }
}

/** @returns {Promise<IDBDatabase>} */
function open() {
  return openDatabase(NAME, (fresh) => {
    for (const name of [HEADS, MESSAGES, SETTINGS]) fresh.createObjectStore(name);
  });
}
