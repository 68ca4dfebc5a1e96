/** @file OpenAI's interface for JavaScript on the page: `inpage.fetch`, bare and under npm's `openai`, which is unmodified. */

import { expect, ids, MODEL, prompt, test, text } from "./support/router.js";

/** No answer ends before its time, and none trips over a token that misbehaves. */
const PLAIN = { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 } };
const NAME = MODEL.replaceAll("/", "");

/** @param {any} model @param {string} content @param {number} [n] */
const said = (model, content, n = 60) => text(model.greedy(prompt(content), n));

/** The worker of the router ends after so many messages that match, once. @param {import("@playwright/test").Page} page */
function mortal(page) {
  return page.evaluate(() => {
    const scope = /** @type {any} */ (globalThis);
    scope.kill = { after: 0, of: "" };
    scope.deaths = 0;
    scope.Worker = class extends Worker {
      /** @param {string | URL} url @param {WorkerOptions} options */
      constructor(url, options) {
        super(url, options);
        this.addEventListener("message", (event) => {
          const { kill } = scope;
          if (!kill.after || typeof event.data !== "string" || !event.data.includes(kill.of) || --kill.after) return;
          scope.deaths++;
          this.terminate();
          event.stopImmediatePropagation(); // it is lost
        });
      }
    };
  });
}

