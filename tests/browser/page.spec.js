/** @file The built site as a visitor meets it, with the real model: load, ask, stop, come back, and what goes wrong. */

import { cpSync, linkSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

import { Killer } from "./support/killer.js";
import { expect, foreignProxy, SITE, test } from "./support/site.js";

/** @typedef {import("@playwright/test").Page} Page */

/** Short answers, always the same. */
const SHORT = "?start&temperature=0&max_tokens=24";

/** @param {Page} page @param {string} question */
async function ask(page, question) {
  await page.getByLabel("Message", { exact: true }).fill(question);
  await page.getByLabel("Message", { exact: true }).press("Enter");
}

/** @param {Page} page */
const answers = (page) => page.locator(".message.assistant");
/** @param {Page} page */
const ready = (page) => expect(page.locator("#load")).toBeHidden();
/** @param {Page} page */
const idle = (page) => expect(page.getByRole("button", { name: "Send" })).toBeVisible();
/** @param {Page} page @param {string | RegExp} name */
const variant = (page, name) => expect(page.locator("#engine")).toHaveAttribute("data-variant", name);

test("a visitor asks, the answer streams, stop stops it, and the next question is answered", async ({ page, site }) => {
  // Threads are pinned: left to measuring, a busy moment of this machine decides how many compute, and which variant.
  await page.goto(`${site.url}?start&temperature=0&max_tokens=400&threads=2`);
  // A question asked while the model loads waits for it.
  await ask(page, "Write a very long story about a lighthouse keeper and his dog.");
  await expect(page.locator("#load-bytes")).toHaveText(/of 97 MB/);
  await ready(page);
  await expect(page.locator("#engine")).toHaveText("Processor · 2 threads");
  await variant(page, "wasm-relaxed");
  await expect(page.locator("#notice")).toBeHidden();

  const answer = answers(page).first();
  const texts = new Set();
  // Marks of Markdown come and go while a line is written.
  const written = async () => (await answer.locator(".answer").textContent() ?? "").replace(/[*#\s]+/g, "");
  await expect.poll(async () => texts.add(await written()).size, { intervals: [20] }).toBeGreaterThan(4);
  await page.getByRole("button", { name: "Stop" }).click();
  await idle(page);
  await expect(answer.locator(".ending")).toHaveText("stopped");
  const seen = [...texts].sort((a, b) => a.length - b.length);
  for (const [i, text] of seen.entries()) expect(seen.at(-1).startsWith(text), `piece ${i}`).toBe(true);
  expect(await written()).toContain(seen.at(-1));

  await ask(page, "Now name the dog.");
  await expect(answers(page).nth(1)).toHaveText(/\w/);
  await page.keyboard.press("Escape");
  await idle(page);
  await page.locator("#engine").click();
  await expect(page.locator("#facts")).toContainText(/[\d.]+ tokens\/s · first token \d+ ms/);
  await expect(page.locator("#facts")).toContainText(/wasm-relaxed: measured [\d.]+ tokens a second here; 2 threads, as asked/);
  await expect(page.locator("#facts")).toContainText(/WASM, 2 threads: [\d.]+ tokens a second/);

  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "New chat" }).click();
  await expect(answers(page)).toHaveCount(0);
  await expect(page.getByRole("heading", { level: 2 })).toBeVisible();
  await ask(page, "Why is the sky blue?");
  await expect(answers(page)).toHaveText(/scatter/);
});

test("a visitor pins a backend, loses its worker, and copies a report", async ({ page, site }) => {
  const killer = new Killer(page);
  await killer.install();
  await page.goto(site.url + SHORT);
  await ready(page);
  await page.locator("#engine").click();
  await page.getByLabel("Run on").selectOption("wasm-simd");
  await variant(page, "wasm-simd");
  await expect(page.locator("#facts")).toContainText("pinned by the caller (wasm-simd)");
  expect(new URL(page.url()).searchParams.get("backend")).toBe("wasm-simd");
  await page.keyboard.press("Escape");
  await killer.engines([2]);
  await ask(page, "Say hello.");
  await idle(page);
  await expect(answers(page).first()).toHaveText(/\w/);
  await expect(answers(page).first().locator(".ending").first()).toHaveText(/^interrupted for [\d.]+ s; continued on wasm-simd$/);

  await page.locator("#engine").click();
  await page.getByRole("button", { name: "Copy a report" }).click();
  const report = page.getByLabel("Report", { exact: true });
  await expect(report).toContainText("WebAssembly: atomics, relaxed-simd, simd128");
  await expect(report).toContainText(/cross-origin isolated: yes/);
  await expect(report).toContainText(/OPFS, IndexedDB; [1-9]\d+ MB used of \d+ MB/);
  await expect(report).toContainText(/WebGPU: .* has no WebGPU|WebGPU: WebGPU finds no adapter/);
  await expect(report).toContainText(/running: wasm-simd: pinned by the caller/);
  await expect(report).toContainText(/wasm-relaxed: can run: .*[\d.]+ tokens a second, prompt [\d.]+/);
  await expect(report).toContainText(/wasm-simd: can run: .*failed \d+ seconds ago \(device_lost/);
  await page.getByLabel("Run on").selectOption("");
  await expect(page.locator("#facts")).not.toContainText("pinned by the caller");
  await variant(page, /^wasm-(relaxed|simd)$/); // whichever measured faster
});

test("no weights come before a person says so, none on the second visit, and nothing ever comes from elsewhere", async ({ playwright, launchOptions, site }) => {
  const proxy = await foreignProxy();
  // Chromium's own form filling asks a server about every text field that it sees; what the page asks is wanted here.
  const args = [...(launchOptions.args ?? []), "--disable-features=AutofillServerCommunication"];
  const browser = await playwright.chromium.launch({ ...launchOptions, args });
  const context = await browser.newContext({ proxy: { server: proxy.server, bypass: "127.0.0.1" } });
  const weights = () => site.requests.filter((line) => line.includes("/weights/")).length;
  /** @type {string[]} */
  const complaints = [];
  const visit = async (/** @type {boolean} */ first) => {
    const page = await context.newPage();
    page.on("console", (message) => void (message.type() === "error" && complaints.push(message.text())));
    page.on("pageerror", (error) => void complaints.push(error.message));
    await page.goto(site.url + SHORT.replace("start&", ""));
    await ask(page, "Say hello.");
    if (first) {
      const start = page.getByRole("button", { name: "Download 97 MB and start" });
      await expect(start).toBeVisible();
      expect(weights()).toBe(before);
      await start.click();
    }
    await idle(page);
    await expect(answers(page).first()).toHaveText(/\w/);
    await page.close();
  };
  const before = weights();
  await visit(true);
  const fetched = weights();
  expect(fetched).toBeGreaterThan(before);
  await visit(false);
  expect(weights()).toBe(fetched);
  expect(complaints).toEqual([]);
  expect(proxy.asked).toEqual([]);
  await browser.close();
  proxy.stop();
});

/** Stands in the run of all tests, INPAGE_SLOW=1. */
const slowTest = process.env.INPAGE_SLOW ? test : test.skip;

slowTest("a host without isolation headers gets one thread, and the page says why", async ({ page, serve }) => {
  const plain = await serve(SITE, "--no-isolation");
  await page.goto(plain.url + SHORT);
  await ask(page, "Never mind.");
  await page.getByRole("button", { name: "Stop" }).click(); // before there is a model to answer
  await expect(answers(page).first()).toHaveText("stopped before it was answered");
  await ready(page);
  await expect(page.locator("#engine")).toHaveText("Processor · 1 thread");
  await expect(page.locator("#notice")).toContainText("runs on one thread");
  await ask(page, "Say hello.");
  await idle(page);
  await expect(answers(page).nth(1)).toHaveText(/\w/);
});

slowTest("a missing shard is said, and trying again goes on when it is there", async ({ page, serve }) => {
  const folder = mkdtempSync(path.join(tmpdir(), "inpage-site-"));
  // Hard links where the file system can: the weights are large.
  cpSync(SITE, folder, { recursive: true, filter: (source) => !source.endsWith(".bin") });
  const [model] = readdirSync(path.join(SITE, "models"));
  const shards = readdirSync(path.join(SITE, "models", model, "weights"));
  /** @param {string} name */
  const put = (name) => {
    const place = path.join("models", model, "weights", name);
    try {
      linkSync(path.join(SITE, place), path.join(folder, place));
    } catch {
      cpSync(path.join(SITE, place), path.join(folder, place));
    }
  };
  for (const name of shards.slice(1)) put(name);
  const broken = await serve(folder);
  await page.goto(broken.url + SHORT);
  await expect(page.getByRole("alert")).toContainText(shards[0]);
  await ask(page, "Say hello."); // it is kept, and answered when it can be
  put(shards[0]);
  await page.getByRole("button", { name: "Try again" }).click();
  await ready(page);
  await expect(page.getByRole("alert")).toBeHidden();
  await idle(page);
  await expect(answers(page).first()).toHaveText(/\w/);
  rmSync(folder, { recursive: true });
});
