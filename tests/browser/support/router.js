/** @file Fixtures of the router's tests: the whole stack (Pyodide, router, engine worker) over the synthetic model. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { test as base } from "./fixtures.js";
import { rememberPlainStart } from "./kept_python.js";
import { FaultServer } from "./server.js";
import { shared } from "./shared.js";

export { expect } from "@playwright/test";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const LETTERS = "\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ0123456789<>|_~^";

/** As if Python's start took so long here: however busy the machine is, its snapshot comes sooner. */
const PATIENT_MS = 100_000;
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
 * @typedef {{whole: string, sites: (isolated: boolean, snapshot: boolean) => Promise<import("./fixtures.js").Shared>}} RouterWorkerFixtures
 * @typedef {RouterWorkerFixtures & {isolated: boolean, snapshot: boolean, together: boolean}} Needs
 * @typedef {{start: (options?: Record<string, unknown>) => Promise<any>, snapshot: boolean}} RouterFixtures
 */

/**
 * What the page's Python is, where the site has it.
 * @param {string} base of the site
 * @param {string} whole the folder that whole.py made
 * @param {boolean} snapshot
 * @returns {Record<string, string>}
 */
export function pythonMounts(base, whole, snapshot) {
  const at = (/** @type {string} */ name) => path.join(whole, name);
  const { file } = JSON.parse(readFileSync(at("python.json"), "utf-8"));
  return { [`${base}inpage.zip`]: at("inpage.zip"), [`${base}python.json`]: at(snapshot ? "python.json" : "python-none.json"), [`${base}${file}`]: at(file) };
}

/** @param {string} whole @param {boolean} isolated @param {boolean} snapshot */
function serverOf(whole, isolated, snapshot) {
  const mounts = {
    ...pythonMounts(BASE, whole, snapshot),
    [BASE]: path.join(ROOT, "web"),
    ...Object.fromEntries([MODEL, ...OTHERS].map((url) => [url, whole])),
    "/tests/": path.join(ROOT, "tests"),
    "/node_modules/": path.join(ROOT, "node_modules"),
  };
  return new FaultServer(mounts, { isolated });
}

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & import("./fixtures.js").TestFixtures & RouterFixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & import("./fixtures.js").WorkerFixtures & RouterWorkerFixtures>} */
export const test = base.extend(
  /** @type {any} */ ({
    whole: [
      /** @param {{artifact: string}} fixtures @param {(value: string) => Promise<void>} use */
      async ({ artifact }, use) => {
        const script = path.join(ROOT, "tests/browser/support/whole.py");
        await use(shared("whole", (folder) => execFileSync(path.join(ROOT, ".venv/bin/python"), [script, artifact, folder], { stdio: "inherit" })));
      },
      { scope: "worker" },
    ],
    snapshot: [true, { option: true }],
    sites: [
      /** @param {{browser: import("@playwright/test").Browser, whole: string}} fixtures @param {(value: RouterWorkerFixtures["sites"]) => Promise<void>} use */
      async ({ browser, whole }, use) => {
        /** @type {Map<string, import("./fixtures.js").Shared>} */
        const opened = new Map();
        await use(async (isolated, snapshot) => {
          const key = `${isolated} ${snapshot}`;
          const known = opened.get(key);
          if (known) return known;
          const server = serverOf(whole, isolated, snapshot);
          const made = { server, origin: await server.start(), page: await (await browser.newContext()).newPage() };
          opened.set(key, made);
          return made;
        });
        for (const { server, page } of opened.values()) {
          await page.context().close();
          await server.stop();
        }
      },
      { scope: "worker" },
    ],
    /** @param {Needs} fixtures @param {(value: FaultServer) => Promise<void>} use */
    server: async ({ whole, isolated, snapshot, together, sites }, use) => {
      const server = together ? (await sites(isolated, snapshot)).server : serverOf(whole, isolated, snapshot);
      server.clear();
      await use(server);
      if (!together) await server.stop();
    },
    /** @param {Needs & {server: FaultServer}} fixtures @param {(value: string) => Promise<void>} use */
    origin: async ({ server, isolated, snapshot, together, sites }, use) => use(together ? (await sites(isolated, snapshot)).origin : await server.start()),
    /** @param {Needs & {context: import("@playwright/test").BrowserContext}} fixtures @param {(value: import("@playwright/test").Page) => Promise<void>} use */
    page: async ({ context, isolated, snapshot, together, sites }, use) => {
      if (!together) {
        await use(await context.newPage());
        return;
      }
      const { page, origin } = await sites(isolated, snapshot);
      await use(page);
      await page.unrouteAll();
      await page.goto(`${origin}/tests/browser/support/blank.html`);
      await page.evaluate(async (url) => (await import(url)).forgetAll(), `${origin}/tests/browser/support/forget.js`);
    },
    /**
     * Start InPage in the page as `globalThis.inpage`; gives its info, or {error}. With `snapshot`, as all sites have that
     * were built with Node, Python starts in a fifth of the time.
     * @param {{page: import("@playwright/test").Page, origin: string, server: FaultServer, snapshot: boolean}} fixtures
     * @param {(value: (options?: Record<string, unknown>) => Promise<any>) => Promise<void>} use
     */
    start: async ({ page, origin, server, snapshot }, use) => {
      await page.goto(`${origin}/tests/browser/support/blank.html`);
      if (snapshot) await rememberPlainStart(page, PATIENT_MS);
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
    },
  }),
);
