/**
 * @file A text in passages: whole sentences of one paragraph or several short ones, as many as an embedder takes at once,
 * each beginning with the end of the one before where that is in the same paragraph.
 */

/** Tokens of a passage, at most: MiniLM takes 256, and was trained on fewer. */
const MOST = 160;
/** Tokens of it that the next one begins with. */
const OVERLAP = 32;

/** Another way to cut has another name: what was made the old way is made anew. */
export const CHUNKING = `sentences ${MOST}/${OVERLAP}`;

/** @typedef {{start: number, end: number}} Span of a text, as `slice` counts */
/** @typedef {Span & {tokens: number, last: boolean}} Sentence last: of its paragraph */

/** WordPiece in English: words are one token, long ones more; all else counts by letter. */
const TOKEN = /[A-Za-z]{1,6}|[^\sA-Za-z]/gu;
/** What ends a sentence, and with group 1 or alone a paragraph. */
const END = /(?:[.!?]["'”’)\]]*(?=\s)|[。！？][”’」』）]*)(\s*\n\s*\n)?|\n\s*\n/g;

/** A bound, not a count: the model's tokenizer is in the router. @param {string} text */
export function tokens(text) {
  return text.match(TOKEN)?.length ?? 0;
}

/**
 * @param {string} text
 * @param {number} [most] tokens of a passage
 * @param {number} [overlap] tokens that neighbours share, at most
 * @returns {Span[]} in order; together they have every word of the text
 */
export function chunks(text, most = MOST, overlap = OVERLAP) {
  /** @type {Span[]} */
  const found = [];
  /** @type {Sentence[]} */
  let open = [];
  const size = () => open.reduce((sum, sentence) => sum + sentence.tokens, 0);
  const close = () => {
    if (open.length) found.push({ start: open[0].start, end: open[open.length - 1].end });
  };
  for (const sentence of sentences(text, most)) {
    if (size() + sentence.tokens > most) {
      close();
      do open = open.slice(1);
      while (size() > overlap || size() + sentence.tokens > most);
    }
    open.push(sentence);
    if (sentence.last && size() * 2 >= most) {
      close();
      open = [];
    }
  }
  close();
  return found;
}

/**
 * @param {string} text
 * @param {number} most
 * @returns {Generator<Sentence>} a longer one than `most` tokens comes in parts
 */
function* sentences(text, most) {
  let start = 0;
  for (const found of [...text.matchAll(END), null]) {
    const end = found ? found.index + found[0].length : text.length;
    const sentence = text.slice(start, end);
    const last = !found || found[1] !== undefined || found[0].startsWith("\n");
    const count = tokens(sentence);
    if (count > most) yield* parts(sentence, start, most, last);
    else if (count) yield { start, end, tokens: count, last };
    start = end;
  }
}

/** @param {string} sentence @param {number} at where it begins @param {number} most @param {boolean} last @returns {Generator<Sentence>} cut between tokens */
function* parts(sentence, at, most, last) {
  const starts = Array.from(sentence.matchAll(TOKEN), ({ index }) => index);
  for (let i = 0; i < starts.length; i += most) {
    const next = i + most;
    const ended = next >= starts.length;
    const end = ended ? sentence.length : starts[next];
    yield { start: at + starts[i], end: at + end, tokens: Math.min(most, starts.length - i), last: last && ended };
  }
}
