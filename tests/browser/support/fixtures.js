/**
 * @file Fixtures of the engine tests: the synthetic artifact (built once a run), a fault-injecting
 * server of its own for every test, and a page whose `lab` drives engines.
 */

import { test as base } from "@playwright/test";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { SyntheticModel } from "./model.js";
import { FaultServer } from "./server.js";
import { shared } from "./shared.js";

export { expect } from "@playwright/test";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PAGE = "/tests/browser/support/page.html";
export const ARTIFACT = "/artifact";

/** @param {string} folder for the synthetic artifact */
function buildArtifact(folder) {
  const script = path.join(ROOT, "tests/browser/support/synthetic.py");
  execFileSync(path.join(ROOT, ".venv/bin/python"), [script, folder], { stdio: "inherit" });
}

/** @param {string} artifact folder @param {boolean} isolated */
function serverOf(artifact, isolated) {
  const support = "/tests/browser/support/";
  return new FaultServer({ "/web/": path.join(ROOT, "web"), [support]: path.join(ROOT, support), [`${ARTIFACT}/`]: artifact }, { isolated });
}

/** @param {import("@playwright/test").BrowserContext} context @param {string} origin */
async function labOf(context, origin) {
  const page = await context.newPage();
  await page.goto(origin + PAGE);
  await page.waitForFunction(() => "lab" in globalThis);
  return page;
}

/**
 * @typedef {import("./page.js").Lab} Lab
 * @typedef {{server: FaultServer, origin: string, page: import("@playwright/test").Page}} Shared
 * @typedef {{server: FaultServer, origin: string, isolated: boolean, together: boolean, manifest: any, openLab: () => Promise<import("@playwright/test").Page>, lab: import("@playwright/test").Page}} TestFixtures
 * @typedef {{artifact: string, model: SyntheticModel, labs: (isolated: boolean) => Promise<Shared>}} WorkerFixtures
 */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & TestFixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & WorkerFixtures>} */
export const test = base.extend({
  artifact: [
    /**
     * @param {object} fixtures @param {(value: string) => Promise<void>} use
     */
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    async ({}, use) => use(shared("synthetic", buildArtifact)),
    { scope: "worker" },
  ],
  model: [
    /** @param {WorkerFixtures} fixtures @param {(value: SyntheticModel) => Promise<void>} use */
    async ({ artifact }, use) => use(new SyntheticModel(artifact)),
    { scope: "worker" },
  ],
  labs: [
    /** @param {WorkerFixtures & {browser: import("@playwright/test").Browser}} fixtures @param {(value: WorkerFixtures["labs"]) => Promise<void>} use */
    async ({ browser, artifact }, use) => {
      /** @type {Map<boolean, Shared>} */
      const opened = new Map();
      await use(async (isolated) => {
        const known = opened.get(isolated);
        if (known) return known;
        const server = serverOf(artifact, isolated);
        const origin = await server.start();
        const made = { server, origin, page: await labOf(await browser.newContext(), origin) };
        opened.set(isolated, made);
        return made;
      });
      for (const { server, page } of opened.values()) {
        await page.context().close();
        await server.stop();
      }
    },
    { scope: "worker" },
  ],
  isolated: [true, { option: true }],
  /** The file's tests have one page and one server, one after the other: nothing is loaded or stored when a test begins. */
  together: [false, { option: true }],
  server: async ({ artifact, isolated, together, labs }, use) => {
    if (together) {
      const { server } = await labs(isolated);
      server.clear();
      await use(server);
      return;
    }
    const server = serverOf(artifact, isolated);
    await use(server);
    await server.stop();
  },
  origin: async ({ server, isolated, together, labs }, use) => use(together ? (await labs(isolated)).origin : await server.start()),
  manifest: async ({ model }, use) => use(structuredClone(model.manifest)),
  openLab: async ({ context, origin }, use) => use(() => labOf(context, origin)),
  lab: async ({ openLab, isolated, together, labs }, use) => {
    if (!together) {
      await use(await openLab());
      return;
    }
    const { page } = await labs(isolated);
    await use(page);
    await page.evaluate(() => /** @type {any} */ (globalThis).lab.clear());
  },
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
