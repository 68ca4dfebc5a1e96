/** @file The example pages of the built site: each answers, with nothing from another origin and no complaint. */

import { expect, foreignProxy, test } from "./support/site.js";

/** What float32 says first, to "Why is the sky blue?" under the chat template. */
const ANSWER = /scatter/;

for (const name of process.env.INPAGE_SLOW ? ["javascript", "pyodide", "pyscript"] : ["javascript", "pyscript"]) {
  test(`${name}: a page that answers`, async ({ playwright, launchOptions, site }) => {
    const proxy = await foreignProxy();
    const args = [...(launchOptions.args ?? []), "--disable-features=AutofillServerCommunication"];
    const browser = await playwright.chromium.launch({ ...launchOptions, args });
    const page = await browser.newPage({ proxy: { server: proxy.server, bypass: "127.0.0.1" }, viewport: { width: 800, height: 500 } });
    /** @type {string[]} */
    const complaints = [];
    page.on("console", (message) => void (message.type() === "error" && complaints.push(message.text())));
    page.on("pageerror", (error) => void complaints.push(error.message));
    /** @type {Set<string>} */
    const bare = new Set(); // responses without a policy: workers take theirs from their own
    page.on("response", (response) => void (response.headers()["content-security-policy"] || bare.add(response.url())));
    await page.goto(`${site.url}examples/${name}/`);
    await expect(page.locator("#answer")).toHaveText(ANSWER, { timeout: 100_000 });
    expect(complaints).toEqual([]);
    expect([...bare].filter((url) => url.startsWith("http"))).toEqual([]);
    expect(proxy.asked).toEqual([]);
    if (process.env.INPAGE_SCREENSHOTS) await page.screenshot({ path: `${process.env.INPAGE_SCREENSHOTS}/${name}.png` });
    await browser.close();
    proxy.stop();
  });
}
