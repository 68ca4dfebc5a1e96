/**
 * @file What phones do to a page, with the real model: little memory, tabs that are hidden and frozen, and tabs that the
 * system ends in mid-answer.
 */

import { messages } from "./support/chat_page.js";
import { inPython, showPython } from "./support/python.js";
import { expect, test } from "./support/site.js";

/** @typedef {import("@playwright/test").Page} Page */

test.describe.configure({ timeout: 300_000 });

const QUESTION = "Write a very long story about a lighthouse keeper and his dog.";

/**
 * Load the model in a page of the site, as `globalThis.inpage`.
 * @param {Page} page
 * @param {string} url of the site
 * @param {object} [settings]
 * @returns {Promise<any>} its info
 */
async function start(page, url, settings = {}) {
  await page.goto(`${url}NOTICES.txt`);
  return page.evaluate(async (settings) => {
    const { InPage } = await import(new URL("client/inpage.js", location.href).href);
    const options = { base: "./", model: "smollm2-135m-instruct", backend: "wasm-relaxed", threads: 1, settings };
    const inpage = await InPage.start(options);
    Object.assign(globalThis, { inpage });
    return { ...inpage.info, explained: await inpage.explain() };
  }, settings);
}

/** @param {Page} page @param {number} gib that the device says it has */
function memory(page, gib) {
  return page.addInitScript((gib) => Object.defineProperty(Navigator.prototype, "deviceMemory", { get: () => gib }), gib);
}

/**
 * End the page's process, as the system does.
 * @param {Page} page
 * @param {Record<string, string>} [session] what the tab's session storage holds
 * @returns {Promise<Page>} the tab as the browser opens it again: Playwright has no use for one that crashed
 */
async function crash(page, session = {}) {
  const crashed = page.waitForEvent("crash");
  const devtools = await page.context().newCDPSession(page);
  devtools.send("Page.crash").catch(() => {}); // never answered
  await crashed;
  const again = await page.context().newPage();
  await again.addInitScript((session) => {
    for (const [key, value] of Object.entries(session)) sessionStorage.setItem(key, value);
  }, session);
  return again;
}

(process.env.INPAGE_SLOW ? test : test.skip)("little memory shrinks the context before loading, says so, and a caller's setting wins", async ({ page, site }) => {
  await memory(page, 0.5);
  const small = await start(page, site.url);
  expect(small.context).toBeLessThan(8192);
  expect(small.context).toBeGreaterThanOrEqual(512);
  expect(small.warnings).toHaveLength(1);
  expect(small.warnings[0]).toMatch(/^This device has 0\.5 GiB of memory: the context is \d+ tokens instead of 8192/);
  expect(small.explained).toContain(small.warnings[0]);
  const answer = await page.evaluate(async () => {
    let last;
    for await (last of /** @type {any} */ (globalThis).inpage.chat("Say hello.", { temperature: 0, max_tokens: 8 }));
    return last.completion.token_ids.length;
  });
  expect(answer).toBeGreaterThan(0);
  await page.goto("about:blank");
  const own = await start(page, site.url, { kv: { memory_bytes: 512 << 20 } });
  expect(own).toMatchObject({ context: 8192, warnings: [] });
});

test("an answer whose page was ended goes on token for token, once, and leaves nothing behind", async ({ page, site }) => {
  await start(page, site.url);
  const before = await page.evaluate(async (question) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const seen = [];
    const stream = inpage.chat(question, { keep: "a story", max_tokens: 100, temperature: 0.8 });
    while (seen.length < 30) seen.push(...(await stream.next()).value.token_ids);
    // It runs here: nobody may take it up.
    const running = await inpage.unfinished();
    // What there is by now was written before the page goes.
    const { inStore } = await import(new URL("router/in_store.js", location.href).href);
    for (;;) {
      const keys = await inStore("inpage-unfinished", "answers", "readonly", (/** @type {any} */ store) => store.getAllKeys());
      if (keys?.length === 2) break;
      seen.push(...(await stream.next()).value.token_ids);
    }
    return { seen, running };
  }, QUESTION);
  expect(before.running).toEqual([]);
  const again = await crash(page);

  await start(again, site.url);
  const after = await again.evaluate(async (question) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const listed = await inpage.unfinished("a story");
    const others = await inpage.unfinished("another");
    const pieces = [];
    for await (const piece of inpage.resume(listed[0].id)) pieces.push(piece);
    const { completion } = pieces.at(-1);
    let whole;
    for await (whole of inpage.chat(question, { max_tokens: 100, temperature: 0.8, seed: completion.seed }));
    const again = await inpage.unfinished();
    const lost = await inpage.resume(listed[0].id).next().catch((/** @type {any} */ { code, field }) => ({ code, field }));
    const { inStore } = await import(new URL("router/in_store.js", location.href).href);
    const keys = await inStore("inpage-unfinished", "answers", "readonly", (/** @type {any} */ store) => store.getAllKeys());
    return { listed, others, pieces, completion, whole: whole.completion, again, lost, keys };
  }, QUESTION);
  expect(after.listed).toMatchObject([{ keep: "a story", messages: QUESTION }]);
  expect(after.listed[0].tokens).toBeGreaterThan(0);
  expect(after.others).toEqual([]);
  const ids = after.pieces.flatMap((/** @type {any} */ piece) => piece.token_ids);
  expect(after.pieces[0].token_ids).toEqual(before.seen.slice(0, after.listed[0].tokens));
  expect(ids).toEqual(after.whole.token_ids);
  expect(ids.slice(0, before.seen.length)).toEqual(before.seen);
  expect(after.pieces.map((/** @type {any} */ piece) => piece.text).join("")).toBe(after.whole.text);
  expect(after.completion.token_ids).toEqual(after.whole.token_ids);
  expect(after.again).toEqual([]);
  expect(after.keys).toEqual([]);
  expect(after.lost).toEqual({ code: "invalid_request", field: "id" });
});

