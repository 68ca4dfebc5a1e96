/**
 * @file A list, or a table, that is written: its last items are made again with what comes, those before them stay. So a
 * list of a thousand items costs as much to lengthen as one of ten.
 */

import { entryOf, listOf, rowOf, tableOf } from "./markdown.js";
import { replaced } from "./morph.js";

/** @typedef {import("./markdown.js").Token} Token */
/** @typedef {{length: number, make: () => ChildNode}} Unit of the source, an item or a row */

/** Behind so many units from the end nothing changes any more: an item ends where the next one has begun. */
const OPEN = 2;

export class Growing {
  /** @type {HTMLElement} */
  element;
  /** What the parser has to see before the rest to know what it is. */
  head = "";
  /** Whether any of it is settled. */
  begun;
  #token;
  /** @type {HTMLElement} */
  #parent;
  /** Units that may change. @type {ChildNode[]} */
  #last = [];
  /** Whether settled items stand apart, so that all do. */
  #loose = false;

  /** @param {Token} token @returns {boolean} whether it is of a kind that grows: of a table, as soon as its columns are known */
  static takes({ type, raw }) {
    return type === "list" || (type === "table" && lines(raw)[1].endsWith("\n"));
  }

  /** @param {Token} token */
  constructor(token) {
    this.#token = token;
    this.begun = token.type === "table";
    if (token.type === "table") {
      const { frame, body } = tableOf(token);
      [this.element, this.#parent] = [frame, body];
      this.head = lines(token.raw).slice(0, 2).join("");
    } else this.element = this.#parent = listOf(token);
  }

  /** @param {Token | undefined} token @returns {boolean} whether it is the same one, with what came */
  goesOn(token) {
    return token?.type === this.#token.type && token.ordered === this.#token.ordered;
  }

  /** @param {Token} token @param {number} count of its units @returns {Token} what is behind them */
  #after(token, count) {
    if (token.type === "list") return { ...token, items: token.items.slice(count), raw: token.items.slice(count).map((/** @type {Token} */ { raw }) => raw).join("") };
    return { ...token, rows: token.rows.slice(count), raw: this.head + lines(token.raw).slice(2 + count).join("") };
  }

  /** It was none, or what came is something else. */
  leave() {
    for (const node of this.#last) node.remove();
    if (!this.begun) this.element.remove();
  }

  /**
   * @param {Token} token as the parser sees it now
   * @param {boolean} whole it does not grow any more
   * @param {number} budget characters to be made at most, but some units in any case
   * @returns {{settled: number, made: number, rest: Token | null}} characters of its source that are settled now, and that
   *   were made; what is left to be made
   */
  take(token, whole, budget) {
    const units = token.type === "table" ? rows(token) : items(token);
    let [made, settled, count] = [0, 0, 0];
    /** @type {ChildNode[]} */
    const nodes = [];
    for (const { length, make } of units) {
      if (nodes.length > OPEN && made >= budget) break;
      nodes.push(make());
      made += length;
    }
    const all = nodes.length === units.length;
    const stay = whole ? nodes.length : Math.max(0, Math.min(nodes.length, units.length - OPEN));
    while (count < stay) settled += units[count++].length;
    this.begun ||= stay > 0;
    // An item that may still turn out to be something else makes no list loose.
    this.#loose ||= token.type === "list" && token.items.slice(0, Math.min(stay, units.length - 1)).some(apart);
    if (token.type === "list") this.#parent.classList.toggle("loose", this.#loose || token.loose);
    if (!this.#parent.className) this.#parent.removeAttribute("class");
    this.#last = replaced(this.#parent, this.#last, nodes).slice(stay);
    return { settled, made, rest: all ? null : this.#after(token, stay) };
  }
}

/** @param {Token} token a list @returns {Unit[]} */
function items(token) {
  return token.items.map((/** @type {Token} */ item) => ({ length: item.raw.length, make: () => entryOf(item) }));
}

/** @param {Token} item with another one behind it @returns {boolean} whether it makes its list loose, as the parser has it */
function apart({ raw, tokens }) {
  return /\n[ \t]*\n[ \t]*$/.test(raw) || (tokens ?? []).some((each) => each.type === "space" && /\n.*\n/.test(each.raw));
}

/** @param {Token} token a table @returns {Unit[]} */
function rows(token) {
  const own = lines(token.raw).slice(2);
  return token.rows.map((/** @type {any[]} */ row, /** @type {number} */ i) => ({ length: own[i]?.length ?? 0, make: () => rowOf(token, row) }));
}

/** @param {string} text @returns {string[]} each with its end */
function lines(text) {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}
