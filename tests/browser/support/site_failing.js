/** @file What the tests with the real model share in which what answers dies: the built site, prepared to be broken. */

import { Killer } from "./killer.js";

export { expect, test } from "./site.js";

/** Where the runner-up is this far behind, two engines must choose the same token. */
const CLEAR = 0.5;

/**
 * @param {import("@playwright/test").Page} page
 * @param {string} url
 * @param {string} [backend]
 */
export async function open(page, url, backend) {
  const killer = new Killer(page);
  await page.goto(`${url}NOTICES.txt`);
  await killer.install();
  await page.evaluate(async (backend) => {
    const { InPage } = await import(new URL("client/inpage.js", location.href).href);
    /** @type {any} */ (globalThis).inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct", backend });
  }, backend);
  return killer;
}

/** @param {import("./site.js").Served} site @returns {number} requests of weights */
export const weights = (site) => site.requests.filter((line) => line.includes("/weights/")).length;

/**
 * Tokens of an answer that the engine that runs now, fed with it, would clearly not have chosen.
 * @param {import("@playwright/test").Page} page
 * @param {{prompt_ids: number[], token_ids: number[]}} answer greedy
 * @returns {Promise<number[]>}
 */
export async function disputed(page, { prompt_ids, token_ids }) {
  const score = await page.evaluate((ids) => /** @type {any} */ (globalThis).inpage.score(ids), [...prompt_ids, ...token_ids]);
  const from = prompt_ids.length - 1;
  return token_ids.filter((id, i) => score.argmax[from + i] !== id && score.margin[from + i] >= CLEAR);
}
