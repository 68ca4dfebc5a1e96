/**
 * @file The npm package as a stranger uses it: packed, installed into fresh projects, built by Vite and by webpack, copied
 * for a page without a bundler. Each answers below a sub-path, and asks no other origin for anything.
 */

import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { expect, prompt, test as base, text } from "./support/router.js";
import { FaultServer } from "./support/server.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const SLOW = Boolean(process.env.INPAGE_SLOW);
const PROJECTS = {
  vite: "examples/vite-react",
  webpack: "tests/npm/webpack",
  plain: "examples/plain-html",
  ...(SLOW ? { next: "examples/next" } : {}),
};
const QUESTION = "hello";

/** @param {string} folder @param {string} command @param {...string} args @returns {string} what it printed */
function run(folder, command, ...args) {
  const env = { ...process.env, VITE_MODEL: "synthetic", NEXT_PUBLIC_MODEL: "synthetic", NEXT_TELEMETRY_DISABLED: "1", npm_config_audit: "false", npm_config_fund: "false", npm_config_loglevel: "error" };
  try {
    return execFileSync(command, args, { cwd: folder, encoding: "utf-8", stdio: ["ignore", "pipe", "pipe"], env });
  } catch (error) {
    const { stdout, stderr } = /** @type {{stdout: string, stderr: string}} */ (error);
    throw new Error(`${command} ${args.join(" ")} in ${folder}:\n${stdout}\n${stderr}`, { cause: error });
  }
}

/** @type {import("@playwright/test").TestType<any, any>} */
const test = base.extend(
  /** @type {any} */ ({
    /** A folder outside of the checkout with the projects, the package installed in each from its archive. */
    projects: [
      /** @param {{whole: string}} fixtures @param {(value: string) => Promise<void>} use */
      async ({ whole }, use) => {
        run(ROOT, path.join(ROOT, ".venv/bin/python"), "tools/package.py");
        const archive = readdirSync(path.join(ROOT, "build")).find((name) => /^inpage-.*\.tgz$/.test(name));
        const folder = mkdtempSync(path.join(os.tmpdir(), "inpage-npm-"));
        for (const [name, source] of Object.entries(PROJECTS)) {
          const project = path.join(folder, name);
          cpSync(path.join(ROOT, source), project, { recursive: true, filter: (file) => !/\/(node_modules|dist|inpage)$/.test(file) });
          if (name !== "plain") run(project, "npm", "ci", "--ignore-scripts");
          run(project, "npm", "install", "--no-save", path.join(ROOT, "build", String(archive)));
        }
        cpSync(whole, path.join(folder, "vite/public/models/synthetic"), { recursive: true });
        await use(folder);
        rmSync(folder, { recursive: true });
      },
      { scope: "worker", timeout: 240_000 },
    ],
    /** URL of the Vite project as its development server has it. */
    developed: async (/** @type {{projects: string}} */ { projects }, /** @type {(value: string) => Promise<void>} */ use) => {
      const env = { ...process.env, VITE_MODEL: "synthetic", NO_COLOR: "1", FORCE_COLOR: undefined };
      const args = ["node_modules/vite/bin/vite.js", "--host", "127.0.0.1", "--port", "0"];
      const vite = spawn("node", args, { cwd: path.join(projects, "vite"), env, stdio: ["ignore", "pipe", "inherit"] });
      const url = new Promise((resolve, reject) => {
        createInterface(vite.stdout).on("line", (line) => {
          const found = /http:\/\/127\.0\.0\.1:\d+\//.exec(line);
          if (found) resolve(found[0]);
        });
        vite.once("exit", (code) => reject(new Error(`vite ended with ${code}`)));
      });
      try {
        await use(/** @type {string} */ (await url));
      } finally {
        vite.kill();
      }
    },
  }),
);

/** @param {any} model @returns {string} the greedy answer to the question */
function expected(model) {
  const tokens = model.greedy(prompt(QUESTION), 60);
  const stop = tokens.indexOf(2);
  return text(stop < 0 ? tokens : tokens.slice(0, stop + 1));
}

