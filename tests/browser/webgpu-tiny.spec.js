/**
 * @file Tiny models on WebGPU against numpy, K-quants, matrices that cannot be fused and nine heads on three among them;
 * and the same bits whether a prompt comes whole, in pieces or token by token, alone or beside others.
 */

import { test as base, expect } from "@playwright/test";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./support/server.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, "build/tests/gpu-tiny");
const MODELS = process.env.INPAGE_SLOW ? ["q4_k_m", "q5_k", "apart", "nine"] : ["q4_k_m"];
/** Of a logit, relative to the largest: in float32 a last bit now and then sends a key to the neighbouring half. */
const ERROR = 2e-4;
const PAGES = 64;

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {page_: import("@playwright/test").Page}>} */
const test = base.extend({
  page_: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: import("@playwright/test").Page) => Promise<void>} use */
    async ({ browser }, use) => {
      const script = path.join(ROOT, "tests/browser/support/gpu_tiny.py");
      const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
      execFileSync(path.join(ROOT, ".venv/bin/python"), [script, OUT, ...MODELS.map((name) => `${name}=webgpu-f32`)], { stdio: "inherit", env });
      const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/tiny/": OUT };
      const server = new FaultServer(mounts, { isolated: true });
      const page = await browser.newPage();
      await page.goto(`${await server.start()}/tests/browser/support/real_page.html`);
      await page.waitForFunction(() => "lab" in globalThis);
      await use(page);
      await page.close();
      await server.stop();
    },
    { scope: "worker", timeout: 120_000 },
  ],
});

test.use(WITH_WEBGPU);

/**
 * @template {keyof import("./support/real_page.js").RealLab} M
 * @param {import("@playwright/test").Page} page
 * @param {M} method
 * @param {Parameters<import("./support/real_page.js").RealLab[M]>} args
 * @returns {Promise<Awaited<ReturnType<import("./support/real_page.js").RealLab[M]>>>}
 */
const call = (page, method, ...args) =>
  page.evaluate(
    ([name, list]) => /** @type {any} */ (globalThis).lab[/** @type {string} */ (name)](.../** @type {unknown[]} */ (list)),
    /** @type {const} */ ([method, args]),
  );

/** Five pages of a sequence, in no order. @param {number} i @returns {number[]} */
const pagesOf = (i) => Array.from({ length: 5 }, (_, k) => (13 * (5 * i + k)) % PAGES);

for (const name of MODELS) {
  test(`${name}: numpy's logits, and the same bits under every circumstance`, async ({ page_: page }) => {
    /** @type {{ids: number[], logits: number[]}} */
    const { ids, logits } = JSON.parse(readFileSync(path.join(OUT, `${name}.json`), "utf8"));
    await call(page, "load", name, { base: `/tiny/tiny-${name}`, variant: "webgpu-f32", threads: 1, contextPages: PAGES });
    await call(page, "score", name, { ids, from: ids.length - 1, pages: pagesOf(0) }); // leaves all but the last in the pages
    const found = await call(page, "lastLogits", name, { ids, pages: pagesOf(0), tokens: logits.map((_, i) => i) });
    const largest = Math.max(...logits.map(Math.abs));
    const worst = Math.max(...logits.map((wanted, i) => Math.abs(found[i] - wanted)));
    console.log(`${name}: logits off by ${(worst / largest).toExponential(1)} of the largest at most`);
    expect(worst).toBeLessThan(ERROR * largest);

    await call(page, "movePages", name, { from: pagesOf(0), to: pagesOf(5) });
    const moved = await call(page, "lastLogits", name, { ids, pages: pagesOf(5), tokens: logits.map((_, i) => i) });
    expect(moved, "from pages that were read and written back elsewhere").toEqual(found);

    const probes = [0, 15, 16, 17, ids.length - 2];
    /** @param {number} beside neighbours of other lengths @param {number} chunk */
    const trace = (beside, chunk) => {
      const others = Array.from({ length: beside }, (_, i) => ({ ids: ids.slice(i + 1, i + 10), pages: pagesOf(i + 1) }));
      return call(page, "trace", name, { sequences: [{ ids, pages: pagesOf(0), probes }, ...others], chunk, decode: 4 });
    };
    const wanted = await trace(0, ids.length); // in the kernels of a prompt
    expect(Object.keys(wanted.probes)).toHaveLength(probes.length);
    expect(await trace(0, 1), "token by token").toEqual(wanted);
    expect(await trace(3, 7), "in pieces, beside three").toEqual(wanted);
  });
}
