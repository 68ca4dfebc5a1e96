/**
 * @file A browser whose tabs are hidden and frozen as a person's are: Playwright makes every page it controls believe that
 * it is the one in front, and such a page cannot be frozen.
 */

import { chromium } from "@playwright/test";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

import { test as base } from "./router.js";

export { expect } from "@playwright/test";

/** @param {import("node:child_process").ChildProcess} child @returns {Promise<string>} where its DevTools listen */
function endpoint(child) {
  return new Promise((resolve, reject) => {
    let said = "";
    child.stderr?.on("data", (data) => {
      said += data;
      const found = /DevTools listening on (ws:\S+)/.exec(said);
      if (found) resolve(found[1]);
    });
    child.once("exit", () => reject(new Error(`Chromium ended: ${said}`)));
  });
}

export const test = base.extend(
  /** @type {any} */ ({
    browser: [
      /** @param {{launchOptions: import("@playwright/test").LaunchOptions}} fixtures @param {(value: import("@playwright/test").Browser) => Promise<void>} use */
      async ({ launchOptions: { executablePath, args = [] } }, use) => {
        const profile = mkdtempSync(path.join(tmpdir(), "inpage-tabs-"));
        const flags = ["--headless", "--remote-debugging-port=0", `--user-data-dir=${profile}`, ...args];
        const child = spawn(/** @type {string} */ (executablePath), flags, { stdio: ["ignore", "ignore", "pipe"] });
        const ended = new Promise((resolve) => child.once("exit", resolve));
        const browser = await chromium.connectOverCDP(await endpoint(child), { noDefaults: true });
        await use(browser);
        const devtools = await browser.newBrowserCDPSession();
        devtools.send("Browser.close").catch(() => {}); // it may be gone before it answers
        await ended;
        rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
      },
      { scope: "worker" },
    ],
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: import("@playwright/test").BrowserContext) => Promise<void>} use */
    context: async ({ browser }, use) => {
      const [context] = browser.contexts();
      await use(context);
      await Promise.all(context.pages().slice(1).map((page) => page.close())); // without a tab the browser would end
    },
    /** @param {{context: import("@playwright/test").BrowserContext}} fixtures @param {(value: import("@playwright/test").Page) => Promise<void>} use */
    page: async ({ context }, use) => use(await context.newPage()),
  }),
);
