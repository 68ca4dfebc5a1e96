/**
 * @file The npm package as a stranger uses it: packed, installed into fresh projects, built by Vite and by webpack, copied
 * for a page without a bundler. Each answers below a sub-path, and asks no other origin for anything.
 */

import { cpSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

import { plainServer } from "./support/plain.js";
import { developed, elsewhere, expect, expected, QUESTION, ROOT, run, test } from "./support/projects.js";
import { FaultServer } from "./support/server.js";

const SLOW = Boolean(process.env.INPAGE_SLOW);

/** @param {(source: string) => string} project @param {string} whole @returns {string} the example, with the model */
function viteProject(project, whole) {
  const folder = project("examples/vite-react");
  cpSync(whole, path.join(folder, "public/models/synthetic"), { recursive: true });
  return folder;
}

/** The code of the documentation, as modules of a project. @param {string} folder */
function writeSnippets(folder) {
  for (const file of ["README.md", "docs/embedding.md"]) {
    const found = [...readFileSync(path.join(ROOT, file), "utf-8").matchAll(/^```(js|tsx?)\n(.*?)^```$/gms)];
    expect(found.length, file).toBeGreaterThan(0);
    found.forEach(([, kind, code], i) => writeFileSync(path.join(folder, `${path.basename(file, ".md")}${i}.${kind === "js" ? "ts" : kind}`), code));
  }
}

/** What `inpage/ai-sdk` needs, as the checkout has it. @param {string} folder of a project */
function addProvider(folder) {
  for (const name of ["@ai-sdk/provider", "json-schema", "@types/json-schema"]) {
    cpSync(path.join(ROOT, "node_modules", name), path.join(folder, "node_modules", name), { recursive: true });
  }
}

/** All of the package's entries, those that the app does not use too. @param {string} folder Vite's */
function addEntries(folder) {
  addProvider(folder);
  cpSync(path.join(ROOT, "tests/npm/vite"), folder, { recursive: true });
  /** @param {string} name @param {string} from @param {string} to */
  const change = (name, from, to) => {
    const text = readFileSync(path.join(folder, name), "utf-8");
    expect(text).toContain(from);
    writeFileSync(path.join(folder, name), text.replace(from, to));
  };
  change("src/main.tsx", 'import { App } from "./App";', 'import { App } from "./App";\nimport "./entries";');
  const worker = 'build: { rollupOptions: { input: ["index.html", "src/sw.ts"], output: { entryFileNames: "[name].js" } } }';
  change("vite.config.ts", 'base: "./",', `base: "./", ${worker},`);
}

/** Ask by the page's form. @param {import("@playwright/test").Page} page */
async function ask(page) {
  await expect(page.getByRole("status")).toHaveText(/^wasm-/); // until then it may be reloaded
  await page.getByRole("textbox").fill(QUESTION);
  await page.getByRole("button", { name: "Ask" }).click();
}

test("built by Vite, or copied, the package answers below a sub-path", async ({ page, context, project, whole, model }) => {
  const vite = viteProject(project, whole);
  const plain = project("examples/plain-html");
  writeSnippets(path.join(vite, "src"));
  addEntries(vite);
  run(vite, "npm", "run", "build"); // checks the types first
  run(plain, "npm", "run", "copy");
  const server = new FaultServer(
    {
      "/a/b/vite/": path.join(vite, "dist"),
      "/a/b/plain/": plain,
      "/a/b/plain/models/synthetic/": whole,
    },
    { isolated: true },
  );
  const { policy } = server;
  server.policy = `${policy}; require-trusted-types-for 'script'; trusted-types inpage`;
  server.fault("/a/b/plain/sw.js", { headers: { "Content-Security-Policy": policy }, always: true }); // for importScripts
  const origin = await server.start();
  const others = elsewhere(context, origin);

  await page.goto(`${origin}/a/b/vite/index.html`);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model));
  const entries = await page.evaluate(async () => {
    const { entries } = /** @type {any} */ (globalThis);
    await entries.InPage.register({ worker: "sw.js" });
    const { status } = await fetch("v1/models"); // this page serves none
    return [Object.keys(entries), status];
  });
  expect(entries).toEqual([["EngineError", "InPage", "createInPage", "openai", "useInPage"], 503]);

  await page.goto(`${origin}/a/b/plain/index.html?model=synthetic`);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model));
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
  expect(others).toEqual([]);
  await server.stop();
});

(SLOW ? test : test.skip)("built by webpack, with grammars, the package answers below a sub-path", async ({ page, context, project, whole }) => {
  const webpack = project("tests/npm/webpack");
  addProvider(webpack);
  run(webpack, "node", "build.js");
  const server = new FaultServer(
    {
      "/a/b/webpack/": path.join(webpack, "dist"),
      "/a/b/webpack/index.html": path.join(ROOT, "tests/browser/support/blank.html"),
      "/a/b/webpack/models/synthetic/": whole,
    },
    { isolated: true },
  );
  const origin = await server.start();
  const others = elsewhere(context, origin);
  await page.goto(`${origin}/a/b/webpack/index.html`);
  await page.addScriptTag({ type: "module", url: "main.js" });
  await page.waitForFunction(() => "InPage" in globalThis);
  const answers = await page.evaluate(async () => {
    const { InPage, createInPage, openai } = /** @type {any} */ (globalThis);
    const inpage = await InPage.start({ model: "synthetic" });
    let held = "";
    for await (const piece of inpage.chat("hello", { regex: "[ab]{5}", max_tokens: 20 })) held += piece.text;
    const prompt = [{ role: "user", content: [{ type: "text", text: "hello" }] }];
    const { finishReason } = await createInPage(inpage)("synthetic").doGenerate({ prompt, maxOutputTokens: 2, temperature: 0 });
    const { baseURL, fetch } = openai(inpage);
    await InPage.register({ worker: "sw.js" });
    await inpage.serve();
    const [own, served] = await Promise.all([fetch(`${baseURL}/models`), globalThis.fetch("v1/models")]);
    return { held, finish: finishReason.unified, own: (await own.json()).data[0].id, served: (await served.json()).data[0].id };
  });
  expect(answers).toEqual({ held: expect.stringMatching(/^[ab]{5}$/), finish: "length", own: "synthetic", served: "synthetic" });
  expect(others).toEqual([]);
  await server.stop();
});

