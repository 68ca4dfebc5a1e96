/**
 * @file What storage, a file or another tab has of conversations, checked field by field: what is damaged counts as absent,
 * and never breaks the page.
 */

/**
 * @typedef {import("../types.js").Head} Head
 * @typedef {import("../types.js").Message} Message
 * @typedef {import("../types.js").Status} Status
 */

/** Characters of one message, and messages of one conversation: more than any context holds. */
export const LONGEST = 4 << 20;
export const MOST_MESSAGES = 20_000;
const TITLE = 200;
const ID = /^[\w-]{1,64}$/;
/** @type {Status[]} */
const STATUSES = ["waiting", "running", "done", "stopped", "cut", "circles", "failed"];

/** @param {unknown} value @returns {value is Record<string, unknown>} */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/** @param {unknown} value @returns {value is string} */
export function isId(value) {
  return typeof value === "string" && ID.test(value);
}

/** @param {unknown} value @param {number} most @returns {value is string} */
function isText(value, most) {
  return typeof value === "string" && value.length <= most;
}

/** @param {unknown} value @returns {value is number} a time since 1970 */
function isTime(value) {
  return typeof value === "number" && value >= 0 && value < 8.64e15;
}

/** @param {unknown} value @returns {value is number} */
function isCount(value) {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** @param {unknown} value @returns {Head | null} */
export function readHead(value) {
  if (!isObject(value)) return null;
  const { id, title, created, updated, leaf } = value;
  if (!isId(id) || !isText(title, TITLE) || !isTime(created) || !isTime(updated)) return null;
  return { id, title, created, updated, leaf: isId(leaf) ? leaf : null };
}

/** @param {unknown} value @returns {Message | null} */
export function readMessage(value) {
  if (!isObject(value)) return null;
  const { id, parent, role, text, created, status, model, tokens, from, seed, note } = value;
  if (!isId(id) || !(parent === null || isId(parent)) || (role !== "user" && role !== "assistant")) return null;
  if (!isText(text, LONGEST) || !isTime(created) || !STATUSES.includes(/** @type {Status} */ (status))) return null;
  const ids = Array.isArray(tokens) && tokens.length <= LONGEST && tokens.every(isCount) ? tokens : [];
  return {
    id, parent, role, text, created, status: /** @type {Status} */ (status),
    model: isText(model, TITLE) ? model : "",
    tokens: ids,
    from: isObject(from) && isCount(from.text) && isCount(from.tokens) ? { text: from.text, tokens: from.tokens } : { text: 0, tokens: 0 },
    seed: Number.isSafeInteger(seed) ? Number(seed) : null,
    note: isText(note, 2000) ? note : "",
  };
}

/** @param {string} text @returns {string} the first line of a question, short */
export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  return line.length > 60 ? `${Array.from(line).slice(0, 58).join("")} …` : line;
}

/** @returns {string} */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (each) => each.toString(36)).join("-");
}
