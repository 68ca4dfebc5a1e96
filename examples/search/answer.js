/** @file A question answered by the chat model, from passages that were found for it. */

/**
 * @typedef {import("../../client/inpage.js").InPage} InPage
 * @typedef {import("./library.js").Passage} Passage
 */

const TOKENS = 200;
const SYSTEM = "You answer questions from the passages that you are given, in a few sentences. If they do not answer the question, say so.";

/**
 * Load the chat model, and see how many of the passages it has room for.
 * @param {InPage} inpage
 * @param {string} model
 * @param {string} question
 * @param {Passage[]} passages the best first
 * @returns {Promise<{sources: Passage[], messages: import("../../client/inpage.js").Message[]}>}
 */
export async function prompt(inpage, model, question, passages) {
  await inpage.preload(model);
  const { context = 0 } = (await inpage.loaded()).find(({ name }) => name === model) ?? {};
  for (let sources = passages; ; sources = sources.slice(0, -1)) {
    const given = sources.map(({ name, text }, i) => `[${i + 1}] ${name}\n${text}`).join("\n\n");
    const messages = [
      { role: "system", content: SYSTEM },
      { role: "user", content: `${given}\n\nQuestion: ${question}` },
    ];
    if (sources.length < 2 || (await inpage.countTokens(messages, model)) + TOKENS <= context) return { sources, messages };
  }
}

/**
 * @param {InPage} inpage
 * @param {string} model
 * @param {import("../../client/inpage.js").Message[]} messages
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<string>} the answer, piece by piece
 */
export async function* answer(inpage, model, messages, signal) {
  for await (const { text } of inpage.chat(messages, { model, signal, max_tokens: TOKENS, temperature: 0, max_repeats: 3 })) yield text;
}
