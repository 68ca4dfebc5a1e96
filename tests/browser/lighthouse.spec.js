/**
 * @file The built site by Lighthouse, which `make test` installs into tests/lighthouse: the first screen as it loads on a
 * phone, and a conversation as it stands. Its score of speed is not asked for here: it depends on the machine.
 */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { expect, test } from "./support/site.js";

const MODULES = fileURLToPath(new URL("../lighthouse/node_modules", import.meta.url));
const CATEGORIES = { onlyCategories: ["accessibility", "best-practices"] };
const CONVERSATION = `# The sky

<!-- inpage: user -->
## You

Why is the sky **blue**?

<!-- inpage: assistant -->
## Answer

<think>Air.</think>Air scatters short waves ([more](https://other.example/)).

| light | scattered |
|:--|--:|
| blue | much |

\`\`\`python
print("blue")  # and so on
\`\`\`

- [x] done
`;

/** @param {string} name @returns {Promise<any>} */
const module = (name) => import(pathToFileURL(path.join(MODULES, name)).href);

/** @param {any} lhr @returns {{scores: Record<string, number>, audits: number, lost: string[]}} lost: what costs points */
function read(lhr) {
  const all = Object.values(lhr.categories).flatMap(({ auditRefs }) => auditRefs).filter(({ weight }) => weight > 0).map(({ id }) => lhr.audits[id]);
  const counted = all.filter(({ score }) => score !== null);
  const lost = counted.filter(({ score }) => score < 1).map(({ id, details }) => `${id}: ${JSON.stringify(details?.items ?? []).slice(0, 500)}`);
  return { scores: Object.fromEntries(Object.values(lhr.categories).map(({ id, score }) => [id, score])), audits: counted.length, lost };
}

test("Lighthouse finds nothing wrong with the first screen and with a conversation", async ({ playwright, launchOptions, site }) => {
  const { default: lighthouse, snapshot } = await module("lighthouse/core/index.js");
  const { default: puppeteer } = await module("puppeteer-core/lib/esm/puppeteer/puppeteer-core.js");
  const folder = mkdtempSync(path.join(os.tmpdir(), "inpage-profile-"));
  const args = [...(launchOptions.args ?? []), "--remote-debugging-port=0"];
  const context = await playwright.chromium.launchPersistentContext(folder, { ...launchOptions, args });
  try {
    const port = Number(readFileSync(path.join(folder, "DevToolsActivePort"), "utf-8").split("\n")[0]);
    const first = read((await lighthouse(site.url, { port, logLevel: "error", throttlingMethod: "provided", ...CATEGORIES })).lhr);

    const page = await context.newPage();
    await page.goto(site.url);
    await page.locator("#import-file").setInputFiles({ name: "sky.md", mimeType: "text/markdown", buffer: Buffer.from(CONVERSATION) });
    await expect(page.locator(".message.assistant td")).toHaveCount(2);
    const browser = await puppeteer.connect({ browserURL: `http://127.0.0.1:${port}`, defaultViewport: null });
    const tab = (await browser.pages()).findLast((/** @type {any} */ each) => each.url().startsWith(site.url));
    const second = read((await snapshot(tab, { flags: { logLevel: "error", formFactor: "desktop", screenEmulation: { disabled: true }, ...CATEGORIES } })).lhr);
    await browser.disconnect();

    for (const [state, { scores, audits, lost }] of Object.entries({ first, second })) {
      expect(lost, state).toEqual([]);
      expect(scores.accessibility, state).toBe(1);
      expect(scores["best-practices"], state).toBeGreaterThanOrEqual(0.95);
      expect(audits, state).toBeGreaterThan(15); // it saw a page
    }
  } finally {
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
