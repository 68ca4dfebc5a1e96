/**
 * @file What of a conversation a model reads when all of it is more than its context: the system prompt and the last
 * question stay, the oldest turns go, and the answer gets what room there is.
 */

import { asked } from "./tree.js";

/** @typedef {import("../types.js").Message} Message */

/** An answer should have this part of the context, where it may be so long. */
const SHARE = 4;
/** Less is no answer. */
const LEAST = 16;

/** The question alone is longer than the context. */
export class TooLong extends Error {
  /** @param {number} tokens @param {number} context */
  constructor(tokens, context) {
    super(`the question has ${tokens} tokens, the model reads ${context}`);
    this.tokens = tokens;
    this.context = context;
  }
}

/**
 * @typedef {object} Fitted
 * @property {{role: string, content: string}[]} messages
 * @property {number} dropped messages of the path that are not read
 * @property {number} max_tokens
 * @property {number} prompt tokens
 */

/**
 * @param {Message[]} path that ends with the question
 * @param {{system: string, max_tokens: number, context: number, written?: number}} how written: tokens that the answer has
 *   already
 * @param {(messages: {role: string, content: string}[]) => Promise<number>} count tokens of a prompt
 * @returns {Promise<Fitted>}
 * @throws {TooLong}
 */
export async function fit(path, { system, max_tokens, context, written = 0 }, count) {
  const wanted = Math.min(max_tokens, written + Math.max(LEAST, Math.floor(context / SHARE)));
  // Turns go whole: a question with its answers.
  const starts = path.flatMap(({ role }, i) => (role === "user" && (i === 0 || path[i - 1].role !== "user") ? [i] : []));
  if (starts[0] !== 0) starts.unshift(0);
  /** @param {number} from */
  const at = async (from) => {
    const messages = asked(path.slice(starts[from]), system);
    return { messages, prompt: await count(messages) };
  };
  let found = await at(0);
  let low = 0;
  if (context - found.prompt < wanted) {
    // The first start from which all fits; the last question alone where none does.
    let high = starts.length - 1;
    low = Math.min(1, high);
    while (low < high) {
      const middle = (low + high) >> 1;
      const { prompt } = await at(middle);
      if (context - prompt < wanted) low = middle + 1;
      else high = middle;
    }
    found = await at(low);
  }
  const room = context - found.prompt;
  if (room < Math.min(wanted, LEAST) || room <= written) throw new TooLong(found.prompt, context);
  return { messages: found.messages, dropped: starts[low] ?? 0, max_tokens: Math.min(max_tokens, room), prompt: found.prompt };
}
