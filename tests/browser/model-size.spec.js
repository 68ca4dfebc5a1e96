/** @file What a visit loads besides Pyodide and the weights, gzipped: the promise is less than 1.5 MB. */

import { readFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";

import { expect, SITE, test } from "./support/site.js";

const MOST = 1_500_000;

test("everything besides Pyodide and the weights is under 1.5 MB", async ({ page, serve }) => {
  const site = await serve(SITE);
  await page.goto(`${site.url}?start&max_tokens=8`);
  await page.getByLabel("Message", { exact: true }).fill("Say hello.");
  await page.getByLabel("Message", { exact: true }).press("Enter");
  await expect(page.locator(".message.assistant .actions")).toBeVisible();

  const paths = new Set(site.requests.map((line) => new URL(line.split(" ")[1], site.url).pathname));
  expect([...paths].filter((name) => name.endsWith(".bin")).length).toBeGreaterThan(1); // nothing came from a cache
  const files = [...paths]
    .map((name) => (name.endsWith("/") ? `${name}index.html` : name))
    .filter((name) => !name.startsWith("/vendor/pyodide/") && (!name.endsWith(".bin") || name.endsWith("tokenizer.bin")))
    .map((name) => {
      const content = readFileSync(path.join(SITE, name));
      return { name, bytes: content.length, gzip: gzipSync(content).length };
    })
    .sort((a, b) => b.gzip - a.gzip);
  const total = files.reduce((sum, { gzip }) => sum + gzip, 0);
  const line = (/** @type {number} */ gzip, /** @type {number | string} */ bytes, /** @type {string} */ name) =>
    `${String(gzip).padStart(9)} ${String(bytes).padStart(9)}  ${name}`;
  console.log(
    ["     gzip     bytes", ...files.map(({ name, bytes, gzip }) => line(gzip, bytes, name)), line(total, "", "in all")].join("\n"),
  );
  for (const needed of ["/index.html", "/inpage.zip", "/engine/worker.js", "/router/worker.js"]) {
    expect(files.map(({ name }) => name)).toContain(needed);
  }
  expect(files.some(({ name }) => name.endsWith("kernels.wasm"))).toBe(true);
  expect(files.filter(({ name }) => /tokenizer\.(bin|json)$/.test(name)).map(({ name }) => path.basename(name))).toEqual(["tokenizer.bin"]);
  expect(total).toBeLessThan(MOST);
  // Each is a question to the host, at every visit.
  const scripts = files.filter(({ name }) => name.endsWith(".js") && name !== "/sw.js");
  expect(scripts.length).toBeLessThan(16);
});
