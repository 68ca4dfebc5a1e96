/** @file The chat page as an app, of the built site: what its first screen takes, that it can be installed, its policy. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";

import { expect, SITE, test } from "./support/site.js";

/** Of the document, its style and its script, gzipped. */
const BYTES = 60_000;
/** Of all that is asked for until the first screen is complete, of which no paint needs more than the above: requests, and bytes gzipped. */
const FIRST_SCREEN = { requests: 12, bytes: 110_000 };

test("the first screen waits for its style alone, takes little more than fifty kilobytes, and nothing of a model", async ({ page, site }) => {
  const before = site.requests.length;
  await page.goto(site.url, { waitUntil: "commit" });
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
  // What comes before the paint without holding it up depends on the machine.
  const awaited = await page.evaluate(() => {
    const entries = /** @type {any[]} */ (performance.getEntriesByType("resource"));
    return entries.filter((each) => each.renderBlockingStatus === "blocking").map(({ name }) => new URL(name).pathname);
  });
  expect(awaited).toEqual(["/app/style.css"]);
  const bytes = ["index.html", "app/style.css", "app/app.js"].reduce((sum, name) => sum + gzipSync(readFileSync(path.join(SITE, name))).length, 0);
  expect(bytes).toBeLessThan(BYTES);
  await expect(page.getByRole("button", { name: "Download 97 MB and start" })).toBeVisible();
  await expect(page.locator(".card")).toContainText("97 MB · reads 8,192 tokens · Apache-2.0");
  await expect(page.locator(".card")).toContainText("A very small model, of 135 million parameters");
  await expect(page.locator(".card .fit")).toContainText("it takes about 497 MB of memory");
  const asked = site.requests.slice(before).map((line) => line.split(" ")[1]);
  expect(asked.filter((name) => /weights|pyodide|inpage\.zip|tokenizer/.test(name))).toEqual([]);
  const files = asked.map((name) => path.join(SITE, name.endsWith("/") ? `${name}index.html` : name));
  expect(files.length, asked.join(" ")).toBeLessThanOrEqual(FIRST_SCREEN.requests);
  expect(files.reduce((sum, file) => sum + gzipSync(readFileSync(file)).length, 0), asked.join(" ")).toBeLessThan(FIRST_SCREEN.bytes);
});

test("it can be installed, by a manifest and icons without fault, under a strict policy by header and in the page", async ({ playwright, launchOptions, site }) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "inpage-profile-")); // what can be installed is not asked of private windows
  const context = await playwright.chromium.launchPersistentContext(folder, { ...launchOptions, serviceWorkers: "allow" });
  try {
    const page = await context.newPage();
    const response = await page.goto(site.url);
    const meta = await page.locator("meta[http-equiv=Content-Security-Policy]").getAttribute("content");
    for (const policy of [meta, response?.headers()["content-security-policy"]]) {
      expect(policy).toContain("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'");
      expect(policy).not.toContain("unsafe-inline");
    }
    const devtools = await context.newCDPSession(page);
    const { url, errors, data } = await devtools.send("Page.getAppManifest");
    expect([new URL(url).pathname, errors]).toEqual(["/app/manifest.webmanifest", []]);
    const { icons } = JSON.parse(String(data));
    for (const { src, sizes, type } of icons.filter((/** @type {any} */ { type }) => type === "image/png")) {
      const png = readFileSync(path.join(SITE, "app", src));
      expect([png.readUInt32BE(16), png.readUInt32BE(20)].join("x"), type).toBe(sizes);
    }
    expect(icons.map((/** @type {any} */ { purpose }) => purpose)).toContain("maskable");
    expect((await devtools.send("Page.getInstallabilityErrors")).installabilityErrors).toEqual([]);
  } finally {
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
