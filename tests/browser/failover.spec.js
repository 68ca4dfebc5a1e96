/** @file Workers that die in mid-answer, over the synthetic model: answers go on, or end with a reason. */

import { Killer } from "./support/killer.js";
import { expect, prompt, test as base } from "./support/router.js";

/** @typedef {{ask: (kind: "chat" | "complete", asked: string, params?: object) => Promise<any>, killer: Killer}} Fixtures */

/**
 * `killer`: prepared before the start; `ask`: reads to the end, gives {completion, ids, text, failovers} or {code}.
 * @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & import("./support/fixtures.js").TestFixtures & import("./support/router.js").RouterFixtures & Fixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & import("./support/fixtures.js").WorkerFixtures & import("./support/router.js").RouterWorkerFixtures>}
 */
const test = base.extend(
  /** @type {any} */ ({
    /** @param {{page: import("@playwright/test").Page, start: unknown}} fixtures @param {(value: Killer) => Promise<void>} use */
    killer: async ({ page, start: _ }, use) => {
      const killer = new Killer(page);
      await killer.install();
      await use(killer);
    },
    /** @param {{page: import("@playwright/test").Page}} fixtures @param {(value: Fixtures["ask"]) => Promise<void>} use */
    ask: async ({ page }, use) =>
      use((kind, asked, params = {}) =>
        page.evaluate(
          async ([kind, asked, params]) => {
            const { inpage } = /** @type {any} */ (globalThis);
            const pieces = [];
            try {
              // No answer ends before its time.
              const all = { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 }, .../** @type {object} */ (params) };
              for await (const piece of inpage[/** @type {string} */ (kind)](asked, all)) pieces.push(piece);
            } catch (error) {
              return { code: /** @type {any} */ (error).code };
            }
            return {
              completion: pieces.at(-1).completion,
              ids: pieces.flatMap((piece) => piece.token_ids),
              text: pieces.map((piece) => piece.text).join(""),
              failovers: pieces.flatMap((piece) => piece.failovers ?? []),
            };
          },
          /** @type {const} */ ([kind, asked, params]),
        ),
      ),
  }),
);

/** @param {any} model @param {string} content @param {number} n */
const greedy = (model, content, n) => model.greedy(prompt(content), n);
/** @param {import("./support/server.js").FaultServer} server */
const weights = (server) => server.log.filter(({ path }) => path.includes("/weights/"));

test("an engine worker that is ended is started again, and the answer goes on", async ({ page, start, killer, ask, server, model }) => {
  await start({ threads: 2 });
  server.clear();
  await killer.engines([3, 2]);
  const { completion, ids, text, failovers } = await ask("chat", "hello");
  expect(ids).toEqual(greedy(model, "hello", 60));
  expect(completion).toMatchObject({ token_ids: ids, text, failovers });
  expect(failovers).toHaveLength(2);
  expect(failovers[0]).toMatchObject({ from: "wasm-simd", to: "wasm-simd", reason: expect.stringMatching(/^device_lost: /) });
  expect(failovers[0].gap_ms).toBeGreaterThan(0);
  expect(weights(server)).toEqual([]);
  expect(await page.evaluate(() => /** @type {any} */ (globalThis).inpage.explain())).toMatch(/wasm-simd: .*failed \d+ seconds ago/);
});

test("a router worker that is ended is started again, and answers go on", async ({ start, killer, ask, server, model }) => {
  await start({ threads: 2 });
  server.clear();
  await killer.routers([4]);
  const [{ completion, ids, text, failovers }, sampled] = await Promise.all([ask("chat", "hello"), ask("chat", "a b", { temperature: 1 })]);
  expect(ids).toEqual(greedy(model, "hello", 60));
  expect(completion).toMatchObject({ token_ids: ids, text, failovers });
  expect(failovers).toMatchObject([{ from: "router", to: "router" }]);
  expect(weights(server)).toEqual([]);
  // The seed that was drawn before the death still holds.
  const { seed } = sampled.completion;
  expect((await ask("chat", "a b", { temperature: 1, seed })).ids).toEqual(sampled.ids);
});

test("a request that ends every engine fails alone", async ({ start, ask, model }) => {
  await start({ threads: 2 });
  const [first, bad, second] = await Promise.all([ask("chat", "hello"), ask("complete", "^"), ask("chat", "a b c")]);
  expect([first.ids, bad, second.ids]).toEqual([greedy(model, "hello", 60), { code: "poison_request" }, greedy(model, "a b c", 60)]);
});

test("a router that dies again and again with a request fails it, and nothing hangs", async ({ start, killer, ask, model }) => {
  await start({ threads: 1 });
  await killer.routers([1, 1]);
  expect(await ask("chat", "hello")).toEqual({ code: "poison_request" });
  expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
});
