/**
 * @file The chat page whose graphics process dies while an answer is written on WebGPU, as drivers make it happen: the answer
 * goes on, and so does the person. Over the synthetic model, since the real one takes seconds a token on a software adapter.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { answers } from "./support/chat_page.js";
import { expect, test } from "./support/router.js";
import { FaultServer } from "./support/server.js";
import { SITE } from "./support/site.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

test.use(WITH_WEBGPU);

const MODEL = "/models/smollm2-135m-instruct/";
const QUERY = "?start&temperature=0&backend=webgpu&max_tokens=90";

/** Stands in the run of all tests, INPAGE_SLOW=1. */
const slowTest = process.env.INPAGE_SLOW ? test : test.skip;

slowTest("a graphics device that is lost in mid-answer is no end", async ({ page, browser, whole }) => {
  const server = new FaultServer({ [MODEL]: whole, "/": SITE }, { isolated: true });
  server.fault(`${MODEL}manifest.json`, { body: readFileSync(path.join(whole, "manifest-webgpu.json")), always: true });
  try {
    await page.goto(`${await server.start()}/index.html${QUERY}`);
    await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
    const devtools = await browser.newBrowserCDPSession();
    await page.getByLabel("Message", { exact: true }).fill("hello");
    await devtools.send("Browser.crashGpuProcess"); // the engine meets it in the answer's first steps
    await page.getByLabel("Message", { exact: true }).press("Enter");
    await expect(page.locator(".message.assistant .actions")).toHaveCount(1);
    await expect(answers(page).first().locator(".answer")).toHaveText(/\w/);
    await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
    await page.locator("#engine").click();
    await page.getByRole("button", { name: "Copy a report" }).click();
    await expect(page.getByLabel("Report", { exact: true })).toContainText(/webgpu-f32: can run: .*failed \d+ seconds ago \(device_lost/);
  } finally {
    await server.stop();
  }
});
