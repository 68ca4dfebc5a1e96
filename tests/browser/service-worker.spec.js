/**
 * @file The service worker on a host that sends no headers, under a sub-path: it isolates the page, answers for the page
 * that runs a model, and costs nothing when it, or who asks, ends in mid-stream.
 */

import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { expect, MODEL, prompt, pythonMounts, test as base, text } from "./support/router.js";
import { FaultServer } from "./support/server.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const SITE = "/a/b/";
const PAGE = `${SITE}page.html`;
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self'; form-action *";
const PLAIN = { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 } };

const test = base.extend({
  /** @type {any} */
  server: [
    /** @param {{whole: string}} fixtures @param {(server: FaultServer) => Promise<void>} use */
    async ({ whole }, use) => {
      const page = path.join(ROOT, "tests/browser/support/blank.html");
      const mounts = { [SITE]: path.join(ROOT, "web"), ...pythonMounts(SITE, whole, true), [PAGE]: page, "/outside.html": page };
      const server = new FaultServer({ ...mounts, [MODEL]: whole, "/node_modules/": path.join(ROOT, "node_modules") }, { isolated: false });
      server.policy = "";
      await use(server);
      await server.stop();
    },
    { scope: "test" },
  ],
});

/** @param {any} model @param {string} content */
const said = (model, content) => text(model.greedy(prompt(content), 60));

/** @typedef {import("@playwright/test").Page} Page */

/**
 * In the page that answers: with `hold`, what the router says of the next stream after its first events is kept back until
 * that stream is cancelled. Counted as `cancelled`.
 */