test("npm's openai answers from the page: chats, streams, schemas, usage, errors, aborts", async ({ page, start, model }) => {
  const { name } = { name: NAME, ...(await start({ threads: 2 })) };
  expect(name).toBe("Synthetic");
  const seen = await page.evaluate(
    async ([NAME, PLAIN]) => {
      const { inpage } = /** @type {any} */ (globalThis);
      const { OpenAI } = await import(/** @type {string} */ ("/node_modules/openai/index.mjs"));
      const { openai } = await import(/** @type {string} */ ("/web/npm/openai.js"));
      const client = new OpenAI({ ...openai(inpage), maxRetries: 0 });
      /** @param {string} content @param {object} [more] */
      const body = (content, more = {}) => ({ model: NAME, messages: [{ role: "user", content }], ...PLAIN, ...more });
      /** @param {() => Promise<unknown>} ask */
      const failure = async (ask) => {
        try {
          await ask();
          return "no error";
        } catch (error) {
          const { constructor, status, code, param, type } = /** @type {any} */ (error);
          return [constructor.name, status, code, param, type];
        }
      };
      const models = [];
      for await (const each of client.models.list()) models.push(each.id);
      const chat = await client.chat.completions.create(body("hello"));
      const streamed = { text: "", usage: /** @type {any} */ (null), chunks: 0 };
      for await (const chunk of await client.chat.completions.create(body("a b c", { stream: true, stream_options: { include_usage: true } }))) {
        streamed.text += chunk.choices[0]?.delta.content ?? "";
        streamed.usage = chunk.usage ?? streamed.usage;
        streamed.chunks++;
      }
      const schema = { type: "integer", minimum: 1000, maximum: 9999 };
      const number = await client.chat.completions.parse(body("a number", { logit_bias: {}, response_format: { type: "json_schema", json_schema: { name: "n", strict: true, schema } } }));
      const completed = await client.completions.create({ model: NAME, prompt: "abc", ...PLAIN, max_tokens: 20 });
      const { max_tokens: max_output_tokens, ...more } = PLAIN;
      const asked = { model: NAME, input: "who are you", max_output_tokens, ...more };
      const response = await client.responses.create(asked);
      const telling = { text: "", last: /** @type {any} */ (null) };
      for await (const event of client.responses.stream(asked)) {
        if (event.type === "response.output_text.delta") telling.text += event.delta;
        telling.last = event;
      }
      const text = { format: { type: "json_schema", name: "n", strict: true, schema } };
      const parsed = await client.responses.parse({ model: NAME, input: "a number", temperature: 0, text });
      const errors = {
        previous: await failure(() => client.responses.create({ ...asked, previous_response_id: "resp_1" })),
        model: await failure(() => client.chat.completions.create({ ...body("x"), model: "gpt-5" })),
        value: await failure(() => client.chat.completions.create(body("x", { temperature: 9 }))),
        empty: await failure(() => client.chat.completions.create(body("x", { messages: [] }))),
        long: await failure(() => client.chat.completions.create(body("x".repeat(200), { stream: true }))),
        embeddings: await failure(() => client.embeddings.create({ model: NAME, input: "x" })),
        path: await failure(() => client.files.list()),
        early: await failure(() => client.chat.completions.create(body("x"), { signal: AbortSignal.abort() })),
      };
      const stop = new AbortController();
      const stream = await client.chat.completions.create(body("who are you", { stream: true }), { signal: stop.signal });
      let pieces = 0;
      for await (const chunk of stream) if (chunk && pieces++ === 0) stop.abort();
      const left = await client.chat.completions.create(body("the last one", { stream: true }));
      for await (const chunk of left) if (chunk) break;
      // What the interface takes the page's chat takes too.
      const parts = (/** @type {string[]} */ ...texts) => texts.map((text) => ({ type: "text", text }));
      const shaped = [{ role: "developer", content: parts("b"), name: "boss" }, { role: "user", content: parts("h", "i"), name: "ada" }];
      const format = { response_format: { type: "json_schema", json_schema: { name: "n", schema } }, max_completion_tokens: 9, temperature: 0, stream_options: { include_usage: true } };
      const [direct, formatted] = [{ text: "" }, { text: "" }];
      for await (const { text } of inpage.chat(shaped, { ...PLAIN, user: "ada" })) direct.text += text;
      for await (const { text } of inpage.chat("a number", format)) formatted.text += text;
      while ((await inpage.refresh()).requests.active + inpage.info.requests.waiting > 0);
      const responses = { text: response.output_text, usage: response.usage, status: response.status, telling, number: parsed.output_parsed };
      return { models, chat, streamed, responses, direct: direct.text, formatted: formatted.text, number: number.choices[0].message.parsed, completed, errors, pages: inpage.info.kv_pages.used };
    },
    /** @type {const} */ ([NAME, PLAIN]),
  );
  expect(seen.models).toEqual([NAME]);
  expect(seen.chat.choices[0]).toMatchObject({ message: { role: "assistant", content: said(model, "hello") }, finish_reason: "length" });
  expect(seen.chat.usage).toMatchObject({ prompt_tokens: prompt("hello").length, completion_tokens: 60, total_tokens: prompt("hello").length + 60 });
  expect(seen.streamed.text).toBe(said(model, "a b c"));
  expect(seen.streamed.chunks).toBeGreaterThan(3);
  expect(seen.streamed.usage.completion_tokens).toBe(60);
  expect(seen.number).toBeGreaterThanOrEqual(1000);
  expect(seen.number).toBeLessThanOrEqual(9999);
  expect(seen.responses).toMatchObject({ text: said(model, "who are you"), status: "incomplete", telling: { text: said(model, "who are you") } });
  expect(seen.responses.usage).toMatchObject({ input_tokens: prompt("who are you").length, output_tokens: 60 });
  expect(seen.responses.telling.last).toMatchObject({ type: "response.incomplete", response: { output: [{ content: [{ text: said(model, "who are you") }] }] } });
  expect(seen.responses.number).toBe(seen.number);
  expect(seen.completed.choices[0].text).toHaveLength(20);
  expect(seen.errors).toEqual({
    previous: ["BadRequestError", 400, null, "previous_response_id", "invalid_request_error"],
    model: ["NotFoundError", 404, "model_not_found", "model", "invalid_request_error"],
    value: ["BadRequestError", 400, null, "temperature", "invalid_request_error"],
    empty: ["BadRequestError", 400, null, "messages", "invalid_request_error"],
    long: ["BadRequestError", 400, null, "messages", "invalid_request_error"],
    embeddings: ["NotFoundError", 404, "model_not_found", "model", "invalid_request_error"],
    path: ["NotFoundError", 404, null, null, "invalid_request_error"],
    early: ["APIUserAbortError", undefined, undefined, undefined, undefined],
  });
  expect(seen.direct).toBe(text(model.greedy([1, ...ids("system\nb"), 2, ...ids("\n"), ...prompt("hi")], 60)));
  expect(Number(seen.formatted)).toBe(seen.number);
  expect(seen.pages).toBe(0);
});

