/**
 * @file Fixtures of the engine tests: the synthetic artifact (built once), a fault-injecting
 * server of its own for every test, and a page whose `lab` drives engines.
 */

import { test as base } from "@playwright/test";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { SyntheticModel } from "./model.js";
import { FaultServer } from "./server.js";

export { expect } from "@playwright/test";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PAGE = "/tests/browser/support/page.html";
export const ARTIFACT = "/artifact";

/** @returns {string} folder of the synthetic artifact, fresh for each run of a worker; the linker caches what is slow */
function buildArtifact() {
  const parent = path.join(ROOT, "build");
  const python = path.join(ROOT, ".venv/bin/python");
  mkdirSync(parent, { recursive: true });
  const folder = mkdtempSync(path.join(parent, "synthetic-"));
  execFileSync(python, [path.join(ROOT, "tests/browser/support/synthetic.py"), folder], { stdio: "inherit" });
  return folder;
}

/**
 * @typedef {import("./page.js").Lab} Lab
 * @typedef {{server: FaultServer, origin: string, isolated: boolean, manifest: any, openLab: () => Promise<import("@playwright/test").Page>, lab: import("@playwright/test").Page}} TestFixtures
 * @typedef {{artifact: string, model: SyntheticModel}} WorkerFixtures
 */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & TestFixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & WorkerFixtures>} */
export const test = base.extend({
  artifact: [
    /**
     * @param {object} fixtures @param {(value: string) => Promise<void>} use
     */
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    async ({}, use) => {
      const folder = buildArtifact();
      await use(folder);
      rmSync(folder, { recursive: true });
    },
    { scope: "worker" },
  ],
  model: [
    /** @param {WorkerFixtures} fixtures @param {(value: SyntheticModel) => Promise<void>} use */
    async ({ artifact }, use) => use(new SyntheticModel(artifact)),
    { scope: "worker" },
  ],
  isolated: [true, { option: true }],
  server: async ({ artifact, isolated }, use) => {
    const server = new FaultServer(
      { "/web/": path.join(ROOT, "web"), "/tests/browser/support/": path.join(ROOT, "tests/browser/support"), [`${ARTIFACT}/`]: artifact },
      { isolated },
    );
    await use(server);
    await server.stop();
  },
  origin: async ({ server }, use) => use(await server.start()),
  manifest: async ({ model }, use) => use(structuredClone(model.manifest)),
  openLab: async ({ context, origin }, use) =>
    use(async () => {
      const page = await context.newPage();
      await page.goto(origin + PAGE);
      await page.waitForFunction(() => "lab" in globalThis);
      return page;
    }),
  lab: async ({ openLab }, use) => use(await openLab()),
});

/**
 * Call `lab[method](...args)` in the page.
 * @param {import("@playwright/test").Page} page
 * @param {keyof Lab} method
 * @param {...unknown} args
 * @returns {Promise<any>}
 */
export function call(page, method, ...args) {
  return page.evaluate(
    ([name, list]) => /** @type {any} */ (globalThis).lab[/** @type {string} */ (name)](.../** @type {unknown[]} */ (list)),
    /** @type {const} */ ([method, args]),
  );
}
