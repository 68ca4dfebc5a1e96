/**
 * @file The built site under a sub-path of a host without any settings: isolated after one reload, its endpoint answers,
 * and after that visit it needs no network, also not for another model that is stored. A later version is taken as a whole.
 */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { messages } from "./support/chat_page.js";
import { plainServer } from "./support/plain.js";
import { expect, prompt, test, text } from "./support/router.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const QUESTION = "hello";
const QUERY = "?start&temperature=0&max_tokens=60&threads=2";
const REAL = "SmolLM2-135M-Instruct";

/** @typedef {import("@playwright/test").Page} Page */

/** @param {any} model @returns {string} the greedy answer */
function expected(model) {
  const tokens = model.greedy(prompt(QUESTION), 60);
  const stop = tokens.indexOf(2);
  return text(stop < 0 ? tokens : tokens.slice(0, stop + 1)).trim();
}

/** Ask in the chat page, then its endpoint. @param {Page} page */
async function ask(page) {
  await expect(page.locator("#engine")).toHaveText(/ · 2 threads$/);
  await page.getByRole("button", { name: "New chat" }).click();
  await page.getByLabel("Message", { exact: true }).fill(QUESTION);
  await page.getByLabel("Message", { exact: true }).press("Enter");
  await expect(page.getByRole("button", { name: "Send" })).toBeVisible();
  await expect(page.locator(".message.assistant .actions")).toHaveCount(1);
  const shown = (await messages(page)).filter(({ role }) => role === "assistant").at(-1)?.text ?? "";
  const request = JSON.stringify({ messages: [{ role: "user", content: QUESTION }], temperature: 0, max_tokens: 60 });
  const answered = await page.evaluate((body) => fetch("v1/chat/completions", { method: "POST", body }).then((response) => response.json()), request);
  return [shown.trim(), answered.choices[0].message.content.trim()];
}

/** Choose a model, and ask it in a conversation of its own. @param {Page} page @param {string} button @param {RegExp} answer */
async function change(page, button, answer) {
  await page.locator("#model").click();
  await page.getByRole("button", { name: button }).click();
  await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
  await page.getByRole("button", { name: "New chat" }).click();
  await askReal(page, answer);
}

/** @param {Page} page @param {RegExp} answer */
async function askReal(page, answer) {
  await page.getByLabel("Message", { exact: true }).fill("Why is the sky blue?");
  await page.getByLabel("Message", { exact: true }).press("Enter");
  await expect(page.locator(".message.assistant .actions").last()).toBeVisible();
  await expect(page.locator(".message.assistant .answer").last()).toHaveText(answer);
}

/** What the service worker keeps: how many files of each version, as soon as one is whole. @param {Page} page */
const kept = (page) =>
  page.evaluate(async () => {
    const names = (await caches.keys()).filter((name) => !name.endsWith(" pages"));
    const found = await Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url)));
    return found.filter((urls) => urls.some((url) => url.endsWith("inpage-files.json"))).map((urls) => urls.length - 1);
  });

/** Give a file of a built site other content, as a later build would. @param {string} site @param {Record<string, (text: string) => string>} changes */
function rebuild(site, changes) {
  const worker = path.join(site, "sw.js");
  const [line, ...rest] = readFileSync(worker, "utf-8").split("\n");
  const list = JSON.parse(line.slice(line.indexOf("{"), -1));
  for (const [name, edit] of Object.entries(changes)) {
    const file = path.join(site, name);
    writeFileSync(file, edit(readFileSync(file, "utf-8")));
    list.files[name] = createHash("sha256").update(readFileSync(file)).digest("hex");
  }
  list.revision = `${list.revision}+`;
  writeFileSync(worker, [`self.inpageFiles = ${JSON.stringify(list)};`, ...rest].join("\n"));
}

