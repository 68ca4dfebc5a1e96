/** @file Every kernel in Chromium against numpy, as both instruction sets, at random and at extreme inputs. */

import { test as base, expect } from "@playwright/test";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./support/server.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, `build/tests/page-kernels${process.env.INPAGE_SLOW ? "-slow" : ""}`);
const FAMILIES = ["linear", "gated", "embed", "norm", "parts", "append", "attention"];

/** @typedef {{run: (variant: string, family: string) => Promise<import("./support/kernels_page.js").Report>}} Kernels */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {kernels: Kernels}>} */
const test = base.extend({
  kernels: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: Kernels) => Promise<void>} use */
    async ({ browser }, use) => {
      const script = path.join(ROOT, "tests/browser/support/kernel_cases.py");
      const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
      execFileSync(path.join(ROOT, ".venv/bin/python"), [script, OUT], { stdio: "inherit", env });
      const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/kernels/": OUT };
      const server = new FaultServer(mounts, { isolated: true });
      const origin = await server.start();
      /** @type {Map<string, import("@playwright/test").Page>} */
      const pages = new Map();
      /** @param {string} variant */
      const open = async (variant) => {
        const page = await browser.newPage();
        await page.goto(`${origin}/tests/browser/support/kernels_page.html`);
        await page.waitForFunction(() => "lab" in globalThis);
        const families = await page.evaluate((url) => /** @type {any} */ (globalThis).lab.load(url), `/kernels/${variant}`);
        expect(Object.keys(families).sort()).toEqual([...FAMILIES].sort());
        pages.set(variant, page);
        return page;
      };
      await use({
        async run(variant, family) {
          const page = pages.get(variant) ?? (await open(variant));
          return page.evaluate((name) => /** @type {any} */ (globalThis).lab.run(name), family);
        },
      });
      for (const page of pages.values()) await page.close();
      await server.stop();
    },
    { scope: "worker", timeout: 400_000 }, // the first time, all kernels are compiled
  ],
});

for (const variant of ["wasm-relaxed", "wasm-simd"]) {
  for (const family of FAMILIES) {
    test(`${variant}: ${family}`, async ({ kernels }) => {
      const report = await kernels.run(variant, family);
      expect(report.failures).toEqual([]);
      expect(report.cases).toBeGreaterThan(1);
      expect(report.elements).toBeGreaterThan(report.cases);
    });
  }
}