(SLOW ? test : test.skip)("Vite's development server needs no configuration", async ({ page, context, project, whole, model }) => {
  const server = await developed(viteProject(project, whole), "node_modules/vite/bin/vite.js", "--host", "127.0.0.1", "--port", "0");
  try {
    let routers = 0;
    page.on("worker", (/** @type {import("@playwright/test").Worker} */ worker) => void (routers += Number(worker.url().includes("/files/router.js"))));
    const others = elsewhere(context, server.url);
    await page.goto(server.url);
    await ask(page);
    await expect(page.locator("#answer")).toHaveText(expected(model));
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    expect(routers, "StrictMode mounts twice").toBe(1);
    expect(others).toEqual([]);
  } finally {
    await server.stop();
  }
});

test("a PWA takes the service worker into its own, and works without a network after one visit", async ({ page, project, whole, model }) => {
  const pwa = project("examples/pwa");
  run(pwa, "npm", "run", "copy");
  cpSync(whole, path.join(pwa, "models/smollm2-135m-instruct"), { recursive: true });
  const server = await plainServer(path.dirname(pwa));
  const app = `${server.origin}/pwa/`;
  try {
    await page.goto(app);
    await ask(page);
    await expect(page.locator("#answer")).toHaveText(expected(model));
    const kept = () =>
      page.evaluate(async () => {
        const names = await caches.keys();
        const urls = await Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url.replace(/^.*\/pwa\//, ""))));
        return {
          own: urls.filter((_, i) => names[i].startsWith("app ")).flat().sort(),
          inpage: urls.filter((_, i) => names[i].startsWith("inpage ")).flat().sort(),
        };
      });
    await expect.poll(async () => (await kept()).inpage).toContain("inpage-files.json");
    const { own, inpage } = await kept();
    expect(own).toEqual(["", "app.webmanifest", "icon.svg", "page.js"]);
    expect(inpage.filter((/** @type {string} */ url) => !url.startsWith("inpage/"))).toEqual(["inpage-files.json", "models/smollm2-135m-instruct/manifest.json"]);
  } finally {
    await server.stop();
  }
  await page.reload();
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model));
  expect(await page.evaluate(() => fetch("v1/models").then((response) => response.json()))).toMatchObject({ data: [{ id: "smollm2-135m-instruct" }] });
});

test("a Chrome extension answers without a network", async ({ project, playwright, launchOptions, whole, model }) => {
  const extension = project("examples/chrome-extension");
  run(extension, "npm", "run", "copy");
  cpSync(whole, path.join(extension, "models/smollm2-135m-instruct"), { recursive: true });
  const profile = path.join(path.dirname(extension), "profile");
  const context = await playwright.chromium.launchPersistentContext(profile, {
    ...launchOptions,
    args: [...(launchOptions.args ?? []), `--disable-extensions-except=${extension}`, `--load-extension=${extension}`],
    offline: true,
  });
  try {
    const worker = context.serviceWorkers()[0] ?? (await context.waitForEvent("serviceworker"));
    const others = elsewhere(context, worker.url());
    const page = context.pages()[0];
    await page.goto(new URL("page.html", worker.url()).href);
    await page.getByRole("textbox").fill(QUESTION);
    await page.getByRole("button").click();
    await expect(page.locator("#answer")).toHaveText(expected(model));
    await expect(page.getByRole("status")).toHaveText(/^wasm-/);
    expect(others).toEqual([]);
  } finally {
    await context.close();
  }
});

(SLOW ? test : test.skip)("Next's development server and its static export answer", async ({ page, context, project, whole, model }) => {
  const next = project("examples/next");
  cpSync(whole, path.join(next, "public/models/synthetic"), { recursive: true });
  const development = await developed(next, "node_modules/next/dist/bin/next", "dev", "--hostname", "127.0.0.1", "--port", "0");
  try {
    const others = elsewhere(context, development.url);
    await page.goto(development.url);
    await ask(page);
    await expect(page.locator("#answer")).toHaveText(expected(model));
    expect(others).toEqual([]);
  } finally {
    await development.stop();
  }
  run(next, "npm", "run", "build");
  const server = new FaultServer({ "/": path.join(next, "out") }, { isolated: true });
  server.policy = server.policy.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'"); // Next writes scripts into its pages
  const origin = await server.start();
  const others = elsewhere(context, origin);
  await page.goto(`${origin}/index.html`);
  await ask(page);
  await expect(page.locator("#answer")).toHaveText(expected(model));
  expect(others).toEqual([]);
  await server.stop();
});

(SLOW ? test : test.skip)("webpack's development server needs no configuration", async ({ page, context, project, whole, model }) => {
  const folder = project("tests/npm/webpack-dev-server");
  cpSync(whole, path.join(folder, "public/models/synthetic"), { recursive: true });
  const server = await developed(folder, "node_modules/webpack-cli/bin/cli.js", "serve");
  try {
    const others = elsewhere(context, server.url);
    await page.goto(server.url);
    await expect(page.locator("body")).toHaveText(expected(model));
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    expect(others).toEqual([]);
  } finally {
    await server.stop();
  }
});
