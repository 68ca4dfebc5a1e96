/** @file Fixtures of the tests in which what answers dies: whole answers over the synthetic model, and what kills. */

import { Killer } from "./killer.js";
import { prompt, test as base } from "./router.js";

export { expect } from "@playwright/test";

/** @typedef {{ask: (kind: "chat" | "complete", asked: string, params?: object) => Promise<any>, killer: Killer}} Fixtures */

/**
 * `killer`: prepared before the start; `ask`: reads to the end, gives {completion, ids, text, failovers} or {code}.
 * @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & import("./fixtures.js").TestFixtures & import("./router.js").RouterFixtures & Fixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & import("./fixtures.js").WorkerFixtures & import("./router.js").RouterWorkerFixtures>}
 */
export const test = base.extend(
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
export const greedy = (model, content, n) => model.greedy(prompt(content), n);
/** @param {import("./server.js").FaultServer} server @returns {object[]} requests of weights */
export const weights = (server) => server.log.filter(({ path }) => path.includes("/weights/"));
