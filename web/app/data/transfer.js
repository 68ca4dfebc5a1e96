/**
 * @file Conversations as files. What is imported is untrusted: it is bounded, checked field by field, gets ids of its own,
 * and replaces nothing.
 */

import { EngineError } from "../../engine/format/errors.js";
import { parsed } from "../../engine/format/json.js";
import { Conversation } from "../chat/tree.js";
import { megabytes } from "../dom.js";
import { number, t } from "../i18n.js";
import { isObject, LONGEST, MOST_MESSAGES, newId, readHead, readMessage, titleOf } from "./records.js";

/**
 * @typedef {import("../types.js").Head} Head
 * @typedef {import("../types.js").Message} Message
 */

export const FILE_BYTES = 64 << 20;
/** Values of a file: each has a line of its own there, and of tokens, which can be very many, a line has no less than this. */
const VALUES = FILE_BYTES / 8;
const KIND = "inpage-conversations";
const MOST = 5000;
/** In Markdown, whose turn follows. A message that has such a line itself has it with a backslash. */
const MARK = /^<!-- inpage: (user|assistant) -->$/;

/**
 * @param {Conversation[]} conversations
 * @returns {string}
 * @throws {EngineError} invalid_request where it could not be imported again
 */
export function toJson(conversations) {
  const all = conversations.map((each) => ({ ...each.head, messages: each.all().map(written) }));
  const text = `${JSON.stringify({ kind: KIND, version: 1, conversations: all }, null, 1)}\n`;
  if (all.length > MOST || text.length > FILE_BYTES || new Blob([text]).size > FILE_BYTES) throw new EngineError("invalid_request", t("export_large", { size: megabytes(FILE_BYTES), count: number(MOST) }), "conversations");
  return text;
}

/** @param {Message} message @returns {Message} without tokens, where nothing goes on with them */
function written(message) {
  return ["done", "circles"].includes(message.status) ? { ...message, tokens: [] } : message;
}

/** The branch that is shown. @param {Conversation} conversation @param {{user: string, assistant: string}} names */
export function toMarkdown(conversation, names) {
  const turns = conversation.path().map(({ role, text }) => `<!-- inpage: ${role} -->\n## ${names[role]}\n\n${escaped(text)}\n`);
  return [`# ${conversation.head.title}\n`, ...turns].join("\n");
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/^(\\*)(<!-- inpage: (?:user|assistant) -->)$/gm, "\\$1$2");
}

/**
 * @param {string} text of a file
 * @returns {Conversation[]}
 * @throws {EngineError} invalid_request, naming the field
 */
export function fromFile(text) {
  return /^\s*[{[]/.test(text) ? fromJson(text) : [fromMarkdown(text)];
}

/** @param {string} text @returns {Conversation[]} */
function fromJson(text) {
  let whole;
  try {
    whole = parsed(text, "file", { characters: FILE_BYTES, items: VALUES, depth: 8 });
  } catch (error) {
    throw wrong("file", error instanceof Error ? error.message : String(error));
  }
  if (!isObject(whole) || whole.kind !== KIND) throw wrong("kind", `is not "${KIND}": this is no file of conversations`);
  if (whole.version !== 1) throw wrong("version", "is not 1: the file is of a later version of this page");
  const { conversations } = whole;
  if (!Array.isArray(conversations) || conversations.length > MOST) throw wrong("conversations", `must be a list of at most ${MOST}`);
  return conversations.map((each, i) => imported(each, `conversations[${i}]`));
}

/** @param {unknown} value @param {string} field @returns {Conversation} */
function imported(value, field) {
  const head = readHead(value);
  if (!head) throw wrong(field, "must have id, title, created and updated");
  const { messages } = /** @type {Record<string, unknown>} */ (value);
  if (!Array.isArray(messages) || messages.length > MOST_MESSAGES) throw wrong(`${field}.messages`, `must be a list of at most ${MOST_MESSAGES}`);
  const read = messages.map((each, i) => {
    const message = readMessage(each);
    if (!message) throw wrong(`${field}.messages[${i}]`, "must have id, parent, role, text, created and status");
    // What ran there does not run here.
    if (message.status === "running" || message.status === "waiting") message.status = message.role === "user" ? "done" : "stopped";
    return message;
  });
  if (new Set(read.map(({ id }) => id)).size < read.length) throw wrong(`${field}.messages`, "has an id twice");
  return new Conversation({ ...head, id: newId() }, read);
}

/** @param {string} text @returns {Conversation} */
function fromMarkdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const conversation = Conversation.fresh();
  /** @type {{role: "user" | "assistant", lines: string[]}[]} */
  const turns = [];
  for (const line of lines) {
    const mark = MARK.exec(line);
    if (mark) turns.push({ role: /** @type {"user" | "assistant"} */ (mark[1]), lines: [] });
    else turns.at(-1)?.lines.push(line.replace(/^\\(\\*<!-- inpage: (?:user|assistant) -->)$/, "$1"));
  }
  if (!turns.length || turns.length > MOST_MESSAGES) throw wrong("file", 'has no turns: lines such as "<!-- inpage: user -->" begin them');
  for (const { role, lines: own } of turns) {
    if (own[0]?.startsWith("## ")) own.shift();
    if (own[0] === "") own.shift();
    while (own.at(-1) === "") own.pop();
    const content = own.join("\n");
    if (content.length > LONGEST) throw wrong("file", `has a message of more than ${LONGEST} characters`);
    conversation.add({ role, text: content, parent: conversation.head.leaf });
  }
  const title = /^# (.+)$/m.exec(lines[0] ?? "");
  if (title) conversation.head.title = titleOf(title[1]);
  return conversation;
}

/** @param {string} field @param {string} why */
function wrong(field, why) {
  return new EngineError("invalid_request", why.startsWith(field) ? why : `${field} ${why}`, field);
}
