/** @file The sampler's kernels against numpy: what the filters leave and which token a known uniform number chooses. */

import { execFileSync } from "node:child_process";
import path from "node:path";

import { expect, test } from "./support/fixtures.js";
import { ROOT } from "./support/real.js";
import { FaultServer } from "./support/server.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

test.use(WITH_WEBGPU);

test("the token is numpy's, and so is what the filters leave", async ({ page }, info) => {
  const out = info.outputPath("cases");
  const script = path.join(ROOT, "tests/browser/support/sampler_cases.py");
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  execFileSync(path.join(ROOT, ".venv/bin/python"), [script, out], { stdio: "inherit", env });
  const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/cases/": out };
  const server = new FaultServer(mounts, { isolated: false });
  await page.goto(`${await server.start()}/tests/browser/support/blank.html`);
  const report = await page.evaluate(async () => {
    const { run } = await import(/** @type {string} */ ("/tests/browser/support/sampler_page.js"));
    return /** @type {import("./support/sampler_page.js").Report} */ (await run("/cases"));
  });
  await server.stop();
  expect(report.failures).toEqual([]);
  expect(report.rows).toBeGreaterThan(150);
  expect(report.cuts).toBeGreaterThan(120);
  expect(report.refused, "by the exam").toBeGreaterThan(60);
});
