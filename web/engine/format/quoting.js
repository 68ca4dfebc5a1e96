/**
 * @file What came from outside, as a message repeats it: little of it, whatever it is, and never with an exception of its
 * own. As `quoted`, `brief` and `said` of py/inpage/errors.py.
 */

const QUOTED = 60;
const SAID = 400;
const LONG_WORD = /(\S{60})\S+/g;
const HALVES = /\p{Cs}/gu;

/** At most 60 characters of it. @param {unknown} text @returns {string} */
export function brief(text) {
  if (typeof text !== "string") return named(text);
  return text.length <= QUOTED ? text : `${text.slice(0, QUOTED)}…`;
}

/** The same between quotation marks. @param {string} text */
export function quoted(text) {
  return text.length <= QUOTED ? JSON.stringify(text) : `${JSON.stringify(text.slice(0, QUOTED))}…`;
}

/** What an error of the browser or of another library says, in one line. @param {unknown} error @returns {string} */
export function said(error) {
  try {
    const text = typeof error === "string" || error instanceof Error ? String(error) : named(error);
    return text.slice(0, 10 * SAID).replace(/\s+/g, " ").replace(LONG_WORD, "$1…").slice(0, SAID);
  } catch {
    return "what was thrown cannot be shown";
  }
}

/** What kind of value it is, and of simple ones which. @param {unknown} value @returns {string} */
export function named(value) {
  try {
    if (value === null || value === undefined) return String(value);
    if (Array.isArray(value)) return "a list";
    if (typeof value === "function") return "a function";
    if (typeof value !== "object") return `${typeof value} ${brief(String(value))}`;
    const { name } = value.constructor;
    return `a ${typeof name === "string" && name ? brief(name) : "object"}`;
  } catch {
    return "an object that cannot be read";
  }
}

/** As it can be shown and sent: not too long, and no halves of characters. @param {string} text @param {number} most */
export function shortened(text, most) {
  return (text.length <= most ? text : `${text.slice(0, most - 1)}…`).replace(HALVES, "\ufffd");
}
