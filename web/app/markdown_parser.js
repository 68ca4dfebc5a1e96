/** @file The parser of Markdown, loaded when the first message is shown: the page does not wait for it. */

export { Lexer } from "../vendor/marked/marked.js";
