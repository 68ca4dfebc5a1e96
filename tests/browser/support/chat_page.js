/** @file The chat page over a scripted model (scripted_inpage.js): what the page does, without Python and weights. */

import { test as base } from "@playwright/test";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./server.js";

export { expect } from "@playwright/test";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const WEB = path.join(ROOT, "web");
export const MODELS = [
  { id: "small", name: "Small-135M", path: "models/small/", bytes: 97e6, license: "Apache-2.0", context: 8192, parameters: 134_515_008 },
  { id: "large", name: "Large-7B", path: "models/large/", bytes: 7.2e9, license: "MIT", context: 32768, parameters: 7e9, levels: [{ name: "q8_0", bytes: 7.2e9 }, { name: "q4_1", bytes: 4.1e9, cost: 0.027 }] },
];

/** @typedef {import("@playwright/test").Page} Page */
/** @typedef {(query?: string, script?: import("./scripted_inpage.js").Script) => Promise<Page>} Open */

export const test = base.extend(
  /** @type {import("@playwright/test").Fixtures<{open: Open, chatServer: FaultServer, chatUrl: string}, {}, import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions>} */ ({
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    chatServer: async ({}, use) => {
      const parts = Object.fromEntries(["app", "client", "engine", "router", "vendor"].map((name) => [`/${name}/`, path.join(WEB, name)]));
      const mounts = { ...parts, "/web/": WEB, "/index.html": path.join(WEB, "app/index.html"), "/client/inpage.js": path.join(ROOT, "tests/browser/support/scripted_inpage.js") };
      const server = new FaultServer(mounts, { isolated: true });
      server.fault("/site.json", { status: 200, body: Buffer.from(JSON.stringify({ models: MODELS })), always: true });
      await use(server);
      await server.stop();
    },
    chatUrl: async ({ chatServer }, use) => use(`${await chatServer.start()}/index.html`),
    open: async ({ page, chatUrl }, use) =>
      use(async (query = "?start", script = {}) => {
        await page.addInitScript((given) => Object.assign(globalThis, { script: given }), script);
        await page.goto(chatUrl + query);
        return page;
      }),
  }),
);

/** @param {Page} page @param {string} question */
export async function ask(page, question) {
  await page.getByLabel("Message", { exact: true }).fill(question);
  await page.getByLabel("Message", { exact: true }).press("Enter");
}

/** @param {Page} page */
export const answers = (page) => page.locator(".message.assistant");

/** What the scripted model was asked. @param {Page} page @returns {Promise<any[]>} */
export const asked = (page) => page.evaluate(() => /** @type {any} */ (globalThis).script.asked);

/** Messages as this browser's storage has them, the oldest first. @param {Page} page @returns {Promise<any[]>} */
export const messages = (page) =>
  page.evaluate(async () => {
    /** @type {IDBDatabase} */
    const database = await new Promise((resolve) => {
      const opening = indexedDB.open("inpage-conversations", 1);
      opening.onsuccess = () => resolve(opening.result);
    });
    /** @type {any[]} */
    const rows = await new Promise((resolve) => {
      const asking = database.transaction("messages").objectStore("messages").getAll();
      asking.onsuccess = () => resolve(asking.result);
    });
    database.close();
    return rows.sort((a, b) => a.created - b.created);
  });
