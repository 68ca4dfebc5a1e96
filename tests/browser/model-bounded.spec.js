/** @file The real model: a long prompt is tokenized beside the router, which answers everyone else meanwhile. */

import { inPython, showPython } from "./support/python.js";
import { expect, test } from "./support/site.js";

test("a long prompt lets others go on, and its ids are those of the whole text", async ({ page, site }) => {
  await showPython(page);
  await page.goto(`${site.url}NOTICES.txt`);
  const found = await page.evaluate(async () => {
    const { InPage } = await import(new URL("client/inpage.js", location.href).href);
    const inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct", backend: "wasm-relaxed", threads: 1 });
    Object.assign(globalThis, { inpage });
    /** How often the router answers until this ends. @param {AsyncIterable<any>} stream */
    const beside = async (stream) => {
      const state = { turns: 0, ended: false, code: "" };
      const reading = (async () => {
        try {
          for await (const piece of stream) void piece;
        } catch (error) {
          state.code = /** @type {any} */ (error).code;
        }
        state.ended = true;
      })();
      for (; !state.ended; state.turns++) await inpage.health();
      await reading;
      return state;
    };
    for await (const piece of inpage.chat("hi", { max_tokens: 1 })) void piece; // what a first chat imports is there
    const how = { temperature: 0, max_tokens: 1 };
    return {
      // One word, which no tokenizer can cut: it takes seconds, and is then too long.
      word: await beside(inpage.complete("x".repeat(300_000), how)),
      messages: await beside(inpage.chat(Array.from({ length: 8000 }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: "x" })), how)),
    };
  });
  expect(found.word).toMatchObject({ code: "invalid_request" });
  expect(found.word.turns).toBeGreaterThan(20);
  expect(found.messages).toMatchObject({ code: "invalid_request" });
  expect(found.messages.turns).toBeGreaterThan(3); // that many are refused soon
  const same = "json.dumps((await router.tokenizer.encode_aside(data)) == router.tokenizer.encode(data))";
  const text = Array.from({ length: 20_000 }, (_, i) => (i % 7 ? "a " : "<|im_end|>\n 漢字")).join("");
  expect(await inPython(page, same, text)).toBe(true);
});
