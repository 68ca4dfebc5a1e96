/** @file What a mistaken caller is told in JavaScript, and the forms in which prompts and answers go: one start for all. */

import { BASE, expect, prompt, test } from "./support/router.js";

/** @typedef {{code: string, field: string, message: string}} Told */

test("wrong options are named, with the nearest name, before anything is started", async ({ page, origin, server }) => {
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  const told = await page.evaluate(async (base) => {
    const { InPage } = await import(`${base}client/inpage.js`);
    const wrong = [
      undefined, null, "smollm2", {}, { model: "" }, { model: 7 }, { modle: "x" }, { model: "x", OnProgress: () => {} },
      { model: "x", threads: "4" }, { model: "x", threads: 0 }, { model: "x", signal: {} }, { model: "x", base: 1 },
      { model: "x", models: {} }, { model: "x", models: [{ model: "y", pined: true }] }, { model: "x", settings: [] },
      { model: "x", onProgress: "no" }, { model: "x", cheese: 1 },
      { model: "x", shared: "yes" },
    ];
    return Promise.all(wrong.map((options) => InPage.start(options).catch((/** @type {Told} */ { code, field, message }) => ({ code, field, message }))));
  }, BASE);
  expect(told.map(({ code }) => code)).toEqual(told.map(() => "invalid_request"));
  expect(told.map(({ field }) => field)).toEqual([
    "options", "options", "options", "model", "model", "model", "modle", "OnProgress", "threads", "threads", "signal", "base", "models",
    "models[0].pined", "settings", "onProgress", "cheese", "shared",
  ]);
  const messages = told.map(({ message }) => message);
  expect(messages[6]).toContain("did you mean model? known are model, backend,");
  expect(messages[7]).toContain("did you mean onProgress?");
  expect(messages[8]).toBe("threads must be a whole number above 0, not string 4");
  expect(messages[13]).toContain("did you mean pinned?");
  expect(messages[16]).not.toContain("did you mean");
  expect(server.requests(`${BASE}router/worker.js`)).toEqual([]);
  const refused = await page.evaluate(async (base) => {
    const { startWorker } = await import(`${base}engine/host/workers.js`);
    try {
      return startWorker("http://other.example/files/router.js", "router", () => {}) && null;
    } catch (error) {
      const { code, field, message } = /** @type {Told} */ (error);
      return { code, field, message };
    }
  }, BASE);
  expect(refused).toMatchObject({ code: "unsupported", field: "files/router.js", message: expect.stringContaining("http://other.example") });
});

test("a model that the site does not have is named with those that it has", async ({ start, server }) => {
  const site = { models: [{ id: "smollm2-135m-instruct" }, { id: "qwen3-0.6b" }] };
  server.fault(`${BASE}site.json`, { body: Buffer.from(JSON.stringify(site)), always: true });
  const { error } = await start({ model: "smollm2-135-instruct" });
  expect(error).toMatchObject({ code: "invalid_request", field: "model" });
  expect(error.message).toContain("did you mean smollm2-135m-instruct? known are smollm2-135m-instruct, qwen3-0.6b");
});

test("requests: wrong ones are named, typed arrays are ids, an answer is a stream, storage is listed", async ({ page, start, model }) => {
  expect((await start({ threads: 1 })).error).toBeUndefined();
  const told = await page.evaluate(async () => {
    const { inpage } = /** @type {any} */ (globalThis);
    /** @type {any} */
    const cyclic = {};
    cyclic.self = cyclic;
    const calls = [
      () => inpage.chat("x", null), () => inpage.chat("x", "greedy"), () => inpage.chat("x", { signal: 1 }),
      () => inpage.chat("x", { max_tokens: 3n }), () => inpage.chat("x", { schema: cyclic }), () => inpage.chat("x", { temprature: 0 }),
      () => inpage.chat("x", { model: "other" }), () => inpage.chat(undefined), () => inpage.complete(new Float64Array([0.5])),
      () => inpage.resume("x", { signal: "now" }), () => inpage.chat("x", { temperature: NaN }), () => inpage.prefetch(new Array(4e9)),
      () => inpage.chat([{ role: "user", content: 5n }], { keep: "it" }), () => inpage.score("x", 5n), () => inpage.serve({ isolate: "yes" }),
    ];
    const told = [];
    for (const call of calls) {
      try {
        const made = call();
        for await (const piece of made[Symbol.asyncIterator] ? made : [await made]) told.push(piece);
        told.push(null);
      } catch (error) {
        const { code, field } = /** @type {any} */ (error);
        told.push([code, field]);
      }
    }
    return told;
  });
  expect(told).toEqual(
    ["params", "params", "signal", "max_tokens", "schema", "temprature", "model", "messages", "prompt[0]", "signal", "temperature", "prompts", "messages", "window", "isolate"].map((field) => ["invalid_request", field]),
  );

  const asked = prompt("hello");
  const tokens = model.greedy(asked, 8);
  const got = await page.evaluate(
    async ([asked, before]) => {
      const { inpage } = /** @type {any} */ (globalThis);
      const params = { max_tokens: 8, temperature: 0, logit_bias: {} };
      const first = [];
      const reader = inpage.complete(Uint32Array.from(asked), params).toReadableStream().getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        first.push(...value.token_ids);
      }
      const rest = [];
      for await (const piece of inpage.complete(Int32Array.from(asked), { ...params, resume: Int32Array.from(before) })) rest.push(...piece.token_ids);
      const endless = inpage.chat("x", { temperature: 0 }).toReadableStream();
      await endless.cancel();
      const { active, waiting } = (await inpage.refresh()).requests;
      return { first, rest, scored: (await inpage.score(Uint32Array.from(asked), 64)).nll.length, left: active + waiting };
    },
    /** @type {const} */ ([asked, tokens.slice(0, 3)]),
  );
  expect(got).toEqual({ first: tokens, rest: tokens.slice(3), scored: asked.length - 1, left: 0 });

  const stored = await page.evaluate(async (base) => {
    const { InPage } = await import(`${base}client/inpage.js`);
    const { storage } = InPage;
    /** @type {(kind: string) => Promise<any>} */
    const of = async (kind) => (await storage.list()).find((/** @type {any} */ each) => each.kind === kind);
    const before = await of("models");
    await storage.delete("models");
    const after = await of("models");
    const python = await of("python");
    const wrong = await storage.delete("model").catch((/** @type {Told} */ { code, field, message }) => ({ code, field, message }));
    const { usage, quota } = await storage.estimate();
    return { before, after, python, wrong, usage, quota, persisted: await storage.persist() };
  }, BASE);
  const { shards } = model.manifest.weights;
  expect(stored.before.bytes).toBeGreaterThan(shards.reduce((/** @type {number} */ sum, /** @type {{bytes: number}} */ { bytes }) => sum + bytes, 0));
  expect(stored.before.entries).toBeGreaterThan(shards.length);
  expect(stored.after).toEqual({ kind: "models", entries: 0, bytes: 0 });
  expect(stored.python.entries).toBe(1);
  expect(stored.wrong).toMatchObject({ code: "invalid_request", field: "kind" });
  expect(stored.wrong.message).toContain("did you mean models?");
  expect(stored.usage).toBeGreaterThan(0);
  expect(stored.quota).toBeGreaterThan(stored.usage);
  expect(typeof stored.persisted).toBe("boolean");
  // What was forgotten is fetched again.
  expect((await start({ threads: 1 })).model).toBe("synthetic");
});
