/** @file The whole stack in Chromium: Python's router in its worker, the engine in another, the JavaScript face. */

import { readFileSync } from "node:fs";
import path from "node:path";

import { PAGE_TOKENS, WAIT } from "./support/model.js";
import { expectPenalties } from "./support/penalties.js";
import { BASE, expect, MODEL, prompt, test, text } from "./support/router.js";

test.use({ together: true });

/**
 * Ask in the page and read to the end.
 * @param {import("@playwright/test").Page} page
 * @param {"chat" | "complete"} kind
 * @param {unknown} asked
 * @param {object} [params]
 * @returns {Promise<any>} {pieces} or {error}
 */
function ask(page, kind, asked, params = { temperature: 0, max_tokens: 20 }) {
  return page.evaluate(
    async ([kind, asked, params]) => {
      const pieces = [];
      try {
        for await (const piece of /** @type {any} */ (globalThis).inpage[kind](asked, params)) pieces.push(piece);
        return { pieces, last: pieces.at(-1) };
      } catch (error) {
        const { code, message, field } = /** @type {any} */ (error);
        return { error: { code, message, field } };
      }
    },
    /** @type {const} */ ([kind, asked, params]),
  );
}

/** @param {any} model @param {number[]} ids @param {number} n @returns {number[]} greedy, up to the stop token */
function greedy(model, ids, n) {
  const tokens = model.greedy(ids, n);
  const stop = tokens.indexOf(2);
  return stop < 0 ? tokens : tokens.slice(0, stop + 1);
}

test("loads, says why, and streams what the model says", async ({ page, start, model }) => {
  const info = await start({ threads: 2 });
  expect(info).toMatchObject({ model: "synthetic", backend: "wasm", variant: "wasm-simd", threads: 2, context: 128 });
  expect(info.why).toBe("wasm-simd: this device has WebAssembly SIMD; 2 threads, as asked");
  const phases = await page.evaluate(() => /** @type {any} */ (globalThis).progress.map((/** @type {any} */ e) => e.phase));
  expect([...new Set(phases)]).toEqual(["python", "manifest", "tokenizer", "kernels", "weights", "ready"]);

  const { pieces, last } = await ask(page, "chat", "hello");
  const expected = greedy(model, prompt("hello"), 20);
  expect(last.completion.prompt_ids).toEqual(prompt("hello"));
  expect(last.completion.token_ids).toEqual(expected);
  expect(pieces.map((/** @type {any} */ p) => p.text).join("")).toBe(text(expected));
  expect(pieces.flatMap((/** @type {any} */ p) => p.token_ids)).toEqual(expected);
  expect(last.completion.text).toBe(text(expected));
  expect(last.finish_reason).toBe(expected.at(-1) === 2 ? "stop" : "length");
  expect(last.usage.prompt_tokens).toBe(prompt("hello").length);
  expect(last.timing.ttft_ms).toBeGreaterThan(0);
});

test("settings bound the engine's memory and its threads, and say what is too little", async ({ page, start }) => {
  const one = await start({ settings: { wasm: { shared: false, memory_initial: 32 << 20 } } });
  expect(one.threads).toBe(1);
  await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  const { error } = await start({ settings: { wasm: { memory_maximum: 1 << 20 } } });
  expect(error).toMatchObject({ code: "out_of_memory" });
  expect(error.message).toMatch(/needs \d+ bytes and KV pages; the memory may have \d+/);
});

test("several at once answer as each alone, and their pages come back; penalties and a repeated prompt's logprobs are numpy's", async ({ page, start, artifact, model }) => {
  await start({ threads: 2 });
  const questions = ["hello", "a b c", "who are you", "0123456789", "x", "the last one"];
  const answers = await Promise.all(questions.map((question) => ask(page, "chat", question)));
  answers.forEach(({ last }, i) => {
    expect(last.completion.token_ids).toEqual(greedy(model, prompt(questions[i]), 20));
  });
  const info = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.refresh());
  expect(info.kv_pages.used).toBe(0);
  await expectPenalties(page, artifact);
});

test("layers with a window have pages of their own, and go on from kept ones as others do", async ({ page, start, model, server, whole }) => {
  server.fault(`${MODEL}manifest.json`, { body: readFileSync(path.join(whole, "manifest-window.json")), always: true });
  await start({ threads: 1 });
  const questions = ["0123456789 0123456789", "hello"];
  const again = [];
  for (let i = 0; i < 2; i++) again.push(await Promise.all(questions.map((question) => ask(page, "chat", question))));
  for (const answers of again) {
    answers.forEach(({ last }, i) => expect(last.completion.token_ids).toEqual(greedy(model, prompt(questions[i]), 20)));
  }
  const cached = again.map((answers) => answers.map(({ last }) => last.usage.prompt_tokens_details.cached_tokens));
  questions.forEach((question, i) => expect(cached[1][i]).toBe(Math.floor((prompt(question).length - 1) / PAGE_TOKENS) * PAGE_TOKENS));
  const info = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.refresh());
  expect(info.kv_pages.used).toBe(0);
  expect(info.kv_pages.kept).toBeGreaterThan(0);
});

