/** @file The Markdown parser, loaded when the first message is shown, and its tokens of a text. */

/** @typedef {import("./markdown.js").Token} Token */
/** @typedef {typeof import("../markdown_parser.js")} Parser */

/** A paragraph of more characters is no prose, and is shown as text: parsing its spans may take long. */
const LONGEST = 10_000;

/** @type {Parser | null} */
let parser = null;
/** @type {Promise<void> | null} */
let loading = null;

/** @returns {Promise<void>} when text can be parsed; where the parser cannot be had, all stays text */
export function loadParser() {
  loading ??= import("../markdown_parser.js").then((loaded) => void (parser = loaded), () => void (loading = null));
  return loading;
}

/** @param {string} source @returns {Token[] | null} whose `raw`s are the source; null where there is no parser yet */
export function lexed(source) {
  if (!parser) return null;
  try {
    const lexer = new parser.Lexer({ gfm: true, breaks: false });
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
