/**
 * @file A text in Markdown that grows: blocks that are behind the last one stay as they are, and of the last what changed is
 * made again. What is long is made in steps, one a frame.
 */

import { Growing } from "./growing.js";
import { lexed } from "./lexed.js";
import { block, codeBlock } from "./markdown.js";
import { replaced } from "./morph.js";

/** @typedef {import("./markdown.js").Token} Token */

const FENCE = /^ {0,3}(`{3,}|~{3,})/;

export class Prose {
  element = document.createElement("div");
  /** Of the source, what is behind it is settled. */
  #settled = 0;
  /** Nodes of what is not settled. @type {ChildNode[]} */
  #last = [];
  /** The list or table that is written: what is settled of it is. @type {Growing | null} */
  #growing = null;
  /** @type {{code: Text, from: number} | null} an open code block that grows */
  #fence = null;
  #source = "";
  #whole = false;
  /** Whether something of the source is not shown yet. */
  due = false;
  /** What the parser has made of it already. @type {Token[] | null} */
  #queue = null;

  constructor() {
    this.element.className = "prose";
  }

  /** @param {string} source @param {boolean} whole */
  update(source, whole) {
    // What was whole and goes on may go on in the middle of its last block.
    if (!source.startsWith(this.#source) || (this.#whole && !(whole && source === this.#source))) this.#restart();
    [this.#source, this.#whole, this.due] = [source, whole, true];
    this.#queue = null;
  }

  /**
   * Show what is due.
   * @param {number} budget characters to be made at most, but a block in any case
   * @returns {number} what is left of it
   */
  advance(budget) {
    if (!this.due || budget <= 0) return budget;
    this.due = false;
    if (!this.#whole && !this.#queue && this.#grow()) return budget;
    const tokens = this.#queue ?? lexed((this.#growing?.head ?? "") + this.#source.slice(this.#settled));
    if (!tokens) {
      this.#restart();
      this.#show([text(this.#source)], 1);
      return budget;
    }
    if (this.#growing && !this.#growing.goesOn(tokens[0])) {
      this.#growing.leave(); // "*" may begin a list, and be the beginning of "**bold**"
      [this.#growing, this.#queue, this.due] = [null, null, true];
      return this.advance(budget);
    }
    return this.#blocks(tokens, budget);
  }

  /** @param {Token[]} tokens of what is not settled @param {number} budget @returns {number} */
  #blocks(tokens, budget) {
    const last = this.#whole ? tokens.length : lastOpen(tokens);
    /** @type {ChildNode[]} */
    const made = [];
    let open = 0;
    this.#fence = null;
    for (const [i, token] of tokens.entries()) {
      if (i > last) break; // blank lines, which may belong to it
      if (budget <= 0) {
        [this.due, this.#queue] = [true, tokens.slice(i)];
        break;
      }
      if (Growing.takes(token)) {
        const { made: length, rest } = this.#grown(token, i < last, budget, made.splice(0));
        budget -= length;
        if (rest) {
          [this.due, this.#queue] = [true, [rest, ...tokens.slice(i + 1)]];
          break;
        }
        continue;
      }
      const node = /** @type {ChildNode | null} */ (i < last ? block(token) : this.#openBlock(token));
      if (node) made.push(node);
      if (i < last) this.#settled += token.raw.length;
      else if (node) open++;
      budget -= token.raw.length;
    }
    this.#show(made, open);
    return budget;
  }

  /**
   * A list or a table, the one that grows or another.
   * @param {Token} token
   * @param {boolean} whole
   * @param {number} budget
   * @param {ChildNode[]} before what stands between it and what was settled before
   * @returns {{made: number, rest: Token | null}} characters that were made, and what is left to be made
   */
  #grown(token, whole, budget, before) {
    if (!this.#growing) {
      this.#show(before, 0);
      this.#growing = new Growing(token);
      this.element.append(this.#growing.element);
      this.#settled += this.#growing.head.length;
    }
    const { head } = this.#growing;
    const { settled, made, rest } = this.#growing.take(token, whole, budget);
    if (!whole || rest) this.#settled += settled;
    else {
      this.#settled += token.raw.length - head.length;
      this.#growing = null;
    }
    return { made, rest };
  }

  #restart() {
    this.element.replaceChildren();
    this.#settled = 0;
    this.#last = [];
    this.#growing = null;
    this.#fence = null;
  }

  /** @param {ChildNode[]} nodes in place of what was not settled @param {number} open so many of them, the last ones, are not */
  #show(nodes, open) {
    const now = replaced(this.element, this.#last, nodes);
    this.#last = open ? now.slice(-open) : [];
  }

  /** @param {Token} token @returns {ChildNode | null} */
  #openBlock(token) {
    const opening = FENCE.exec(token.raw);
    if (token.type !== "code" || !opening || closed(token.raw, opening[1])) return /** @type {ChildNode | null} */ (block(token));
    const from = this.#settled + token.raw.indexOf("\n") + 1;
    if (!token.raw.includes("\n")) return codeBlock("", "", true);
    const made = codeBlock(this.#source.slice(from), token.lang ?? "", true);
    const code = /** @type {Text | null | undefined} */ (made.querySelector("code")?.firstChild);
    if (code) this.#fence = { code, from };
    return made;
  }

  /** @returns {boolean} whether what came only made the open code block longer */
  #grow() {
    if (!this.#fence) return false;
    const { code, from } = this.#fence;
    const more = this.#source.slice(from + code.data.length);
    // What may close it, in the line that is being written too, is for the parser.
    const line = code.data.slice(code.data.lastIndexOf("\n") + 1);
    if (/(^|\n) {0,3}[`~]/.test(line + more)) return false;
    code.appendData(more);
    return true;
  }
}

/** @param {Token[]} tokens @returns {number} index of the first that may change: blank lines behind the last block may belong to it */
function lastOpen(tokens) {
  let last = tokens.length - 1;
  while (last > 0 && tokens[last].type === "space") last--;
  const { type, raw } = tokens[last] ?? {};
  const fence = type === "code" && raw.endsWith("\n") ? FENCE.exec(raw) : null;
  return Math.max(0, fence && closed(raw, fence[1]) ? last + 1 : last);
}

/** @param {string} raw of a fenced block @param {string} fence */
function closed(raw, fence) {
  const lines = raw.trimEnd().split("\n");
  const end = lines.at(-1)?.trim() ?? "";
  return lines.length > 1 && end.startsWith(fence) && end.replaceAll(fence[0], "") === "";
}

/** @param {string} source */
function text(source) {
  const made = document.createElement("p");
  made.className = "literal";
  made.textContent = source;
  return made;
}
