/** @file Several models in one page: loaded when a request names them, unloaded for another or when idle. */

import { expect, OTHERS, prompt, test } from "./support/router.js";

test.use({ together: true });

const MODELS = OTHERS.map((model) => ({ model, threads: 1 }));

/**
 * @param {import("@playwright/test").Page} page
 * @param {string} call of `inpage`
 * @param {...unknown} args
 * @returns {Promise<any>} its value, or {code, field}
 */
function call(page, call, ...args) {
  return page.evaluate(
    async ([call, args]) => {
      const { inpage } = /** @type {any} */ (globalThis);
      try {
        return await inpage[/** @type {string} */ (call)](.../** @type {unknown[]} */ (args));
      } catch (error) {
        const { code, field } = /** @type {any} */ (error);
        return { code, field };
      }
    },
    /** @type {const} */ ([call, args]),
  );
}

/**
 * @param {import("@playwright/test").Page} page
 * @param {string} [model]
 * @returns {Promise<any>} ids of an answer, or its error's {code, field}
 */
function ids(page, model) {
  return page.evaluate(async (model) => {
    const tokens = [];
    try {
      const ask = { temperature: 0, max_tokens: 12, logit_bias: { 2: -100 }, model };
      for await (const piece of /** @type {any} */ (globalThis).inpage.chat("hello", ask)) tokens.push(...piece.token_ids);
      return tokens;
    } catch (error) {
      const { code, field } = /** @type {any} */ (error);
      return { code, field };
    }
  }, model);
}

/** Names of what is loaded. @param {import("@playwright/test").Page} page @returns {Promise<string[]>} */
async function loaded(page) {
  return (await call(page, "loaded")).map((/** @type {any} */ state) => state.name).sort();
}

/** Engine workers that live. @param {import("@playwright/test").Page} page @returns {Promise<number>} */
async function engines(page) {
  const session = await /** @type {import("@playwright/test").Browser} */ (page.context().browser()).newBrowserCDPSession();
  const { targetInfos } = await session.send("Target.getTargets", { filter: [{ type: "worker" }] });
  await session.detach();
  return targetInfos.filter(({ url }) => url.endsWith("/engine/worker.js")).length;
}

test("requests choose their model; one more takes the place of the least recently used", async ({ page, start, server, model }) => {
  await start({ threads: 1, models: MODELS, settings: { models: { max_loaded: 2 } } });
  const expected = model.greedy(prompt("hello"), 12);
  const weights = () => server.log.filter(({ path }) => /second.*weights/.test(path)).length;
  expect(weights()).toBe(0);
  const answers = await Promise.all([ids(page), ids(page, "second"), ids(page, "second"), ids(page, "model")]);
  expect(answers).toEqual([expected, expected, expected, expected]);
  expect(await loaded(page)).toEqual(["model", "second"]);
  expect(await engines(page)).toBe(2);
  const before = weights();
  await ids(page, "second");
  expect(await ids(page, "third")).toEqual(expected);
  expect(await loaded(page)).toEqual(["second", "third"]);
  expect(await engines(page)).toBe(2);
  expect(weights()).toBe(before);
  expect(await ids(page, "fourth")).toEqual({ code: "invalid_request", field: "model" });
  expect(await call(page, "add", { model: "/second/" })).toMatchObject({ code: "invalid_request" });
  const metrics = await call(page, "metrics");
  expect(metrics).toContain('inpage_model_unloads_total{why="evicted"} 1');
  expect(metrics).toContain('inpage_requests_total{model="third",finish="length"} 1');
  expect((await call(page, "health")).models).toEqual({ second: "healthy", third: "healthy" });
  expect(await call(page, "explain")).toMatch(/second[\s\S]*Not loaded: model\./);
});

test("an idle model's worker ends, and comes back with the next request", async ({ page, start, model }) => {
  await start({ threads: 1, settings: { models: { idle_seconds: 0 } } });
  await expect.poll(() => engines(page)).toBe(0);
  expect(await loaded(page)).toEqual([]);
  expect(await ids(page)).toEqual(model.greedy(prompt("hello"), 12));
  const progress = await page.evaluate(() => /** @type {any} */ (globalThis).progress.at(-1));
  expect(progress).toMatchObject({ phase: "ready", model: "model" });
  await expect.poll(() => engines(page)).toBe(0);
  expect((await call(page, "refresh")).variant).toBe("wasm-simd"); // told without loading it
  expect(await engines(page)).toBe(0);
});

test("a model beyond the budget is refused with the numbers; a pinned one stays", async ({ page, start }) => {
  const info = await start({ threads: 1, pinned: true, models: MODELS, settings: { models: { max_loaded: 1, idle_seconds: 0 } } });
  expect(info.model).toBe("synthetic");
  expect(await ids(page, "second")).toEqual({ code: "out_of_memory", field: "models.max_loaded" });
  expect(await loaded(page)).toEqual(["model"]);
  await call(page, "unload", "model");
  expect(await loaded(page)).toEqual([]);
  const { error } = await start({ threads: 1, settings: { models: { target_memory: 20_000 } } });
  expect(error.code).toBe("out_of_memory");
  expect(error.message).toMatch(/^model needs [\d.]+ MB at its only level \(room for 512 tokens\), and target_memory is 0\.0 MB$/);
});

test("a cancel while the model loads ends the request at once", async ({ page, start }) => {
  await start({ threads: 1, models: MODELS });
  const reason = await page.evaluate(async () => {
    const stop = new AbortController();
    const { inpage } = /** @type {any} */ (globalThis);
    const pieces = inpage.chat("hello", { model: "second", signal: stop.signal });
    const last = pieces.next();
    stop.abort();
    return (await last).value.finish_reason;
  });
  expect(reason).toBe("cancelled");
});