/** The code of the documentation, as modules of a project. @param {string} folder */
function writeSnippets(folder) {
  for (const file of ["README.md", "docs/embedding.md"]) {
    const found = [...readFileSync(path.join(ROOT, file), "utf-8").matchAll(/^```(js|tsx?)\n(.*?)^```$/gms)];
    expect(found.length, file).toBeGreaterThan(0);
    found.forEach(([, kind, code], i) => writeFileSync(path.join(folder, `${path.basename(file, ".md")}${i}.${kind === "js" ? "ts" : kind}`), code));
  }
}

/** Ask by the page's form. @param {import("@playwright/test").Page} page */
async function ask(page) {
  await page.getByRole("textbox").fill(QUESTION);
  await expect(page.getByRole("status")).toHaveText(/^wasm-/);
  await page.getByRole("button").click();
}

test("built by Vite and by webpack, or copied, the package answers below a sub-path", async ({ page, projects, whole, model }) => {
  writeSnippets(path.join(projects, "vite/src"));
  run(path.join(projects, "vite"), "npm", "run", "build"); // checks the types first
  run(path.join(projects, "webpack"), "node", "build.js");
  run(path.join(projects, "plain"), "npm", "run", "copy");
  const server = new FaultServer(
    {
      "/a/b/vite/": path.join(projects, "vite/dist"),
      "/a/b/webpack/": path.join(projects, "webpack/dist"),
      "/a/b/webpack/index.html": path.join(ROOT, "tests/browser/support/blank.html"),
      "/a/b/plain/": path.join(projects, "plain"),
      "/a/b/plain/models/synthetic/": whole,
      "/a/b/webpack/models/synthetic/": whole,
    },
    { isolated: true },
  );
  const origin = await server.start();
  /** @type {string[]} */
  const elsewhere = [];
  page.context().on("request", (/** @type {import("@playwright/test").Request} */ request) => void (request.url().startsWith(origin) || elsewhere.push(request.url())));

  await page.goto(`${origin}/a/b/vite/index.html`);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model).trim());

  await page.goto(`${origin}/a/b/plain/index.html?model=synthetic`);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model).trim());
  const refused = await page.evaluate(async (/** @type {string} */ url) => {
    const { InPage } = await import(url);
    const inpage = await InPage.start({ model: "synthetic" });
    try {
      for await (const piece of inpage.chat("hello", { regex: "[ab]{5}" })) return piece;
    } catch (error) {
      const { code, field, message } = /** @type {any} */ (error);
      return { code, field, message };
    }
  }, `${origin}/a/b/plain/inpage/inpage.js`);
  expect(refused).toMatchObject({ code: "unsupported", message: expect.stringContaining('import "inpage/grammar"') });
  expect(server.log.filter(({ path }) => path.includes("grammar"))).toEqual([]);

  await page.goto(`${origin}/a/b/webpack/index.html`);
  await page.addScriptTag({ type: "module", url: "main.js" });
  await page.waitForFunction(() => "InPage" in globalThis);
  const held = await page.evaluate(async () => {
    const { InPage } = /** @type {any} */ (globalThis);
    const inpage = await InPage.start({ model: "synthetic" });
    let held = "";
    for await (const piece of inpage.chat("hello", { regex: "[ab]{5}", max_tokens: 20 })) held += piece.text;
    return held;
  });
  expect(held).toMatch(/^[ab]{5}$/);
  expect(elsewhere).toEqual([]);
  await server.stop();
});

(SLOW ? test : test.skip)("Next's static export answers", async ({ page, projects, whole, model }) => {
  run(path.join(projects, "next"), "npm", "run", "build");
  const server = new FaultServer({ "/": path.join(projects, "next/out"), "/models/synthetic/": whole }, { isolated: true });
  server.policy = server.policy.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'"); // Next writes scripts into its pages
  await page.goto(`${await server.start()}/index.html`);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model).trim());
  await server.stop();
});

test("Vite's development server needs no configuration", async ({ page, developed, model }) => {
  let routers = 0;
  page.on("worker", (/** @type {import("@playwright/test").Worker} */ worker) => void (routers += Number(worker.url().includes("/files/router.js"))));
  await page.goto(developed);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model).trim());
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  expect(routers, "StrictMode mounts twice").toBe(1);
});
