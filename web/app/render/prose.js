/**
 * @file A text in Markdown that grows: blocks that are behind the last one stay as they are, and of the last what changed is
 * made again. What is long is made in steps, one a frame. At the end all is compared with what the whole text is: a link whose
 * place is named at the end, or a line that looked like another block, changes what stands before it.
 */

import { Growing } from "./growing.js";
import { lexed } from "./lexed.js";
import { block, codeBlock } from "./markdown.js";
import { matched, replaced } from "./morph.js";

/** @typedef {import("./markdown.js").Token} Token */

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
/** Blocks that no later line belongs to. */
const CLOSED = new Set(["heading", "hr", "code"]);

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
  /** Whether something was shown before the end was known. */
  #inPieces = false;
  /** At the end: blocks that are not compared yet, and the node that the first of them should be. @type {{tokens: Token[], node: ChildNode | null} | null} */
  #check = null;

  constructor() {
    this.element.className = "prose";
  }

  /** @param {string} source @param {boolean} whole */
  update(source, whole) {
    // What was whole and goes on may go on in the middle of its last block.
    if (!source.startsWith(this.#source) || (this.#whole && !(whole && source === this.#source))) this.#restart();
    [this.#source, this.#whole, this.due] = [source, whole, true];
    this.#queue = this.#check = null;
  }

  /**
   * Show what is due.
   * @param {number} budget characters to be made at most, but a block in any case
   * @returns {number} what is left of it
   */
  advance(budget) {
    if (!this.due || budget <= 0) return budget;
    this.due = false;
    if (this.#check) return this.#compare(this.#check, budget);
    this.#inPieces ||= !this.#whole;
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
    const left = this.#blocks(tokens, budget);
    if (this.#whole && this.#inPieces && !this.due) {
      const all = lexed(this.#source);
      this.#check = all && { tokens: all, node: this.element.firstChild };
      this.due = all !== null;
    }
    return left;
  }

  /**
   * With the whole, what was shown in pieces.
   * @param {{tokens: Token[], node: ChildNode | null}} check
   * @param {number} budget
   * @returns {number}
   */
  #compare(check, budget) {
    for (let token = check.tokens.shift(); token; token = budget > 0 ? check.tokens.shift() : undefined) {
      budget -= token.raw.length;
      const made = /** @type {ChildNode | null} */ (block(token));
      if (made) check.node = (check.node ? matched(check.node, made) : this.element.appendChild(made)).nextSibling;
    }
    this.due = check.tokens.length > 0;
    if (this.due) return budget;
    while (check.node) {
      const { nextSibling } = check.node;
      check.node.remove();
      check.node = nextSibling;
    }
    this.#check = null;
    this.#inPieces = false;
    return budget;
  }

  /** @param {Token[]} tokens of what is not settled @param {number} budget @returns {number} */
  #blocks(tokens, budget) {
    const first = this.#whole ? tokens.length : firstOpen(tokens);
    /** @type {ChildNode[]} */
    const made = [];
    let open = 0;
    this.#fence = null;
    for (const [i, token] of tokens.entries()) {
      if (budget <= 0 && i <= first) { // what is behind it is a line at most
        [this.due, this.#queue] = [true, tokens.slice(i)];
        break;
      }
      if ((i === 0 && this.#growing) || (Growing.takes(token) && i <= first)) {
        const { made: length, rest } = this.#grown(token, i < first, budget, made.splice(0));
        budget -= length;
        if (rest) {
          [this.due, this.#queue] = [true, [rest, ...tokens.slice(i + 1)]];
          break;
        }
        continue;
      }
      const node = /** @type {ChildNode | null} */ (i < first ? block(token) : this.#openBlock(token));
      if (node) made.push(node);
      if (i < first) this.#settled += token.raw.length;
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
    this.#inPieces = false;
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

/**
 * @param {Token[]} tokens
 * @returns {number} index of the first that may change: blank lines behind the last block may belong to it, and what is
 *   written of a line may look like another block and be a line of the one before: "*" of a list, "*so*" not
 */
function firstOpen(tokens) {
  let last = tokens.length - 1;
  while (last > 0 && tokens[last].type === "space") last--;
  const { type, raw } = tokens[last] ?? {};
  const fence = type === "code" && raw.endsWith("\n") ? FENCE.exec(raw) : null;
  if (fence && closed(raw, fence[1])) return last + 1;
  if (last <= 0) return 0;
  const written = tokens.slice(last).map((each) => each.raw).join("");
  // What is known by its first line, by its second, and by its last.
  const known = type === "heading" ? written.endsWith("\n") : written.split("\n").length > (type === "table" ? 2 : 1);
  if (known) return last;
  const space = tokens[last - 1].type === "space" ? tokens[last - 1].raw : "";
  const before = space ? last - 2 : last - 1;
  if (before < 0 || CLOSED.has(tokens[before].type)) return last;
  // A number may become an item's, behind blank lines too.
  return !/\n[^]*\n/.test(space) || (tokens[before].type === "list" && /^ *\d{1,9}$/.test(written)) ? before : last;
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