test("a spelled control token stays text", async ({ page, start }) => {
  await start();
  const { last } = await ask(page, "chat", "a<|im_end|>b");
  expect(last.completion.prompt_ids).toEqual(prompt("a<|im_end|>b"));
});

test("a signal stops an answer; leaving the loop does too; the next request works", async ({ page, start, model }) => {
  await start();
  const seen = await page.evaluate(async (wait) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const stop = new AbortController();
    const pieces = [];
    // The engine stands still over this token, until it is told to end the burst.
    const standing = inpage.chat("hello", { temperature: 0, resume: [wait], signal: stop.signal });
    const first = standing.next();
    for (;;) if ((await inpage.refresh()).requests.active === 1) break;
    stop.abort();
    pieces.push((await first).value);
    for await (const piece of standing) pieces.push(piece);
    for await (const piece of inpage.chat("hello", { temperature: 0, logit_bias: { 2: -100 } })) {
      pieces.push(piece);
      break;
    }
    const before = [];
    for await (const piece of inpage.chat("hello", { signal: AbortSignal.abort() })) before.push(piece);
    for (;;) if ((await inpage.refresh()).requests.active === 0) break;
    return { pieces, before, pages: inpage.info.kv_pages.used };
  }, WAIT);
  const ends = seen.pieces.filter((/** @type {any} */ p) => p.finish_reason);
  expect(ends).toHaveLength(1);
  expect(ends[0].finish_reason).toBe("cancelled");
  expect(ends[0].completion.token_ids.length).toBeLessThan(4);
  expect(seen.before.at(-1).finish_reason).toBe("cancelled");
  expect(seen.pages).toBe(0);
  expect((await ask(page, "chat", "hello")).last.completion.token_ids).toEqual(greedy(model, prompt("hello"), 20));
});

test("bad requests are typed errors that name the field", async ({ page, start }) => {
  await start();
  /** @type {["chat" | "complete", unknown, object, string][]} */
  const bad = [
    ["chat", [], {}, "messages"],
    ["chat", [{ role: "boss", content: "hi" }], {}, "messages[0].role"],
    ["chat", "hi", { max_tokens: -1 }, "max_tokens"],
    ["chat", "hi", { temperature: 9 }, "temperature"],
    ["chat", "hi", { tempreature: 1 }, "tempreature"],
    ["chat", "x".repeat(200), {}, "messages"],
    ["complete", [99], {}, "prompt[0]"],
    ["complete", 5, {}, "prompt"],
  ];
  for (const [kind, asked, params, field] of bad) {
    const { error } = await ask(page, kind, asked, params);
    expect(error).toMatchObject({ code: "invalid_request", field });
  }
  expect((await ask(page, "complete", "hi")).last.finish_reason).toBeDefined();
});

test("scores, explains, unloads", async ({ page, start, model }) => {
  await start();
  const given = Array.from({ length: 50 }, (_, i) => 3 + ((i * 7) % 50));
  const found = await page.evaluate(async (ids) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const score = await inpage.score(ids, 25);
    const explained = await inpage.explain();
    await inpage.unload();
    const after = await inpage.refresh().catch((/** @type {any} */ error) => error.code);
    return { score, explained, after };
  }, given);
  const expected = [0, 25].flatMap((at) =>
    Array.from({ length: 24 }, (_, i) => {
      const logits = model.logits(given.slice(at, at + i + 1));
      return logits.indexOf(Math.max(...logits));
    }),
  );
  expect(found.score.argmax).toEqual(expected);
  expect(found.score.perplexity).toBeGreaterThan(1);
  expect(found.explained).toContain("* wasm-simd: this device has WebAssembly SIMD");
  expect(found.after).toBe("cancelled");
});

test("a start that fails says why, and the next one works", async ({ start, server }) => {
  server.fault(`${MODEL}tokenizer.json`, { flip: 100, always: true }); // it is fetched as soon as its model is known
  expect((await start({ backend: "webgpu" })).error).toMatchObject({ code: "invalid_request", field: "backend" });
  expect((await start({ backend: "wasm-relaxed" })).error).toMatchObject({ code: "invalid_request", field: "backend" });
  expect((await start({ model: "nowhere" })).error).toMatchObject({ code: "artifact_invalid", field: "manifest.json" });
  expect((await start({ threads: 0 })).error).toMatchObject({ code: "invalid_request", field: "threads" });
  expect((await start()).error).toMatchObject({ code: "artifact_invalid", field: "tokenizer" });
  server.clear();
  server.fault(`${MODEL}manifest.json`, { body: Buffer.from("{}") });
  expect((await start()).error).toMatchObject({ code: "artifact_invalid", field: "schema" });
  server.fault(`${BASE}inpage.zip`, { status: 404 });
  expect((await start()).error).toMatchObject({ code: "device_lost" });
  expect((await start()).error).toBeUndefined();
});

test.describe("not isolated", () => {
  test.use({ isolated: false });

  test("one thread, and the reason says so", async ({ page, start, model }) => {
    const info = await start();
    expect(info.threads).toBe(1);
    expect(info.why).toContain("not cross-origin isolated");
    expect((await ask(page, "chat", "hello")).last.completion.token_ids).toEqual(greedy(model, prompt("hello"), 20));
  });
});
