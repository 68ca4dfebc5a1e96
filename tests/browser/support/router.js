/** @file Fixtures of the router's tests: the whole stack (Pyodide, router, engine worker) over the synthetic model. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { test as base } from "./fixtures.js";
import { isKept, putPython, takePython } from "./kept_python.js";
import { FaultServer } from "./server.js";

export { expect } from "@playwright/test";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const LETTERS = "\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ0123456789<>|_~^";

/** Where the site and the model lie on the test's server. */
export const BASE = "/web/";
export const MODEL = "/model/";
/** The same model again, under other names. */
export const OTHERS = ["/second/", "/third/"];

/** @param {string} text @returns {number[]} ids of a text that spells no control token */
export function ids(text) {
  return Array.from(text, (letter) => LETTERS.indexOf(letter) + 3);
}

/** @param {number[]} tokens @returns {string} */
export function text(tokens) {
  return tokens.map((id) => (id < 3 ? "" : LETTERS[id - 3])).join("");
}

/** @param {string} content @returns {number[]} the prompt of one user message */
export function prompt(content) {
  return [1, ...ids(`user\n${content}`), 2, ...ids("\n"), 1, ...ids("assistant\n")];
}

/**
 * @typedef {{whole: string}} RouterWorkerFixtures
 * @typedef {{start: (options?: Record<string, unknown>) => Promise<any>, keptPython: boolean}} RouterFixtures
 */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & import("./fixtures.js").TestFixtures & RouterFixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & import("./fixtures.js").WorkerFixtures & RouterWorkerFixtures>} */
export const test = base.extend(
  /** @type {any} */ ({
    whole: [
      /** @param {{artifact: string}} fixtures @param {(value: string) => Promise<void>} use */
      async ({ artifact }, use) => {
        const folder = mkdtempSync(path.join(ROOT, "build", "whole-"));
        const script = path.join(ROOT, "tests/browser/support/whole.py");
        execFileSync(path.join(ROOT, ".venv/bin/python"), [script, artifact, folder], { stdio: "inherit" });
        await use(folder);
        rmSync(folder, { recursive: true });
      },
      { scope: "worker" },
    ],
    keptPython: [true, { option: true }],
    /** @param {{whole: string, isolated: boolean}} fixtures @param {(value: FaultServer) => Promise<void>} use */
    server: async ({ whole, isolated }, use) => {
      const mounts = {
        [BASE]: path.join(ROOT, "web"),
        ...Object.fromEntries([MODEL, ...OTHERS].map((url) => [url, whole])),
        "/web/inpage.zip": path.join(whole, "inpage.zip"),
        "/tests/": path.join(ROOT, "tests"),
        "/node_modules/": path.join(ROOT, "node_modules"),
      };
      const server = new FaultServer(mounts, { isolated });
      await use(server);
      await server.stop();
    },
    /**
     * Start InPage in the page as `globalThis.inpage`; gives its info, or {error}. With `keptPython`, Python's memory is
     * there as after an earlier visit.
     * @param {{page: import("@playwright/test").Page, origin: string, whole: string, server: FaultServer, keptPython: boolean}} fixtures
     * @param {(value: (options?: Record<string, unknown>) => Promise<any>) => Promise<void>} use
     * @param {import("@playwright/test").TestInfo} info
     */
    start: async ({ page, origin, whole, server, keptPython }, use, info) => {
      await page.goto(`${origin}/tests/browser/support/blank.html`);
      const kept = keptPython && isKept(whole);
      if (kept) await putPython(page, MODEL);
      server.log = [];
      await use((options = {}) =>
        page.evaluate(
          async ([base, model, more]) => {
            const scope = /** @type {any} */ (globalThis);
            const { InPage } = await import(`${base}client/inpage.js`);
            scope.progress = [];
            /** @param {any} event */
            const onProgress = (event) => scope.progress.push(event);
            try {
              scope.inpage = await InPage.start({ base, model, onProgress, .../** @type {object} */ (more) });
              return scope.inpage.info;
            } catch (error) {
              const { code, message, field } = /** @type {any} */ (error);
              return { error: { code, message, field } };
            }
          },
          /** @type {const} */ ([BASE, MODEL, options]),
        ),
      );
      if (keptPython && !kept && !page.isClosed() && info.status === info.expectedStatus) await takePython(page, whole);
    },
  }),
);
