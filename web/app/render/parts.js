/** @file What an answer is made of beside prose: thoughts, calls of tools, and JSON. */

const THINK = /^\s*<think>/;
const THOUGHT = "</think>";
const CALL = "<tool_call>";
const CALLED = "</tool_call>";
/** More is shown as it stands. */
const LONGEST_JSON = 200_000;

/**
 * @typedef {{kind: "prose" | "think" | "call" | "json", text: string, open: boolean}} Part open: more of it may come
 */

/**
 * @param {string} text of an answer so far
 * @param {boolean} whole
 * @returns {Part[]}
 */
export function parts(text, whole) {
  /** @type {Part[]} */
  const found = [];
  let rest = text;
  const think = THINK.exec(rest);
  if (think) {
    const end = rest.indexOf(THOUGHT, think[0].length);
    found.push({ kind: "think", text: rest.slice(think[0].length, end < 0 ? undefined : end).trim(), open: end < 0 && !whole });
    if (end < 0) return found;
    rest = rest.slice(end + THOUGHT.length);
  } else if (!whole && "<think>".startsWith(rest.trim()) && rest.trim()) return []; // its beginning
  for (let at = rest.indexOf(CALL); at >= 0; at = rest.indexOf(CALL)) {
    if (rest.slice(0, at).trim()) found.push({ kind: "prose", text: rest.slice(0, at), open: false });
    const end = rest.indexOf(CALLED, at);
    found.push({ kind: "call", text: rest.slice(at + CALL.length, end < 0 ? undefined : end).trim(), open: end < 0 && !whole });
    rest = end < 0 ? "" : rest.slice(end + CALLED.length);
  }
  if (rest.trim()) found.push(whole && isJson(rest) ? { kind: "json", text: rest, open: false } : { kind: "prose", text: rest, open: !whole });
  return found;
}

/** @param {string} text */
function isJson(text) {
  const trimmed = text.trim();
  return /^(\{[^]*\}|\[[^]*\])$/.test(trimmed) && trimmed.length < LONGEST_JSON && indented(trimmed) !== null;
}

/** @param {string} text @returns {string | null} null where it is no JSON */
export function indented(text) {
  if (text.length >= LONGEST_JSON) return null;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return null;
  }
}

/** @param {string} text of a call @returns {string} the function's name; empty where it has none */
export function callName(text) {
  try {
    const { name } = JSON.parse(text);
    return typeof name === "string" ? name.slice(0, 100) : "";
  } catch {
    return "";
  }
}
