// How the browser tests run: the system's Chromium (Playwright's own download is never needed), two at a time: a test that
// starts Python or waits for a worker leaves cores idle. INPAGE_WORKERS=1 where something is timed.
import { accessSync, constants } from "node:fs";
import path from "node:path";
import { defineConfig } from "@playwright/test";

const FLAGS = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"];
// Chromium's sandbox does not start for root.
if (process.getuid?.() === 0) FLAGS.push("--no-sandbox");

/** @returns {string} INPAGE_CHROMIUM, or the first of the usual names on the PATH */
function chromium() {
  const names = [process.env.INPAGE_CHROMIUM, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const found = names.filter((name) => name !== undefined).flatMap((name) => folders.map((folder) => path.resolve(folder, name))).find(runs);
  if (!found) throw new Error("no Chromium on the PATH: make setup installs it, or set INPAGE_CHROMIUM");
  return found;
}

/** @param {string} file */
function runs(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export default defineConfig({
  globalSetup: "./tests/browser/support/bundles.js",
  projects: [
    { name: "browser", testDir: "tests/browser" },
    { name: "bench", testDir: "tests/bench" },
  ],
  workers: Number(process.env.INPAGE_WORKERS ?? 2),
  forbidOnly: Boolean(process.env.CI),
  retries: process.env.CI ? 1 : 0, // against timeouts on an overloaded machine; the report lists what needed it as flaky
  timeout: 240_000, // a software adapter beside another test takes its time
  expect: { timeout: 60_000 },
  reporter: process.env.CI ? [["list"]] : [["line"]],
  outputDir: "test-results",
  use: {
    browserName: "chromium",
    headless: true,
    launchOptions: { executablePath: chromium(), args: FLAGS },
    trace: "off",
    screenshot: "only-on-failure",
  },
});
