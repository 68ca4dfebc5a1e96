/**
 * @file Tiny models whose heads stand at the edges of attention's kernels, in every engine of the page, against numpy
 * (which `tests/compile/test_tiny_models.py` holds against PyTorch): no whole groups of 32, a single head, more heads a
 * key head than are made at once; the families that are no Llama; and kinds of rotary positions.
 * The same bits from one thread and two, and whether a prompt comes whole or by tokens.
 */

import { test as base, expect } from "@playwright/test";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./support/server.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, "build/tests/heads");
/** Of a logit, relative to the largest: in float32, and with activations of eight bits. */
const FLOAT = 2e-4;
const INT8 = 0.08;
/** @type {Record<string, {threads: number[], models: string[]}>} */
const ENGINES = {
  "wasm-relaxed": { threads: [1, 2], models: ["eighty", "three", "wide", "uneven", "qwen2", "qwen3", "yarn", "qwen3-yarn"] },
  "wasm-simd": { threads: [1, 2], models: ["eighty", "alone", "uneven", "qwen2", "linear", "llama3"] },
  "webgpu-f32": { threads: [1], models: ["eighty", "alone", "three", "wide", "uneven", "qwen2-apart", "qwen3", "llama3", "yarn"] },
};
/** The others stand natively in tests/compile too: INPAGE_SLOW=1 has them in the page. */
const USUAL = { "wasm-relaxed": ["three", "uneven", "qwen2", "yarn"], "wasm-simd": ["alone", "qwen2"], "webgpu-f32": ["qwen3", "yarn"] };
if (!process.env.INPAGE_SLOW) for (const [variant, models] of Object.entries(USUAL)) ENGINES[variant].models = models;
const MODELS = [...new Set(Object.values(ENGINES).flatMap(({ models }) => models))];
/** Weights are floats, so that activations are never rounded to eight bits. */
const FLOATS = ["alone", "linear", "llama3", "yarn", "qwen3-yarn"];
const PAGES = 64;

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {page_: import("@playwright/test").Page}>} */
const test = base.extend({
  page_: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: import("@playwright/test").Page) => Promise<void>} use */
    async ({ browser }, use) => {
      const script = path.join(ROOT, "tests/browser/support/gpu_tiny.py");
      const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
      const wanted = MODELS.map((name) => {
        const variants = Object.keys(ENGINES).filter((variant) => ENGINES[variant].models.includes(name));
        return `${name}=${variants.join(",")}`;
      });
      execFileSync(path.join(ROOT, ".venv/bin/python"), [script, OUT, ...wanted], { stdio: "inherit", env });
      const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/tiny/": OUT };
      const server = new FaultServer(mounts, { isolated: true });
      const page = await browser.newPage();
      await page.goto(`${await server.start()}/tests/browser/support/real_page.html`);
      await page.waitForFunction(() => "lab" in globalThis);
      await use(page);
      await page.close();
      await server.stop();
    },
    { scope: "worker", timeout: 600_000 }, // the first time, all models are compiled
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

for (const [variant, { threads: counts, models }] of Object.entries(ENGINES)) {
  for (const name of models) {
    test(`${variant}: ${name}`, async ({ page_: page }) => {
      /** @type {{ids: number[], logits: number[]}} */
      const { ids, logits } = JSON.parse(readFileSync(path.join(OUT, `${name}.json`), "utf8"));
      const bound = variant.startsWith("wasm") && !FLOATS.includes(name) ? INT8 : FLOAT;
      /** @type {unknown[]} */
      const traces = [];
      for (const threads of counts) {
        const engine = `${variant} ${name} ${threads}`;
        await call(page, "load", engine, { base: `/tiny/tiny-${name}`, variant, threads, contextPages: PAGES });
        await call(page, "score", engine, { ids, from: ids.length - 1, pages: pagesOf(0) });
        const found = await call(page, "lastLogits", engine, { ids, pages: pagesOf(0), tokens: logits.map((_, i) => i) });
        const worst = Math.max(...logits.map((wanted, i) => Math.abs(found[i] - wanted)));
        const relative = worst / Math.max(...logits.map(Math.abs));
        expect(relative, `on ${threads} threads`).toBeLessThan(bound);
        const traced = variant.startsWith("webgpu") ? ids.slice(0, 20) : ids; // a software GPU takes its time
        const probes = [0, 15, 16, traced.length - 2];
        for (const chunk of [ids.length, 7, 1]) {
          const sequences = [{ ids: traced, pages: pagesOf(0), probes }, { ids: ids.slice(3, 12), pages: pagesOf(1) }];
          traces.push(await call(page, "trace", engine, { sequences, chunk, decode: 3 }));
        }
        await call(page, "unload", engine);
      }
      for (const trace of traces) expect(trace).toEqual(traces[0]);
    });
  }
}