test("inpage.fetch does as fetch does; a router that dies in mid-stream costs the stream nothing", async ({ page, start, model }) => {
  await mortal(page);
  await start({ threads: 1 });
  const seen = await page.evaluate(
    async ([PLAIN]) => {
      const scope = /** @type {any} */ (globalThis);
      const { fetch } = scope.inpage;
      /** @param {string} content @param {object} [more] */
      const body = (content, more = {}) => JSON.stringify({ messages: [{ role: "user", content }], ...PLAIN, ...more });
      /** @param {string} content @param {object} [init] @param {object} [more] */
      const chat = (content, init, more) => fetch("v1/chat/completions", { method: "POST", body: body(content, more), ...init });
      /** @param {Response} response */
      const content = async (response) => (await response.json()).choices[0].message.content;
      /** @param {Response} response */
      const events = async (response) => (await response.text()).split("\n\n").filter(Boolean).map((event) => event.slice(6));
      /** @param {Promise<unknown>} promise */
      const name = (promise) => promise.then(() => "no error", (error) => error.name);

      const health = await fetch("/health");
      const told = [health.status, (await health.json()).status, (await fetch("/a/b/metrics")).headers.get("content-type")];
      const packed = await new Response(new Blob([body("hello")]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
      const gzip = await content(await chat("", { body: packed, headers: { "content-encoding": "gzip" } }));
      const statuses = [];
      for (const init of [{ headers: { "content-encoding": "br" } }, { headers: { "content-encoding": "gzip" } }, { method: "PUT" }, { body: "{" }, { body: `{"messages": ${"[".repeat(3000)}` }, { body: new Uint8Array([255]) }]) {
        const response = await chat("x", init);
        statuses.push([response.status, Object.keys((await response.json()).error).join()]);
      }
      const bomb = await new Response(new Blob([new Uint8Array(9 << 20)]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
      statuses.push([(await chat("", { body: bomb, headers: { "content-encoding": "gzip" } })).status]);
      const reasons = [];
      const stop = new AbortController();
      const asked = chat("hello", { signal: stop.signal });
      stop.abort();
      reasons.push(await name(asked));
      const later = new AbortController();
      const reader = (await chat("hello", { signal: later.signal }, { stream: true })).body.getReader();
      await reader.read();
      later.abort();
      reasons.push(await name((async () => { while (!(await reader.read()).done); })()));
      reasons.push(await name(fetch("http://[")));

      scope.kill = { after: 3, of: '"chunk"' };
      const stream = await events(await chat("who are you", {}, { stream: true, stream_options: { include_usage: true } }));
      scope.kill = { after: 1, of: '"begun"' };
      const whole = await content(await chat("abc"));
      scope.kill = { after: 2, of: '"chunk"' };
      const several = (await chat("x", {}, { stream: true, n: 2 })).body.getReader();
      const two = await name((async () => { while (!(await several.read()).done); })());
      const again = await content(await chat("zz"));
      await scope.inpage.refresh();
      const { deaths, inpage } = scope;
      const { kv_pages, requests } = inpage.info;
      await inpage.unload();
      const gone = await fetch("v1/models");
      const { respond } = await import(/** @type {string} */ ("/web/client/endpoint.js"));
      const { Turns } = await import(/** @type {string} */ ("/web/client/turns.js"));
      const { EngineError } = await import(/** @type {string} */ ("/web/engine/format/errors.js"));
      const nowhere = (/** @type {string} */ code) => respond(() => Promise.reject(new EngineError(code, "no engine runs here")), new Turns(), "http://inpage/v1/models");
      const unable = [];
      for (const code of ["unsupported", "network", "error"]) unable.push((await nowhere(code)).status);
      return { told, unable, gzip, statuses, reasons, stream, whole, two, again, deaths, used: kv_pages.used, requests, gone: [gone.status, (await gone.json()).error.code] };
    },
    /** @type {const} */ ([PLAIN]),
  );
  expect(seen.told).toEqual([200, "healthy", "text/plain; version=0.0.4; charset=utf-8"]);
  expect(seen.gzip).toBe(said(model, "hello"));
  const shape = "message,type,param,code";
  expect(seen.statuses).toEqual([[415, shape], [400, shape], [405, shape], [400, shape], [400, shape], [400, shape], [413]]);
  expect(seen.reasons).toEqual(["AbortError", "AbortError", "TypeError"]);
  expect(seen.deaths).toBe(3);
  const done = seen.stream.pop();
  const chunks = seen.stream.map((/** @type {string} */ event) => JSON.parse(event));
  expect(done).toBe("[DONE]");
  expect(new Set(chunks.map((/** @type {any} */ chunk) => `${chunk.id} ${chunk.created}`)).size).toBe(1);
  expect(chunks.filter((/** @type {any} */ chunk) => chunk.choices[0]?.delta.role)).toHaveLength(1);
  expect(chunks.map((/** @type {any} */ chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe(said(model, "who are you"));
  expect(chunks.at(-1).usage).toMatchObject({ prompt_tokens: prompt("who are you").length, completion_tokens: 60 });
  expect(seen.whole).toBe(said(model, "abc"));
  expect(seen.two).toBe("EngineError");
  expect(seen.again).toBe(said(model, "zz"));
  expect(seen.used + seen.requests.active + seen.requests.waiting).toBe(0);
  expect(seen.gone).toEqual([503, "cancelled"]);
  expect(seen.unable).toEqual([400, 503, 500]); // as py/inpage/openai/responses.py has it
});