function holding() {
  const scope = /** @type {any} */ (globalThis);
  Object.assign(scope, { hold: false, held: null, kept: [], cancelled: 0 });
  scope.Worker = class extends Worker {
    /** @param {string | URL} url @param {WorkerOptions} options */
    constructor(url, options) {
      super(url, options);
      this.addEventListener("message", (event) => {
        const id = typeof event.data === "string" && /^\{"id": (\d+), "/.exec(event.data)?.[1];
        if (id && id === scope.held) {
          event.stopImmediatePropagation();
          scope.kept.push(event.data);
        } else if (id && scope.hold && event.data.includes('"chunk"')) [scope.hold, scope.held] = [false, id];
      });
    }
    /** @param {any} message @param {any[]} more */
    postMessage(message, ...more) {
      super.postMessage(message, .../** @type {[]} */ (more));
      const id = typeof message === "string" && /"op":"cancel","id":(\d+)/.exec(message)?.[1];
      if (!id || id !== scope.held) return;
      scope.cancelled++;
      scope.held = null;
      for (const data of scope.kept.splice(0)) this.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}

/** Waits for the cancelling of what is held; nothing is computed any more then. @param {Page} host @returns {Promise<[number, number]>} how many were cancelled, KV pages in use */
function settled(host) {
  return host.evaluate(async () => {
    const scope = /** @type {any} */ (globalThis);
    const { inpage } = scope;
    while (scope.held) await inpage.refresh();
    while ((await inpage.refresh()).requests.active + inpage.info.requests.waiting > 0);
    return [scope.cancelled, inpage.info.kv_pages.used];
  });
}

/** Begin a stream that stands still after its first events. @param {Page} page @param {Page} host @returns {Promise<string>} those events */
async function stand(page, host) {
  await host.evaluate(() => void (/** @type {any} */ (globalThis).hold = true));
  return page.evaluate(async (PLAIN) => {
    const scope = /** @type {any} */ (globalThis);
    scope.stop = new AbortController();
    const body = JSON.stringify({ messages: [{ role: "user", content: "hello" }], stream: true, ...PLAIN });
    const response = await fetch("v1/chat/completions", { method: "POST", body, signal: scope.stop.signal });
    scope.reader = /** @type {any} */ (response.body).getReader();
    return new TextDecoder().decode((await scope.reader.read()).value);
  }, PLAIN);
}

/** What becomes of the stream that stands. @param {Page} page */
function end(page) {
  return page.evaluate(async () => {
    const { reader } = /** @type {any} */ (globalThis);
    try {
      let text = "";
      for (let read; !(read = await reader.read()).done; ) text += new TextDecoder().decode(read.value);
      return text;
    } catch (error) {
      return /** @type {any} */ (error).name;
    }
  });
}

/** @param {Page} page @param {string} content */
function chat(page, content) {
  return page.evaluate(
    async ([content, PLAIN]) => {
      const response = await fetch("v1/chat/completions", { method: "POST", body: JSON.stringify({ messages: [{ role: "user", content }], .../** @type {object} */ (PLAIN) }) });
      const body = await response.json();
      return response.status === 200 ? body.choices[0].message.content : [response.status, body.error.type];
    },
    /** @type {const} */ ([content, PLAIN]),
  );
}

test("a page of a host without headers is isolated after one reload, and answers for all pages of the site", async ({ page, context, origin, server, model }) => {
  // Isolated, after one reload that is announced, with the policy that was asked for.
  await page.goto(origin + PAGE);
  expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(false);
  const announced = page.waitForEvent("console", (message) => message.text().includes("reloaded once"));
  const again = page.waitForEvent("load");
  await page.evaluate(
    ([policy]) => {
      void import(/** @type {string} */ ("/a/b/client/inpage.js")).then(({ InPage }) => InPage.register({ isolate: true, policy }));
    },
    [POLICY],
  );
  await announced;
  await again;
  expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(true);
  expect(server.requests(PAGE)).toHaveLength(2);
  const inline = await page.evaluate(() => {
    document.body.append(Object.assign(document.createElement("script"), { textContent: "globalThis.ran = true" }));
    return "ran" in globalThis;
  });
  expect(inline).toBe(false); // the policy forbids it

  // Nobody answers yet; then this page does, with threads.
  expect(await chat(page, "hello")).toEqual([503, "service_unavailable_error"]);
  await page.evaluate(holding);
  const info = await page.evaluate(async (model) => {
    const scope = /** @type {any} */ (globalThis);
    const { InPage } = await import(/** @type {string} */ ("/a/b/client/inpage.js"));
    scope.inpage = await InPage.start({ model, threads: 2 });
    return { served: await scope.inpage.serve(), threads: scope.inpage.info.threads };
  }, MODEL);
  expect(info).toEqual({ served: true, threads: 2 });
  expect(await chat(page, "hello")).toBe(said(model, "hello"));

  // A second page of the site, which runs none: bare fetch and npm's openai without any option of ours.
  const other = await context.newPage();
  await other.goto(origin + PAGE);
  expect(await other.evaluate(() => globalThis.crossOriginIsolated)).toBe(true);
  const seen = await other.evaluate(async (PLAIN) => {
    const { OpenAI } = await import(/** @type {string} */ ("/node_modules/openai/index.mjs"));
    const client = new OpenAI({ apiKey: "-", baseURL: new URL("v1", location.href).href, dangerouslyAllowBrowser: true, maxRetries: 0 });
    /** @param {string} content */
    const messages = (content) => [{ role: "user", content }];
    const [name] = (await client.models.list()).data.map((/** @type {any} */ model) => model.id);
    let streamed = "";
    for await (const chunk of await client.chat.completions.create({ model: name, messages: messages("a b c"), stream: true, ...PLAIN })) streamed += chunk.choices[0].delta.content ?? "";
    const refused = await client.chat.completions.create({ model: "gpt-5", messages: messages("x") }).catch((/** @type {any} */ error) => [error.status, error.code]);
    const packed = await new Response(new Blob([JSON.stringify({ messages: messages("x"), ...PLAIN })]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
    const gzip = await fetch("v1/chat/completions", { method: "POST", body: packed, headers: { "content-encoding": "gzip" } });
    const raw = await fetch("v1/chat/completions", { method: "POST", body: JSON.stringify({ messages: messages("abc"), stream: true, ...PLAIN }) });
    const health = await fetch("health");
    const metrics = await (await fetch("metrics")).text();
    const direct = await import(/** @type {string} */ ("./client/site.js")).then(() => true);
    return {
      name, streamed, refused, gzip: (await gzip.json()).choices[0].message.content, type: raw.headers.get("content-type"), raw: await raw.text(),
      health: [health.status, (await health.json()).status], metrics: metrics.includes("inpage_"), direct,
    };
  }, PLAIN);
  expect(seen).toMatchObject({
    name: "model", streamed: said(model, "a b c"), refused: [404, "model_not_found"], gzip: said(model, "x"),
    type: "text/event-stream; charset=utf-8", health: [200, "healthy"], metrics: true, direct: true,
  });
  const events = seen.raw.split("\n\n").filter(Boolean).map((event) => event.slice(6));
  expect(events.pop()).toBe("[DONE]");
  expect(events.map((event) => JSON.parse(event).choices[0].delta.content ?? "").join("")).toBe(said(model, "abc"));

  // Who asks gives up, or goes: the answer is cancelled and its pages come back.
  expect(await stand(other, page)).toContain('"role":"assistant"');
  await other.evaluate(() => /** @type {any} */ (globalThis).stop.abort());
  expect(await end(other)).toBe("AbortError");
  expect(await settled(page)).toEqual([1, 0]);
  const third = await context.newPage();
  await third.goto(origin + PAGE);
  await stand(third, page);
  await third.close();
  expect(await settled(page)).toEqual([2, 0]);

  // The worker is stopped in mid-stream: who asked sees it, the page that answers cancels, and all goes on without a reload.
  expect(await stand(other, page)).toContain('"role":"assistant"');
  const devtools = await context.newCDPSession(page);
  await devtools.send("ServiceWorker.enable");
  await devtools.send("ServiceWorker.stopAllWorkers");
  expect(await end(other)).toBe("TypeError");
  expect(await settled(page)).toEqual([3, 0]);
  expect(await chat(other, "who are you")).toBe(said(model, "who are you"));

  // Pages of another origin get nothing: a request does not reach the worker, and what they can start is refused.
  const foreign = await context.newPage();
  await foreign.goto(`${origin.replace("127.0.0.1", "localhost")}/outside.html`);
  const url = `${origin}${SITE}v1/models`;
  expect(await foreign.evaluate((url) => fetch(url).then(() => "answered", (error) => error.name), url)).toBe("TypeError");
  expect(server.requests(`${SITE}v1/models`).map(({ status }) => status)).toEqual([404]);
  await foreign.evaluate((action) => {
    const form = Object.assign(document.createElement("form"), { method: "post", action });
    document.body.append(form);
    form.submit();
  }, `${origin}${SITE}v1/chat/completions`);
  await foreign.waitForURL(/completions$/);
  expect(await foreign.textContent("body")).toContain("only pages of this origin");

  // The page that answered does so no longer.
  await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  expect(await chat(other, "hello")).toEqual([503, "service_unavailable_error"]);
});

(process.env.INPAGE_SLOW ? test : test.skip)("the scripts of docs/endpoint.md run as they stand, but for the model's name", async ({ page, origin, server, model }) => {
  const all = Array.from(readFileSync(path.join(ROOT, "docs/endpoint.md"), "utf-8").matchAll(/```js\n(.*?)```/gs), ([, code]) => code);
  const blocks = all.filter((code) => !code.includes("loadPyodide")); // Python's client needs wheels: clients.spec.js
  expect(blocks).toHaveLength(2);
  /** @type {string[]} */
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  for (const [i, block] of blocks.entries()) {
    const code = block
      .replace('"openai"', '"/node_modules/openai/index.mjs"')
      .replace('start({ model: "smollm2-135m-instruct"', `start({ model: "${MODEL}"`)
      .replace('"smollm2-135m-instruct"', '"model"');
    const html = `<!doctype html><meta charset="utf-8"><script type="module" src="code${i}.js"></script><body>`;
    server.fault(`${SITE}code${i}.js`, { status: 200, headers: { "Content-Type": "text/javascript" }, body: Buffer.from(code), always: true });
    server.fault(`${SITE}docs${i}.html`, { status: 200, headers: { "Content-Type": "text/html" }, body: Buffer.from(html), always: true });
    await page.goto(`${origin}${SITE}docs${i}.html`);
    await expect(page.locator("body")).toHaveText(text(model.greedy(prompt("hello"), 20)).trim());
  }
  expect(errors).toEqual([]);
  expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(true);
});
