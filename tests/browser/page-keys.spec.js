/** @file The chat page by keyboard alone; what it copies; and when it asks the browser to keep what it stores. */

import { answers, expect, test } from "./support/chat_page.js";

/** @typedef {import("@playwright/test").Page} Page */

const CODE = "Look:\n\n```js\nlet a = 1;\nlet b = 2;\n```\n\nThat is *all*.";

/** @param {Page} page @returns {Promise<string>} what has the focus */
const focused = (page) => page.evaluate(() => document.activeElement?.ariaLabel || document.activeElement?.textContent || document.activeElement?.id || "");
/** @param {Page} page @param {string} name @param {string} [key] */
async function tabTo(page, name, key = "Tab") {
  for (let n = 0; n < 40 && !(await focused(page)).startsWith(name); n++) await page.keyboard.press(key);
  expect(await focused(page)).toMatch(new RegExp(`^${name}`));
}

test("a person without a pointer asks, copies, renames and goes through the dialogs; what is downloaded is to be kept", async ({ page, context, open }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.addInitScript(() => {
    const { persist } = StorageManager.prototype;
    const scope = /** @type {any} */ (globalThis);
    scope.asked = 0;
    StorageManager.prototype.persist = function () {
      scope.asked++;
      return persist.call(this);
    };
  });
  const asked = () => page.evaluate(() => /** @type {any} */ (globalThis).asked);
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await open("", { answers: { code: CODE } });
  await expect(page.getByRole("button", { name: "Download 97 MB and start" })).toBeVisible();
  await page.keyboard.type("code"); // the box has the focus
  await page.keyboard.press("Enter");
  await expect(page.locator("#notice")).toContainText("Your question is kept");
  expect(await asked()).toBe(0); // nothing is downloaded yet
  await tabTo(page, "Download 97 MB and start", "Shift+Tab");
  await page.keyboard.press("Enter");
  await expect(page.locator(".message.assistant .actions")).toHaveCount(1);
  expect(await asked()).toBe(1);

  await tabTo(page, "Copy the code", "Shift+Tab");
  await page.keyboard.press("Enter");
  await expect.poll(clipboard).toBe("let a = 1;\nlet b = 2;");
  await tabTo(page, "Copy");
  await page.locator(".message.assistant .actions").getByRole("button", { name: "Copy" }).press("Enter");
  await expect.poll(clipboard).toBe(CODE);

  await page.getByLabel("Message", { exact: true }).focus();
  await page.keyboard.type("walk in circles");
  await page.keyboard.press("Enter");
  await expect(answers(page).nth(1)).toContainText("ended: the answer went in circles");

  // A dialog has the focus while it is open, and gives it back.
  for (const name of ["Small-135M", "Settings", "Processor"]) {
    await tabTo(page, name, "Shift+Tab");
    await page.keyboard.press("Enter");
    await expect(page.locator("dialog[open]")).toBeVisible();
    expect(await page.evaluate(() => document.activeElement?.closest("dialog") !== null)).toBe(true);
    await page.keyboard.press("Escape");
    await expect(page.locator("dialog")).toHaveCount(0);
    expect(await focused(page)).toContain(name);
  }
  await tabTo(page, "More about: code", "Shift+Tab");
  await page.keyboard.press("Enter");
  await tabTo(page, "Rename");
  await page.keyboard.press("Enter");
  await page.keyboard.type("By hand");
  await page.keyboard.press("Enter");
  await expect(page.locator("#conversations .title")).toHaveText(["By hand"]);
});
