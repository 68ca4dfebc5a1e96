/** @file Every kernel for WebGPU against numpy, on the software adapter that Chromium brings: see gpu_content.py. */

import { test as base, expect } from "@playwright/test";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./support/server.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, `build/tests/gpu-kernels${process.env.INPAGE_SLOW ? "-slow" : ""}`);
const FAMILIES = ["linear", "gated", "embed", "rows", "append", "attention", "short_conv", "int8"];

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
      await page.evaluate(async () => {
        const lab = "/tests/browser/support/gpu_lab.js";
        const { GpuLab } = /** @type {typeof import("./support/gpu_lab.js")} */ (await import(lab));
        Object.assign(globalThis, { lab: await GpuLab.load("/kernels/float32", await navigator.gpu.requestAdapter()) });
      });
      await use({ page });
      await page.close();
      await server.stop();
    },
    { scope: "worker", timeout: process.env.INPAGE_SLOW ? 600_000 : 120_000 },
  ],
});

test.use(WITH_WEBGPU);

for (const family of FAMILIES) {
  test(`webgpu-f32: ${family}`, async ({ kernels }) => {
    const { families, report } = await kernels.page.evaluate(async (name) => {
      const { lab } = /** @type {{lab: import("./support/gpu_lab.js").GpuLab}} */ (/** @type {unknown} */ (globalThis));
      return { families: lab.families(), report: await lab.run(name) };
    }, family);
    expect(families).toEqual(FAMILIES);
    expect(report.failures).toEqual([]);
    expect(report.cases).toBeGreaterThan(1);
    expect(report.elements).toBeGreaterThan(report.cases);
  });
}
