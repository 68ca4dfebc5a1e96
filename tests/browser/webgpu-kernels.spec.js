/** @file Every kernel for WebGPU against numpy, on the software adapter that Chromium brings: see gpu_content.py. */

import { test as base, expect } from "@playwright/test";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./support/server.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, `build/tests/gpu-kernels${process.env.INPAGE_SLOW ? "-slow" : ""}`);
/** Families of cases by the set that they are in, and what else that needs: where matrix units are emulated, float16 is float32. */
const SETS = {
  float32: { families: ["linear", "gated", "embed", "rows", "append", "attention", "short_conv", "int8"], limits: {} },
  emulated: { families: ["units"], limits: { maxComputeWorkgroupStorageSize: 32768 } },
};

/** @typedef {{page: import("@playwright/test").Page}} Kernels */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {kernels: Kernels}>} */
const test = base.extend({
  kernels: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: Kernels) => Promise<void>} use */
    async ({ browser }, use) => {
      const script = path.join(ROOT, "tests/browser/support/gpu_cases.py");
      const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
      execFileSync(path.join(ROOT, ".venv/bin/python"), [script, OUT], { stdio: "inherit", env });
      const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/kernels/": OUT };
      const server = new FaultServer(mounts, { isolated: true });
      const page = await browser.newPage();
      await page.goto(`${await server.start()}/tests/browser/support/blank.html`);
      await page.evaluate(async (sets) => {
        const lab = "/tests/browser/support/gpu_lab.js";
        const { GpuLab } = /** @type {typeof import("./support/gpu_lab.js")} */ (await import(lab));
        /** @type {Record<string, import("./support/gpu_lab.js").GpuLab>} */
        const labs = {};
        for (const [name, { limits }] of Object.entries(sets)) labs[name] = await GpuLab.load(`/kernels/${name}`, await navigator.gpu.requestAdapter(), limits);
        Object.assign(globalThis, { labs });
      }, SETS);
      await use({ page });
      await page.close();
      await server.stop();
    },
    { scope: "worker", timeout: process.env.INPAGE_SLOW ? 600_000 : 120_000 },
  ],
});

test.use(WITH_WEBGPU);

for (const [set, { families }] of Object.entries(SETS)) {
  for (const family of families) {
    test(`${set}: ${family}`, async ({ kernels }) => {
      const found = await kernels.page.evaluate(async ([set, name]) => {
        const { labs } = /** @type {{labs: Record<string, import("./support/gpu_lab.js").GpuLab>}} */ (/** @type {unknown} */ (globalThis));
        return { families: labs[set].families(), report: await labs[set].run(name) };
      }, [set, family]);
      expect(found.families).toEqual(families);
      expect(found.report.failures).toEqual([]);
      expect(found.report.cases).toBeGreaterThan(1);
      expect(found.report.elements).toBeGreaterThan(found.report.cases);
    });
  }
}
