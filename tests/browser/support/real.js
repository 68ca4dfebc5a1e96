/**
 * @file Fixtures of the tests with the real model: one page for all tests of a file, whose engines are loaded once for
 * each variant and number of threads, and what other implementations say about the model.
 */

import { test as base } from "@playwright/test";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./server.js";

export { expect } from "@playwright/test";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
export const MODEL = path.join(ROOT, "build/models/smollm2-135m-instruct");
export const VARIANTS = ["wasm-relaxed", "wasm-simd"];
/** KV pages of each engine: a context of 4,096 tokens, and then some that lie elsewhere. */
const PAGES = 288;
const PAGE_TOKENS = 16;

/**
 * @typedef {{ids: number[], greedy_f32: number[], margin: number[]}} Prompt
 * @typedef {{perplexity: number, nll: number[], argmax: number[], margin: number[]}} Scored
 */

/** @param {string} name @returns {any} */
function reference(name) {
  return JSON.parse(readFileSync(path.join(ROOT, "tests/reference", name), "utf8"));
}

/** @type {{prompts: Record<string, Prompt>, first_token_logits: {prompt: string, token_ids: number[], logits: number[]}}} */
export const REFERENCE = reference("smollm2-135m-instruct.json");
/** @type {{ids: number[], windows_512: Scored, context_4096: Scored}} */
export const TEXT = reference("smollm2-135m-instruct-text.json");

/**
 * Pages that hold `tokens`, scattered over all there are: consecutive blocks are never neighbours.
 * @param {number} tokens
 * @param {number} [first] pages already taken, so that sequences differ
 */
export function scattered(tokens, first = 0) {
  const blocks = Math.ceil(tokens / PAGE_TOKENS);
  if (first + blocks > PAGES) throw new Error(`${first + blocks} pages wanted, there are ${PAGES}`);
  return Array.from({ length: blocks }, (_, i) => (89 + 127 * (first + i)) % PAGES); // 127 and 288 have no common factor
}

/**
 * The real model in one page.
 */
export class RealModel {
  /** @type {Map<string, import("../../../web/engine/core/protocol.js").Info>} */
  #loaded = new Map();

  /** @param {import("@playwright/test").Page} page */
  constructor(page) {
    this.page = page;
  }

  /**
   * The name of an engine, loaded when first asked for.
   * @param {string} variant
   * @param {number} threads
   */
  async engine(variant, threads) {
    const name = `${variant} on ${threads}`;
    if (!this.#loaded.has(name)) {
      const options = { base: "/model", variant, threads, contextPages: PAGES };
      this.#loaded.set(name, await this.call("load", name, options));
    }
    return name;
  }

  /** @param {string} name of an engine */
  info(name) {
    return /** @type {import("../../../web/engine/core/protocol.js").Info} */ (this.#loaded.get(name));
  }

  /**
   * Call `lab[method](...args)` in the page.
   * @template {keyof import("./real_page.js").RealLab} M
   * @param {M} method
   * @param {Parameters<import("./real_page.js").RealLab[M]>} args
   * @returns {Promise<Awaited<ReturnType<import("./real_page.js").RealLab[M]>>>}
   */
  call(method, ...args) {
    return this.page.evaluate(
      ([name, list]) => /** @type {any} */ (globalThis).lab[/** @type {string} */ (name)](.../** @type {unknown[]} */ (list)),
      /** @type {const} */ ([method, args]),
    );
  }
}

/**
 * Open the page on a server of its own.
 * @param {import("@playwright/test").Browser} browser
 * @param {boolean} isolated
 * @returns {Promise<{model: RealModel, close: () => Promise<void>}>}
 */
async function open(browser, isolated) {
  const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/model/": MODEL };
  const server = new FaultServer(mounts, { isolated });
  const origin = await server.start();
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${origin}/tests/browser/support/real_page.html`);
  await page.waitForFunction(() => "lab" in globalThis);
  const close = async () => {
    await context.close();
    await server.stop();
  };
  return { model: new RealModel(page), close };
}

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {model: RealModel, plain: RealModel}>} */
export const test = base.extend({
  model: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: RealModel) => Promise<void>} use */
    async ({ browser }, use) => {
      const { model, close } = await open(browser, true);
      await use(model);
      await close();
    },
    { scope: "worker" },
  ],
  /** The same in a page that is not isolated. */
  plain: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: RealModel) => Promise<void>} use */
    async ({ browser }, use) => {
      const { model, close } = await open(browser, false);
      await use(model);
      await close();
    },
    { scope: "worker" },
  ],
});
