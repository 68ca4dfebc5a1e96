/**
 * @file The chat page over the real model where something runs out or goes away: its files, storage, the context. A person
 * can go on in each, and nothing that was typed is lost. What a lost engine does is in page.spec.js.
 */

import path from "node:path";
import { readdirSync } from "node:fs";

import { answers, ask, messages } from "./support/chat_page.js";
import { FaultServer } from "./support/server.js";
import { expect, SITE, test as base } from "./support/site.js";

/** @typedef {import("@playwright/test").Page} Page */

const MODEL = "/models/smollm2-135m-instruct/";
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'";
/** Short answers, always the same, of an engine that no measuring chooses. */
const QUERY = "?start&temperature=0&backend=wasm-relaxed&threads=2";

const test = base.extend(
  /** @type {import("@playwright/test").Fixtures<{server: FaultServer, url: string}>} */ ({
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    server: async ({}, use) => {
      const server = new FaultServer({ "/": SITE }, { isolated: true });
      server.policy = POLICY;
      await use(server);
      await server.stop();
    },
    url: async ({ server }, use) => use(`${await server.start()}/index.html`),
  }),
);

/** @param {Page} page @param {number} count of answers that ended */
const ended = (page, count) => expect(page.locator(".message.assistant .actions")).toHaveCount(count);
/** @param {Page} page @param {number} n @returns {Promise<string[]>} role and beginning of each message that storage has */
const stored = async (page, n) => (await messages(page)).map(({ role, text }) => `${role}: ${text.slice(0, n)}`);
/** @param {string} word @param {number} count */
const many = (word, count) => Array(count).fill(word).join(" ");

test("a load that fails, a full context, a quota that refuses, and storage cleared in mid-answer are no ends", async ({ page, server, url }) => {
  // A device of so little memory has a context of 512 tokens.
  await page.addInitScript(() => Object.defineProperty(Navigator.prototype, "deviceMemory", { get: () => 0.25 }));
  const devtools = await page.context().newCDPSession(page);
  const { origin } = new URL(url);
  await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 40e6 });
  const shard = `${MODEL}weights/${readdirSync(path.join(SITE, MODEL, "weights")).sort()[1]}`;
  server.fault(shard, { status: 404, always: true });
  await page.goto(`${url}${QUERY}&max_tokens=24&system=Answer%20briefly.`);
  await ask(page, "Say hello.");
  await expect(page.getByRole("alert")).toContainText(path.basename(shard));
  await expect(page.locator("#engine")).toHaveText("The model is not loaded");
  await page.getByLabel("Message", { exact: true }).fill("typed meanwhile");
  server.clear();
  await page.getByRole("button", { name: "Try again" }).click();
  await ended(page, 1); // the question of before is answered
  await expect(answers(page).first()).toHaveText(/\w/);
  await expect(page.getByRole("alert")).toBeHidden();
  await expect(page.getByLabel("Message", { exact: true })).toHaveValue("typed meanwhile");
  // The quota: it runs, and what does not fit was not stored (IndexedDB writes a little over before it refuses).
  expect(await page.evaluate(async () => (await navigator.storage.estimate()).usage)).toBeLessThan(50e6);

  // The context: two long questions, of which it holds one.
  await ask(page, `What is this? ${many("apple", 220)}`);
  await ended(page, 2);
  await expect(page.locator(".divider")).toHaveCount(0);
  await ask(page, `And this? ${many("banana", 220)}`);
  await ended(page, 3);
  await expect(answers(page).nth(2)).toHaveText(/\w/);
  await expect(page.locator(".left-out")).toHaveCount(4);
  await expect(page.locator(".divider + .message .said")).toContainText("And this?");
  await ask(page, many("long", 800));
  await expect(answers(page).nth(3)).toContainText("longer than the model can read");
  await page.locator(".message.user").nth(3).getByRole("button", { name: "Edit" }).click();
  await expect(page.getByLabel("Your question")).toHaveValue(many("long", 800));
  await page.getByLabel("Your question").fill("Name a color.");
  await page.getByRole("button", { name: "Ask again" }).click();
  await ended(page, 4);
  await expect(answers(page).nth(3).locator(".answer")).toHaveText(/\w/);

  // All that the browser keeps of the site goes while an answer is written.
  await ask(page, "Write a story about a dog.");
  await expect(answers(page).nth(4).locator(".answer")).toHaveText(/\w/);
  await devtools.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
  await ended(page, 5);
  await ask(page, "Say goodbye.");
  await ended(page, 6);
  await expect(answers(page).nth(5).locator(".answer")).toHaveText(/\w/);
  const asked = ["Say hello.", "What is th", "And this? ", "long long ", "Name a col", "Write a st", "Say goodby"];
  await expect.poll(async () => (await stored(page, 10)).filter((each) => each.startsWith("user"))).toEqual(asked.map((text) => `user: ${text}`));
});

test("a window that may keep nothing answers, and says that it keeps nothing", async ({ page, server, url }) => {
  const refuse = () => {
    const refused = () => {
      throw new DOMException("refused", "SecurityError");
    };
    for (const name of ["indexedDB", "caches"]) Object.defineProperty(globalThis, name, { get: refused, configurable: true });
    StorageManager.prototype.getDirectory = () => Promise.reject(new DOMException("refused", "SecurityError"));
  };
  await page.addInitScript(refuse);
  server.prelude = `(${refuse})();`;
  await page.goto(`${url}${QUERY}&max_tokens=24`);
  await expect(page.locator("#notice")).toContainText("This browser keeps nothing for this page");
  await ask(page, "Say hello.");
  await ended(page, 1);
  await expect(answers(page).first().locator(".answer")).toHaveText(/\w/);
  await ask(page, "What did I ask?");
  await ended(page, 2);
  await expect(page.locator(".said")).toHaveText(["Say hello.", "What did I ask?"]);
  expect(server.log.filter(({ path }) => path.startsWith(`${MODEL}weights/`)).length).toBeGreaterThan(0);
});
