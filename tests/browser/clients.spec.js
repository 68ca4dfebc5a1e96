/**
 * @file Clients that exist, unmodified, against the page: Vercel's `ai` by our provider and by another's, npm's `openai`,
 * and OpenAI's Python package in Pyodide. The model is the real one: small ones have no words for JSON.
 */

import { buildSync } from "esbuild";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

import { ROOT } from "./support/real.js";
import { expect, test as base } from "./support/site.js";
import { routeWithTools } from "./support/with_tools.js";

/** @typedef {import("@playwright/test").Page} Page */

const SUPPORT = path.join(ROOT, "tests/browser/support");

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {site: import("./support/site.js").Served, lab: Page}>} */
const test = base.extend(
  /** @type {any} */ ({
    /** One page for all tests, in which `inpage` runs. */
    lab: [
      /** @param {{browser: import("@playwright/test").Browser, site: import("./support/site.js").Served}} fixtures @param {(value: Page) => Promise<void>} use */
      async ({ browser, site }, use) => {
        const page = await browser.newPage();
        await page.goto(`${site.url}NOTICES.txt`);
        await routeWithTools(page);
        await page.evaluate(async () => {
          const { InPage } = await import(new URL("client/inpage.js", location.href).href);
          /** @type {any} */ (globalThis).inpage = await InPage.start({ base: "./", model: "with-tools", backend: "wasm" });
        });
        await use(page);
        await page.close();
      },
      { scope: "worker" },
    ],
  }),
);

/** What the model says by itself. @param {Page} page @returns {Promise<{text: string, prompt_ids: number[]}>} */
const said = (page) =>
  page.evaluate(async () => {
    for await (const { completion } of /** @type {any} */ (globalThis).inpage.chat("What is gravity?", { temperature: 0, max_tokens: 12 })) if (completion) return completion;
  });

test("Vercel's ai and npm's openai: chats, streams, tools, schemas, errors, aborts, usage", async ({ lab }) => {
  const bundled = buildSync({ entryPoints: [path.join(SUPPORT, "clients.js")], bundle: true, format: "esm", write: false, logLevel: "warning" });
  await lab.route("**/clients.js", (route) => route.fulfill({ body: bundled.outputFiles[0].text, contentType: "text/javascript" }));
  const { text, prompt_ids } = await said(lab);
  const seen = await lab.evaluate(async () => {
    await import(/** @type {string} */ (new URL("clients.js", location.href).href));
    const { inpage, clients } = /** @type {any} */ (globalThis);
    return { ours: await clients.ai(inpage, true), theirs: await clients.ai(inpage, false), own: await clients.own(inpage), npm: await clients.npm(inpage) };
  });
  for (const each of [seen.ours, seen.theirs]) {
    expect(each.whole).toMatchObject({ text, finish: "length", usage: { inputTokens: prompt_ids.length, outputTokens: 12 } });
    expect(each.streamed).toMatchObject({ text, finish: "length", usage: { inputTokens: prompt_ids.length, outputTokens: 12, totalTokens: prompt_ids.length + 12 } });
    expect(each.streamed.pieces).toBeGreaterThan(1);
    for (const weather of [each.output, ...each.asked, each.call.input]) {
      expect(["Ulm", "Bonn"]).toContain(weather.place);
      expect(weather.days).toBeGreaterThanOrEqual(1);
      expect(weather.days).toBeLessThanOrEqual(9);
    }
    expect(each.steps).toEqual([["tool-calls", 1], [expect.stringMatching("stop|length"), 0]]);
    expect(each.answered).not.toBe("");
    expect(each.asked).toHaveLength(2);
    expect(each.call.name).toBe("weather");
    expect(each.errors).toEqual([
      [404, false, expect.stringContaining("gpt-5")],
      [400, false, expect.stringContaining("temperature")],
    ]);
    expect(each.cut).toBe(true);
    expect(each.end).toBe("abort");
    expect(each.left).toBe(0);
  }
  expect(seen.own).toEqual({
    refused: [400, "nonsense"],
    warnings: [{ type: "unsupported", feature: "reasoning", details: expect.any(String) }],
    unread: "AI_UnsupportedFunctionalityError",
    none: "AI_NoSuchModelError",
  });
  const input = { place: expect.stringMatching("^(Ulm|Bonn)$"), days: expect.any(Number) };
  for (const answer of seen.npm) expect(answer).toEqual(["tool_calls", [["weather", input]]]);
});

(process.env.INPAGE_SLOW ? test : test.skip)("OpenAI's Python package in Pyodide: the same, by a transport of ours", async ({ lab }) => {
  const wheels = execFileSync(path.join(ROOT, ".venv/bin/python"), ["tools/pyodide_wheels.py"], { cwd: ROOT, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
  await lab.route("**/wheels/*", (route) => route.fulfill({ path: path.join(wheels, path.basename(route.request().url())) }));
  const { text, prompt_ids } = await said(lab);
  const seen = await lab.evaluate(
    async ([names, code]) => {
      const at = (/** @type {string} */ name) => new URL(name, location.href).href;
      const { loadPyodide } = await import(at("vendor/pyodide/pyodide.js"));
      const pyodide = await loadPyodide({ indexURL: at("vendor/pyodide/") });
      pyodide.registerJsModule("inpage_host", await import(at("router/host.js")));
      for (const name of ["inpage.zip", ...names]) pyodide.unpackArchive(await (await fetch(at(name))).arrayBuffer(), name.endsWith(".whl") ? "wheel" : "zip");
      await pyodide.runPythonAsync(code);
      return JSON.parse(pyodide.globals.get("seen"));
    },
    /** @type {const} */ ([readdirSync(wheels).map((name) => `wheels/${name}`), readFileSync(path.join(SUPPORT, "clients.py"), "utf8")]),
  );
  expect(seen.models).toEqual(["with-tools"]);
  expect(seen.whole).toEqual([text, "length"]);
  expect(seen.streamed).toBe(text);
  expect(seen.chunks).toBeGreaterThan(3);
  for (const usage of seen.usage) expect(usage).toMatchObject({ prompt_tokens: prompt_ids.length, completion_tokens: 12 });
  expect(seen.parsed).toEqual({ place: expect.any(String), days: expect.any(Number) });
  expect(seen.called).toEqual(["tool_calls", "weather", { place: expect.any(String), days: expect.any(Number) }]);
  expect(seen.errors).toEqual([
    ["NotFoundError", 404, "model", "model_not_found"],
    ["BadRequestError", 400, "temperature", null],
    ["NotFoundError", 404, "model", "model_not_found"],
    ["APITimeoutError", null, null, null],
  ]);
  expect(seen.cancelled).toBe("CancelledError");
  expect(seen.unreachable).toEqual(["ConnectError", null, null, null]);
  expect(seen.left).toBe(0);
});
