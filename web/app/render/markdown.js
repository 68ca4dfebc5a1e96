/**
 * @file Tokens of the Markdown parser as elements. What a model writes becomes the elements below and text, nothing else:
 * HTML stays text, images are links, and links say where they go.
 */

import { t } from "../i18n.js";
import { copyButton, make } from "../dom.js";
import { highlight } from "./highlight.js";

/** @typedef {{type: string, raw: string, text?: string, tokens?: Token[], [more: string]: any}} Token as marked has them */

/** Nesting beyond this is text: no browser lays out ten thousand quotes inside each other. */
const DEPTH = 24;
const LINKS = new Set(["http:", "https:", "mailto:"]);

/** @param {Token[]} tokens @param {number} [depth] @returns {Node[]} */
export function blocks(tokens, depth = 0) {
  return tokens.flatMap((token) => block(token, depth) ?? []);
}

/** @param {Token} token @param {number} depth @returns {Node | null} */
export function block(token, depth = 0) {
  if (depth > DEPTH) return make("p", "", token.raw);
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      // The page's own headings come first.
      return filled(make(`h${Math.min(6, token.depth + 2)}`, ""), inline(token.tokens ?? [], depth));
    case "paragraph":
      return filled(make("p", ""), inline(token.tokens ?? [], depth));
    case "text": // of a list's item
      return filled(make("p", ""), token.tokens ? inline(token.tokens, depth) : [literal(token.raw)]);
    case "code":
      return codeBlock(token.text ?? "", token.lang ?? "");
    case "blockquote":
      return filled(make("blockquote", ""), blocks(token.tokens ?? [], depth + 1));
    case "list":
      return list(token, depth);
    case "table":
      return table(token, depth);
    case "checkbox":
      return filled(make("p", ""), [box(token)]);
    case "hr":
      return make("hr", "");
    default: // HTML, and what a later parser may know
      return make("p", "literal", token.raw.trimEnd());
  }
}

/**
 * @param {string} code
 * @param {string} info of the fence
 * @param {boolean} [open] it is still written: highlighted when it is whole
 */
export function codeBlock(code, info, open = false) {
  const language = /^[\w+#.-]{1,30}/.exec(info.trim())?.[0] ?? "";
  const frame = make("figure", "code");
  const head = make("figcaption", "code-head");
  head.append(make("span", "code-language", language || t("code")), copyButton(() => frame.querySelector("code")?.textContent ?? "", t("copy_code")));
  const pre = make("pre", "");
  pre.tabIndex = 0; // it may scroll
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? t("code_in", { language }) : t("code"));
  const inner = make("code", "");
  inner.textContent = code;
  if (!open) highlight(inner, language);
  pre.append(inner);
  frame.append(head, pre);
  return frame;
}

/** @param {Token} token @param {number} depth */
function list(token, depth) {
  const made = listOf(token);
  made.append(...token.items.map((/** @type {Token} */ item) => entryOf(item, depth)));
  return made;
}

/** @param {Token} token @returns {HTMLElement} without its items */
export function listOf(token) {
  const made = make(token.ordered ? "ol" : "ul", "");
  if (token.ordered && Number.isSafeInteger(token.start) && token.start !== 1) made.setAttribute("start", String(token.start));
  if (token.loose) made.className = "loose";
  return made;
}

/** The same whether the list's items stand apart or not, which is not known before its end. @param {Token} item @param {number} [depth] */
export function entryOf(item, depth = 0) {
  const [first, second] = item.tokens ?? [];
  const tokens = first?.type === "checkbox" && second?.tokens ? [{ ...second, tokens: [first, ...second.tokens] }, ...(item.tokens ?? []).slice(2)] : (item.tokens ?? []);
  return filled(make("li", item.task ? "task" : ""), blocks(tokens, depth + 1));
}

/** Of a task. @param {Token} token */
function box({ checked }) {
  return literal(checked ? "☑ " : "☐ ");
}

/** @param {Token} token @param {number} depth */
function table(token, depth) {
  const { frame, body } = tableOf(token, depth);
  body.append(...token.rows.map((/** @type {any[]} */ row) => rowOf(token, row, depth)));
  return frame;
}

/** @param {Token} token @param {number} [depth] @returns {{frame: HTMLElement, body: HTMLElement}} with its head, without its rows */
export function tableOf(token, depth = 0) {
  const frame = make("div", "table");
  frame.tabIndex = 0; // it may scroll
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", t("table"));
  const [whole, thead, body] = [make("table", ""), make("thead", ""), make("tbody", "")];
  thead.append(rowOf(token, token.header, depth, "th"));
  whole.append(thead, body);
  frame.append(whole);
  return { frame, body };
}

/** @param {Token} token the table @param {any[]} row its cells @param {number} [depth] @param {string} [tag] */
export function rowOf(token, row, depth = 0, tag = "td") {
  const cells = row.map((cell, i) => {
    const align = token.align?.[i];
    return filled(make(tag, ["center", "right"].includes(align) ? `align-${align}` : ""), inline(cell.tokens ?? [], depth + 1));
  });
  return filled(make("tr", ""), cells);
}

/** @param {Token[]} tokens @param {number} depth @returns {Node[]} */
function inline(tokens, depth) {
  return tokens.flatMap((token) => span(token, depth + 1));
}

/** @param {Token} token @param {number} depth @returns {Node[]} */
function span(token, depth) {
  if (depth > DEPTH) return [literal(token.raw)];
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return [filled(make(token.type, ""), inline(token.tokens ?? [], depth))];
    case "codespan":
      return [make("code", "", token.text ?? "")];
    case "checkbox":
      return [box(token)];
    case "br":
      return [make("br", "")];
    case "link":
      return link(token.href, inline(token.tokens ?? [], depth), token.raw);
    case "image":
      return link(token.href, [literal(t("image", { text: token.text ?? "" }))], token.raw);
    case "text":
      return token.tokens ? inline(token.tokens, depth) : [literal(entities(token.text ?? token.raw))];
    case "escape":
      return [literal(token.text ?? "")];
    case "html":
      return /^<br\s*\/?>$/i.test(token.raw) ? [make("br", "")] : [literal(token.raw)];
    default:
      return [literal(token.raw)];
  }
}

/**
 * A link that says where it goes; text where it goes nowhere that a person should be sent.
 * @param {string} href
 * @param {Node[]} content
 * @param {string} raw
 * @returns {Node[]}
 */
function link(href, content, raw) {
  const url = URL.canParse(href) ? new URL(href) : null;
  if (!url || !LINKS.has(url.protocol)) return [literal(raw)];
  const made = /** @type {HTMLAnchorElement} */ (filled(make("a", ""), content));
  made.href = url.href;
  made.rel = "noopener noreferrer nofollow";
  made.target = "_blank";
  made.title = url.href;
  const place = url.protocol === "mailto:" ? url.pathname : url.host;
  return made.textContent?.includes(place) ? [made] : [made, make("span", "where", ` (${place})`)];
}

/** @param {string} text */
function literal(text) {
  return document.createTextNode(text);
}

/** @type {Record<string, string>} */
const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&nbsp;": "\u00a0" };

/** The parser leaves them as they are written. @param {string} text */
function entities(text) {
  return text.replace(/&(?:amp|lt|gt|quot|#39|nbsp);/g, (name) => ENTITIES[name]);
}

/** @param {HTMLElement} made @param {Node[]} content @returns {HTMLElement} */
function filled(made, content) {
  made.append(...content);
  return made;
}
