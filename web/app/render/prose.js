/**
 * @file A text in Markdown that grows: blocks that are behind the last one stay as they are, and only the last is made
 * again. An open code block only grows.
 */

import { block, codeBlock } from "./markdown.js";

/** @typedef {import("./markdown.js").Token} Token */
/** @typedef {typeof import("../markdown_parser.js")} Parser */

/** A paragraph of more characters is no prose, and is shown as text: parsing its spans may take long. */
const LONGEST = 10_000;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;

/** @type {Parser | null} */
let parser = null;
/** @type {Promise<void> | null} */
let loading = null;

/** @returns {Promise<void>} when text can be parsed; where the parser cannot be had, all stays text */
export function loadParser() {
  loading ??= import("../markdown_parser.js").then((loaded) => void (parser = loaded), () => void (loading = null));
  return loading;
}

export class Prose {
  element = document.createElement("div");
  /** Of the source, what is behind the last block is settled. */
  #settled = 0;
  /** Nodes of what is not settled. @type {ChildNode[]} */
  #last = [];
  /** @type {{code: Text, from: number} | null} an open code block that grows */
  #fence = null;
  #source = "";
  #whole = false;

  constructor() {
    this.element.className = "prose";
  }

  /** @param {string} source @param {boolean} whole */
  update(source, whole) {
    // What was whole and goes on may go on in the middle of its last block.
    if (!source.startsWith(this.#source) || (this.#whole && !(whole && source === this.#source))) this.#restart();
    [this.#source, this.#whole] = [source, whole];
    if (!parser) {
      this.#show([text(source)]);
      return;
    }
    if (!whole && this.#grow(source)) return;
    const rest = source.slice(this.#settled);
    const tokens = lexed(rest, parser);
    const last = whole ? tokens.length : lastOpen(tokens);
    for (const node of this.#last) node.remove();
    this.#last = [];
    this.#fence = null;
    for (const token of tokens.slice(0, last)) {
      this.#settled += token.raw.length;
      const made = block(token);
      if (made) this.element.append(made);
    }
    const open = tokens.slice(last).flatMap((token) => this.#openBlock(token) ?? []);
    this.element.append(...open);
    this.#last = open;
  }

  #restart() {
    this.element.replaceChildren();
    this.#settled = 0;
    this.#last = [];
    this.#fence = null;
  }

  /** @param {Node[]} nodes in place of all */
  #show(nodes) {
    this.element.replaceChildren(...nodes);
    this.#settled = 0;
    this.#last = /** @type {ChildNode[]} */ ([...this.element.childNodes]);
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

  /** @param {string} source @returns {boolean} whether what came only made the open code block longer */
  #grow(source) {
    if (!this.#fence) return false;
    const { code, from } = this.#fence;
    const more = source.slice(from + code.data.length);
    // What may close it, in the line that is being written too, is for the parser.
    const line = code.data.slice(code.data.lastIndexOf("\n") + 1);
    if (/(^|\n) {0,3}[`~]/.test(line + more)) return false;
    code.appendData(more);
    return true;
  }
}

/** @param {string} source @param {Parser} with_ @returns {Token[]} whose `raw`s are the source */
function lexed(source, { Lexer }) {
  try {
    const lexer = new Lexer({ gfm: true, breaks: false });
    // Blocks first: a block that is too long is not looked into.
    const tokens = /** @type {Token[]} */ (/** @type {unknown} */ (lexer.blockTokens(source, [])));
    const whole = tokens.reduce((sum, { raw }) => sum + raw.length, 0) === source.length;
    if (!whole || lexer.inlineQueue.some(({ src }) => src.length > LONGEST)) return [plain(source)];
    for (const next of lexer.inlineQueue) lexer.inlineTokens(next.src, next.tokens);
    return tokens;
  } catch {
    return [plain(source)];
  }
}

/** @param {string} source @returns {Token} */
function plain(source) {
  return { type: "plain", raw: source };
}

/** @param {Token[]} tokens @returns {number} index of the last block: blank lines behind it may belong to it */
function lastOpen(tokens) {
  let last = tokens.length - 1;
  while (last > 0 && tokens[last].type === "space") last--;
  return Math.max(0, last);
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
