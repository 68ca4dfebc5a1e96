/**
 * @file Kills at random tokens with the real model on the built site: every stream ends, what was streamed stays,
 * the same engine gives the same tokens, another engine the tokens that it would choose itself, and nothing is downloaded.
 */

import { random } from "./support/killer.js";
import { expect, disputed, open, test, weights } from "./support/site_failing.js";

const ASKED = [
  ["Why is the sky blue?", { temperature: 0, max_tokens: 160 }],
  ["Tell me a story about a lighthouse.", { temperature: 0.8, seed: 7, repetition_penalty: 1.1, max_tokens: 160 }],
];
test.describe.configure({ timeout: 600_000 });

/** All of `ASKED` at once, read piece by piece. @param {import("@playwright/test").Page} page @returns {Promise<any[]>} */
function askAll(page) {
  return page.evaluate(
    (asked) =>
      Promise.all(
        asked.map(async ([text, params]) => {
          /** @type {number[]} */
          const ids = [];
          let written = "";
          for await (const piece of /** @type {any} */ (globalThis).inpage.chat(text, params)) {
            ids.push(...piece.token_ids);
            written += piece.text;
            if (piece.completion) return { ...piece.completion, ids, written };
          }
        }),
      ),
    ASKED,
  );
}

/** @param {any[]} answers */
function whole(answers) {
  for (const { ids, written, token_ids, text } of answers) expect({ ids, written }).toEqual({ ids: token_ids, written: text });
  return answers.map(({ ids }) => ids);
}

/** @param {string} what @param {any[]} answers */
function tellGaps(what, answers) {
  const gaps = answers.flatMap(({ failovers }) => failovers.map((/** @type {any} */ each) => each.gap_ms)).sort((a, b) => a - b);
  console.log(`${what}: ${gaps.length} gaps, median ${Math.round(gaps[gaps.length >> 1])} ms, longest ${Math.round(gaps[gaps.length - 1])} ms`);
}

/** INPAGE_SLOW=1: twenty. */
const DEATHS = process.env.INPAGE_SLOW ? 20 : 2;

test(`${DEATHS} kills of one engine change no token`, async ({ page, site }) => {
  const killer = await open(page, site.url, "wasm-relaxed");
  const expected = whole(await askAll(page));
  expect(expected.map((ids) => ids.length)).toEqual([160, 160]);
  const before = weights(site);
  const next = random(20);
  // Bursts are up to 16 tokens, prompts and tokens so far are read again in one or two steps each.
  await killer.engines(Array.from({ length: DEATHS }, () => 3 + Math.floor(next() * 8)));
  const answers = [];
  while ((await killer.deaths()) < DEATHS) {
    answers.push(...(await askAll(page)));
    expect(whole(answers.slice(-2))).toEqual(expected);
  }
  expect(answers.flatMap(({ failovers }) => failovers).length).toBeGreaterThanOrEqual(DEATHS);
  expect(weights(site)).toBe(before);
  tellGaps("one engine", answers);
});

/** Stands in the run of all tests, INPAGE_SLOW=1. */
const slowTest = process.env.INPAGE_SLOW ? test : test.skip;

slowTest("what is fastest is measured once; another engine takes over, and the router too may die", async ({ page, site }) => {
  await open(page, site.url);
  // Both variants are timed, and the faster one runs, so that nothing is left to be found out meanwhile.
  const measured = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.measure());
  const able = measured.filter((/** @type {any} */ each) => each.can_run);
  expect(able.map((/** @type {any} */ each) => each.decode_tps > 0 && each.prefill_tps > 0)).toEqual([true, true]);
  await page.reload();
  const killer = await open(page, site.url);
  const info = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.refresh());
  expect(info.sentence).toMatch(/^WASM, \d+ threads?: [\d.]+ tokens a second/);
  // The second visit remembers: the same figures, to the last digit.
  for (const { variant, decode_tps } of able) expect(info.candidates.find((/** @type {any} */ each) => each.variant === variant).decode_tps).toBe(decode_tps);
  const first = info.variant;
  const second = able.map((/** @type {any} */ each) => each.variant).find((/** @type {string} */ name) => name !== first);
  const before = weights(site);
  await killer.engines([6, 4]); // twice within a minute: the next variant takes over
  const [answer, sampled] = await askAll(page);
  whole([answer, sampled]);
  expect(answer.failovers.map((/** @type {any} */ each) => [each.from, each.to])).toEqual([[first, first], [first, second]]);
  expect(answer.variant).toBe(second);
  expect(answer.why).toContain(`took over because ${first} failed (device_lost`);
  tellGaps("two engines", [answer, sampled]);

  // Fed with the answer, the engine that ended it chooses the same wherever the choice is clear, whoever made the token.
  expect(await disputed(page, answer)).toEqual([]);

  // The first variant rests; the router that dies now starts again with what was remembered.
  await killer.routers([3]);
  const again = await askAll(page);
  whole(again);
  expect(again[0].failovers).toMatchObject([{ from: "router", to: "router" }]);
  const explained = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.explain());
  expect(explained).toMatch(new RegExp(`${first}: .*failed \\d+ seconds ago .*tried again in`));
  expect(weights(site)).toBe(before);
  tellGaps("the router", again);
});
