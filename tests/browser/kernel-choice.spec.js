/**
 * @file Kernels that do the same, in Chromium: whichever is chosen, the numbers are the same; the router times them, keeps
 * the verdict, and the next visit uses it. One of three kernels is fast, the others repeat its work 400 and 800 times.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { ARTIFACT, call, expect as expectEngine, test as engineTest } from "./support/fixtures.js";
import { feed, VOCAB } from "./support/model.js";
import { greedy } from "./support/failing.js";
import { expect, test } from "./support/router.js";

const NAMES = ["accumulate", "accumulate_slow", "accumulate_slower"];
const PROMPT = [5, 17, 3, 42, 8, 8, 60, 1];

for (const threads of [1, 2]) {
  engineTest(`every alternative gives the same logits on ${threads} thread(s), and is timed`, async ({ lab, artifact, model }) => {
    const manifest = JSON.parse(readFileSync(path.join(artifact, "manifest-choice1.json"), "utf-8"));
    const { value: info } = await call(lab, "load", { base: ARTIFACT, manifest, threads });
    expectEngine(info.alternatives).toEqual([[NAMES[1], NAMES[0], NAMES[2]]]);
    await call(lab, "reservePages", 8);
    for (const name of NAMES) {
      expectEngine((await call(lab, "chooseKernels", [name])).error).toBeUndefined();
      const { value } = await call(lab, "step", { ...feed([PROMPT]), wantLogits: true });
      expectEngine(value.logits.slice(-VOCAB)).toEqual(model.logits(PROMPT));
    }
    const kernels = NAMES.map((name) => ({ name, most: 4 }));
    const { value: times } = await call(lab, "timeKernels", { kernels, budgetMs: 1e6 });
    expectEngine(times.every((/** @type {number} */ ms) => ms >= 0)).toBe(true);
    const { value: late } = await call(lab, "timeKernels", { kernels, budgetMs: 0 });
    expectEngine(late).toEqual([NaN, NaN, NaN]); // nothing is begun once the time is up
    expectEngine(await call(lab, "chooseKernels", ["store"])).toMatchObject({ error: { code: "invalid_request", field: "kernels" } });
  });
}

engineTest("a choice that does not fit the plan is ignored", async ({ lab, artifact, model }) => {
  const manifest = JSON.parse(readFileSync(path.join(artifact, "manifest-choice0.json"), "utf-8"));
  for (const kernels of [["gone"], [], ["accumulate", "accumulate_slow"], null]) {
    const { value: info } = await call(lab, "load", { base: ARTIFACT, manifest, threads: 2, kernels }, String(kernels));
    expectEngine(info.alternatives).toEqual([NAMES]);
    await call(lab, "reservePages", 8, String(kernels));
    const { value } = await call(lab, "step", { ...feed([PROMPT]), wantLogits: true }, String(kernels));
    expectEngine(value.logits.slice(-VOCAB)).toEqual(model.logits(PROMPT));
  }
});

/**
 * Time goes by twenty times as slowly for the workers: what the router may spend on timing kernels is enough to reach all of
 * them, and to find each undisturbed once, however busy the machine is. How they compare does not change.
 */
const SLOW_CLOCK = "const now = performance.now.bind(performance); performance.now = () => now() / 20;";

for (const first of process.env.INPAGE_SLOW ? [0, 1, 2] : [1]) {
  test(`the router chooses the fast one of three where it stands in place ${first}, and remembers it`, async ({ page, server, start, whole, model }) => {
    server.prelude = SLOW_CLOCK;
    const manifest = readFileSync(path.join(whole, `manifest-choice${first}.json`), "utf-8");
    await page.route("**/model/manifest.json", (route) => route.fulfill({ contentType: "application/json", body: manifest }));
    /** @param {string} wanted which kernels it comes to, at once or when the page is idle */
    const visit = async (wanted) => {
      const info = await start({ threads: 2 });
      expect(info.error).toBeUndefined();
      const ids = await page.evaluate(async () => {
        let last;
        for await (const piece of /** @type {any} */ (globalThis).inpage.chat("hello", { temperature: 0, max_tokens: 8 })) last = piece;
        return last.completion.token_ids;
      });
      expect(ids).toEqual(greedy(model, "hello", 60).slice(0, 8));
      // A busy machine may not get to all of them in time: the rest are timed when nothing else is to be done.
      const chosen = () => page.evaluate(async () => {
        const { kernels, kernels_settled } = await /** @type {any} */ (globalThis).inpage.refresh();
        return { kernels, kernels_settled };
      });
      await expect.poll(chosen).toEqual({ kernels: wanted, kernels_settled: true });
      return page.evaluate(async () => {
        const { inpage } = /** @type {any} */ (globalThis);
        const told = await inpage.explain();
        await inpage.unload();
        return told;
      });
    };
    const told = await visit("accumulate: accumulate");
    expect(told).toContain("Kernels, chosen by timing them here: accumulate: accumulate.");
    expect(await kept(page)).toEqual([["accumulate"]]);
    // What is kept is what runs: nothing is timed on the next visit.
    await kept(page, "accumulate_slower");
    await visit("accumulate_slower: accumulate_slower");
    // A verdict on another build's kernels is found anew.
    await kept(page, "of_another_build");
    await visit("accumulate: accumulate");
  });
}

/**
 * The kernels that the page keeps as chosen, after they were changed.
 * @param {import("@playwright/test").Page} page
 * @param {string} [change]
 * @returns {Promise<string[][]>}
 */
function kept(page, change) {
  return page.evaluate(async (change) => {
    /** @type {(request: IDBRequest) => Promise<any>} */
    const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
    const database = await done(indexedDB.open("inpage-notes", 1));
    const store = database.transaction("notes", "readwrite").objectStore("notes");
    const found = [];
    for (const key of await done(store.getAllKeys())) {
      const notes = JSON.parse(await done(store.get(key)));
      for (const choice of Object.values(notes.devices).flatMap((/** @type {any} */ { choices }) => Object.values(choices))) {
        if (change) Object.assign(choice, { kernels: [change], settled: true });
        found.push(choice.kernels);
      }
      await done(store.put(JSON.stringify(notes), key));
    }
    database.close();
    return found;
  }, change);
}