test("after one visit the site works without a network, isolated and with its endpoint, and a later version comes as a whole", async ({ page, context, whole, model }) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "inpage-plain-"));
  const site = path.join(folder, "a/b");
  execFileSync(path.join(ROOT, ".venv/bin/inpage"), ["build", "--model", whole, "--model", path.join(ROOT, "build/models/smollm2-135m-instruct"), "--out", site], { stdio: "ignore" });
  let server = await plainServer(folder);
  try {
    const url = `${server.origin}/a/b/${QUERY}`;
    const announced = page.waitForEvent("console", (message) => message.text().includes("reloaded once"));
    await page.goto(url);
    await announced;
    await expect.poll(() => page.evaluate(() => crossOriginIsolated).catch(() => false)).toBe(true);
    expect(await ask(page)).toEqual([expected(model), expected(model)]);
    await expect.poll(() => kept(page)).toHaveLength(1);
    // What only grammars need is kept when it is first asked for.
    const [before] = await kept(page);
    const grammars = () => page.evaluate(() => fetch("vendor/xgrammar/xgrammar.js").then((response) => response.text())).then((text) => text.length);
    expect(await grammars()).toBeGreaterThan(0);
    expect(await kept(page)).toEqual([before + 1]);
    await change(page, `Download 97 MB and use: ${REAL}`, /scatter/);

    await server.stop();
    await page.reload();
    await expect(page.locator("#model-name")).toHaveText(REAL);
    await askReal(page, /\w/); // in the conversation of before
    await expect(page.locator(".message")).toHaveCount(4);
    await page.locator("#model").click();
    await page.getByRole("button", { name: /^Use this one: / }).click();
    await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
    await page.reload();
    expect(await grammars()).toBeGreaterThan(0);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    expect(await ask(page)).toEqual([expected(model), expected(model)]);

    // A page of the earlier version has all its files from there, though the host has others.
    rebuild(site, {
      "index.html": (text) => text.replace("<title>inpage", "<title>second"),
      "app/app.js": (text) => `${text}\ndocument.documentElement.dataset.version = "second";\n`,
    });
    server = await plainServer(folder, server.port);
    /** @param {Page} page */
    const version = (page) => page.evaluate(() => [document.title.split(" · ").at(-1), document.documentElement.dataset.version]).catch(() => null);
    const FIRST = ["inpage", undefined];
    await page.reload();
    expect(await version(page)).toEqual(FIRST);
    await expect.poll(() => page.evaluate(async () => Boolean((await navigator.serviceWorker.getRegistration())?.waiting))).toBe(true);
    expect(await kept(page)).toHaveLength(2);
    const other = await context.newPage();
    await other.goto(url);
    expect(await version(other)).toEqual(FIRST);
    await expect(other.locator("#engine")).toHaveText(/ · 2 threads$/); // it was not reloaded: two pages are open
    expect(await version(other)).toEqual(FIRST);
    // A person is told, and takes it when no other tab needs the earlier one, in mid-answer: it goes on.
    const notice = page.locator("#notice");
    await expect(notice).toContainText("A new version is here.");
    await notice.getByRole("button", { name: "Reload" }).click();
    await expect(notice).toContainText("Other tabs have this page open");
    await other.close();
    await page.locator("#model").click();
    await page.getByRole("button", { name: `Use this one: ${REAL}` }).click();
    await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
    await page.getByRole("button", { name: "New chat" }).click();
    await page.getByLabel("Message", { exact: true }).fill("Write a long story about a lighthouse keeper.");
    await page.getByLabel("Message", { exact: true }).press("Enter");
    await expect(page.locator(".message.writing .answer")).toHaveText(/\w+ \w+/);
    const [written] = await page.locator(".message.assistant .answer").allTextContents();
    await notice.getByRole("button", { name: "Reload" }).click();
    await expect.poll(() => version(page)).toEqual(["second", "second"]);
    await expect(page.locator(".message.assistant .actions")).toHaveCount(1);
    const last = (await messages(page)).at(-1);
    expect([last.status, last.tokens.length]).toEqual(["cut", 60]); // none is missing, and none is there twice
    expect(last.text.replace(/\W+/g, " ")).toContain(written.replace(/\W+/g, " ").trim());
    await expect.poll(() => kept(page)).toEqual([before + 1]);
    // What is large came with the earlier version, and did not come again.
    expect(server.requests).toContain("/a/b/app/app.js");
    expect(server.requests.filter((name) => /\.(bin|wasm|zip)$/.test(name))).toEqual([]);

    // A page can see that, and forget it.
    const stored = await page.evaluate(async () => {
      const { InPage } = await import(new URL("client/inpage.js", document.baseURI).href);
      const { storage } = InPage;
      const of = async () => (await storage.list()).find((/** @type {any} */ { kind }) => kind === "site");
      const first = await of();
      await storage.delete("site");
      return [first, await of()];
    });
    expect(stored[0].entries).toBeGreaterThan(before);
    expect(stored[1]).toEqual({ kind: "site", entries: 0, bytes: 0 });
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true });
  }
});
