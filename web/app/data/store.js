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
 */

const NAME = "inpage-conversations";
const HEADS = "heads";
const MESSAGES = "messages";
const SETTINGS = "settings";

export class Store {
  /** Whether the last write reached the browser's storage. */
  kept = true;
  /** @type {Map<string, {head: Head, messages: Map<string, Message>}>} what was seen or written here */
  #known = new Map();
  /** Writes follow each other. @type {Promise<unknown>} */
  #writing = Promise.resolve();
  #channel;
  #onChange;

  /**
   * @param {(id: string | null) => void} onChange another tab changed a conversation, or, with null, `kept` changed here
   * @param {string} [channel]
   */
  constructor(onChange, channel = NAME) {
    this.#onChange = onChange;
    this.#channel = openChannel(channel, (message) => {
      const { changed, gone } = isObject(message) ? message : {};
      if (typeof gone === "string") this.#known.delete(gone);
      if (typeof changed === "string" || typeof gone === "string") onChange(String(changed ?? gone));
    });
  }

  /** @returns {Promise<Head[]>} the latest first */
  async heads() {
    const found = await this.#read(HEADS, (store) => store.getAll());
    const heads = new Map([...this.#known].map(([id, { head }]) => [id, head]));
    for (const value of found ?? []) {
      const head = readHead(value);
      if (head) heads.set(head.id, head);
    }
    return [...heads.values()].sort((a, b) => b.updated - a.updated);
  }

  /** @param {string} id @returns {Promise<{head: Head, messages: Message[]} | null>} */
  async load(id) {
    await this.#writing;
    const stored = readHead(await this.#read(HEADS, (store) => store.get(id)));
    const found = await this.#read(MESSAGES, (store) => store.getAll(IDBKeyRange.bound([id], [id, []]), MOST_MESSAGES));
    const known = this.#known.get(id);
    const head = stored ?? known?.head;
    if (!head) return null;
    const messages = new Map(known?.messages);
    for (const value of found ?? []) {
      const message = readMessage(value);
      if (message) messages.set(message.id, message);
    }
    this.#known.set(id, { head, messages });
    return { head, messages: [...messages.values()] };
  }

  /**
   * Put a head, and messages that are new or changed. Where storage was cleared meanwhile, all that is known of the
   * conversation is written again.
   * @param {Head} head
   * @param {Message[]} messages
   * @returns {Promise<void>}
   */
  save(head, messages) {
    const known = this.#known.get(head.id) ?? { head, messages: new Map() };
    known.head = { ...head };
    for (const message of messages) known.messages.set(message.id, { ...message });
    this.#known.set(head.id, known);
    return this.#write([HEADS, MESSAGES], (heads, rows) => {
      const before = heads.count(head.id);
      before.onsuccess = () => {
        heads.put(known.head, head.id);
        for (const message of before.result ? messages : known.messages.values()) rows.put({ ...message }, [head.id, message.id]);
      };
    }, { changed: head.id });
  }

  /** @param {string} id @returns {Promise<void>} */
  remove(id) {
    this.#known.delete(id);
    return this.#write([HEADS, MESSAGES], (heads, rows) => {
      heads.delete(id);
      rows.delete(IDBKeyRange.bound([id], [id, []]));
    }, { gone: id });
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
    return this.#write([SETTINGS], (store) => void store.put({ ...settings }, "all"), null);
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

  /**
   * @param {string[]} names
   * @param {(...stores: IDBObjectStore[]) => void} act
   * @param {object | null} news
   * @returns {Promise<void>}
   */
  #write(names, act, news) {
    const written = this.#writing.then(async () => {
      try {
        const database = await open();
        try {
          const transaction = database.transaction(names, "readwrite");
          act(...names.map((name) => transaction.objectStore(name)));
          await finished(transaction);
        } finally {
          database.close();
        }
        this.#say(true);
        if (news) this.#channel.post(news);
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
    this.#onChange(null);
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

/** @returns {Promise<IDBDatabase>} */
function open() {
  return openDatabase(NAME, (fresh) => {
    for (const name of [HEADS, MESSAGES, SETTINGS]) fresh.createObjectStore(name);
  });
}