(process.env.INPAGE_SLOW ? test : test.skip)("the chat page goes on with the answer after its tab was ended, and after a reload", async ({ page: first, site }) => {
  const url = `${site.url}?start&temperature=0&max_tokens=100&threads=1&backend=wasm-relaxed`;
  let page = first;
  let answer = page.locator(".message.assistant").first();
  await page.goto(url);
  await page.getByLabel("Message", { exact: true }).fill(QUESTION);
  await page.getByLabel("Message", { exact: true }).press("Enter");
  await expect(answer).toHaveText(/(\w+\W+){10}/);
  await page.reload();
  await expect(page.locator(".message.user .said")).toHaveText(QUESTION);
  await expect(answer).toHaveText(/(\w+\W+){25}/);
  page = await crash(page, await page.evaluate(() => ({ ...sessionStorage })));
  answer = page.locator(".message.assistant").first();
  await page.goto(url);
  await expect(page.locator(".message.user .said")).toHaveText(QUESTION);
  await expect(page.getByRole("button", { name: "Send" })).toBeVisible();
  await expect(page.locator(".message.assistant")).toHaveCount(1);
  await expect(answer.locator(".actions")).toBeVisible();
  const resumed = (await messages(page)).at(-1);
  const whole = await page.evaluate(async (question) => {
    const { InPage } = await import(new URL("client/inpage.js", location.href).href);
    const inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct", backend: "wasm-relaxed", threads: 1 });
    let last;
    for await (last of inpage.chat([{ role: "user", content: question }], { temperature: 0, max_tokens: 100 }));
    return last.completion.text;
  }, QUESTION);
  expect(resumed.text).toBe(whole);
  // What ended is there again, and not taken up again.
  await page.reload();
  await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
  await expect(page.locator(".message")).toHaveCount(2);
  expect((await messages(page)).at(-1)).toEqual(resumed);
});

/** The page is hidden, or seen again. @param {Page} page @param {boolean} hidden */
function hide(page, hidden) {
  return page.evaluate((hidden) => {
    const state = hidden ? "hidden" : "visible";
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
}

// hidden.spec.js has the same of a synthetic model.
for (const how of process.env.INPAGE_SLOW ? ["hidden", "frozen"] : []) {
  test(`a page that is ${how} gives back what it keeps, and the answer under way goes on`, async ({ page, site }) => {
    await showPython(page);
    await start(page, site.url, { kv: { hidden_seconds: how === "hidden" ? 0 : 3600 } });
    const alone = await page.evaluate(async (question) => {
      const { inpage } = /** @type {any} */ (globalThis);
      const ask = async (/** @type {string} */ text) => {
        let last;
        for await (last of inpage.chat(text, { temperature: 0, max_tokens: 100 }));
        return last.completion.token_ids;
      };
      const alone = await ask(question);
      Object.assign(globalThis, { kept: (await inpage.refresh()).kv_pages.kept, running: ask(question) });
      return alone;
    }, QUESTION);
    expect(await page.evaluate(() => /** @type {any} */ (globalThis).kept)).toBeGreaterThan(0);
    if (how === "hidden") await hide(page, true);
    else {
      const session = await page.context().newCDPSession(page);
      await session.send("Page.setWebLifecycleState", { state: "frozen" });
      await session.send("Page.setWebLifecycleState", { state: "active" });
      await page.evaluate(() => document.dispatchEvent(new Event("freeze")));
    }
    const { ids, kept, tree } = await page.evaluate(async () => {
      const { inpage, running } = /** @type {any} */ (globalThis);
      const ids = await running;
      for (;;) {
        const { kv_pages } = await inpage.refresh();
        if (kv_pages.kept === 0) return { ids, kept: kv_pages.kept, tree: kv_pages.used };
      }
    });
    expect(ids).toEqual(alone);
    expect([kept, tree]).toEqual([0, 0]);
    expect(await inPython(page, "json.dumps(len(router.scheduler.kv.prefix))", null)).toBe(0);
    await hide(page, false);
    expect(await inPython(page, "json.dumps(router.scheduler.kv.prefix.budget > 0)", null)).toBe(true);
  });
}
