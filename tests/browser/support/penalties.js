/** @file Penalties, and logprobs of a prompt that is repeated, through the page's endpoint: as numpy says (penalties.py). */

import { execFileSync } from "node:child_process";
import path from "node:path";

import { expect } from "@playwright/test";

import { ROOT } from "./real.js";
import { ids } from "./router.js";

/** @typedef {{params: object, prompt: number[], tokens: number[], logprobs: (number | null)[]}} Case */

/** @param {import("@playwright/test").Page} page in which `inpage` runs the synthetic model @param {string} artifact its folder */
export async function expectPenalties(page, artifact) {
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  const script = path.join(ROOT, "tests/browser/support/penalties.py");
  /** @type {Case[]} */
  const cases = JSON.parse(execFileSync(path.join(ROOT, ".venv/bin/python"), [script, artifact], { encoding: "utf-8", env }));
  const choices = await page.evaluate((all) => {
    const { inpage } = /** @type {any} */ (globalThis);
    return Promise.all(
      all.map(async ({ params, prompt }) => {
        const body = JSON.stringify({ prompt, temperature: 0, echo: true, logprobs: 2, ...params });
        const response = await inpage.fetch("http://inpage/v1/completions", { method: "POST", body });
        return (await response.json()).choices[0];
      }),
    );
  }, cases);
  for (const [i, { params, prompt, tokens, logprobs }] of cases.entries()) {
    expect([params, ids(choices[i].text)]).toEqual([params, [...prompt, ...tokens]]);
    expect(choices[i].logprobs.token_logprobs).toEqual(logprobs.map((logprob) => (logprob === null ? null : expect.closeTo(logprob, 3))));
  }
}
