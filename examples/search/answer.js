/** @file A question answered by the chat model, from passages that were found for it. */

/**
 * @typedef {import("../../client/inpage.js").InPage} InPage
 * @typedef {import("./library.js").Passage} Passage
 */

const TOKENS = 200;

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
  const { context: room = 0 } = (await inpage.loaded()).find(({ name }) => name === model) ?? {};
  for (let sources = passages; ; sources = sources.slice(0, -1)) {
    const context = sources.map(({ text }) => text).join("\n\n");
    const content = `Context:\n${context}\n\nUse the context to answer in one or two sentences.\n\nQuestion: ${question}`;
    const messages = [{ role: "user", content }];
    if (sources.length < 2 || (await inpage.countTokens(messages, model)) + TOKENS <= room) return { sources, messages };
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
