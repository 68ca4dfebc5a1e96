/**
 * @file The real model's answers held to JSON schemas, regular expressions and grammars, and what it says of each token.
 */

import { problems } from "./support/json_schema.js";
import { Killer } from "./support/killer.js";
import { REFERENCE } from "./support/real.js";
import { expect, test as base } from "./support/site.js";
import { routeWithTools } from "./support/with_tools.js";

const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    mood: { enum: ["happy", "sad"] },
    pets: { type: "array", items: { enum: ["cat", "dog"] }, maxItems: 2 },
    note: { type: ["string", "null"], maxLength: 8 },
  },
  required: ["name", "age", "mood", "pets"],
  additionalProperties: false,
};
const TELL = "Tell me about Ada as JSON.";

/**
 * @typedef {[string, object]} Asked
 * @typedef {(asked: Asked[], kills?: number[]) => Promise<any[]>} All at once: completions, or {error}
 * @typedef {(running: Asked[], late: Asked) => Promise<{ids: number[][], meanwhile: number[]}>} During with one more that is
 *   asked once all have begun; meanwhile: tokens of each from then until its first
 * @typedef {All & {during: During}} Ask
 */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {site: import("./support/site.js").Served, ask: Ask}>} */
const test = base.extend(
  /** @type {any} */ ({
    ask: [
      /** @param {{browser: import("@playwright/test").Browser, site: import("./support/site.js").Served}} fixtures @param {(value: Ask) => Promise<void>} use */
      async ({ browser, site }, use) => {
        const page = await browser.newPage();
        const killer = new Killer(page);
        await page.goto(`${site.url}NOTICES.txt`);
        await killer.install();
        await routeWithTools(page);
        await page.evaluate(async () => {
          const { InPage } = await import(new URL("client/inpage.js", location.href).href);
          const models = [{ model: "with-tools", backend: "wasm" }]; // loaded when it is asked
          const options = { base: "./", model: "smollm2-135m-instruct", backend: "wasm", models };
          /** @type {any} */ (globalThis).inpage = await InPage.start(options);
        });
        /** @type {All} */
        const all = async (asked, kills = []) => {
          await killer.engines(kills);
          return page.evaluate(
            (asked) =>
              Promise.all(
                asked.map(async ([text, params]) => {
                  const logprobs = [];
                  try {
                    for await (const piece of /** @type {any} */ (globalThis).inpage.chat(text, params)) {
                      logprobs.push(...(piece.logprobs ?? []));
                      if (piece.completion) return { ...piece.completion, streamed: logprobs };
                    }
                  } catch (error) {
                    const { code, message, field } = /** @type {any} */ (error);
                    return { error: { code, message, field } };
                  }
                }),
              ),
            asked,
          );
        };
        /** @type {During} */
        const during = (running, late) =>
          page.evaluate(
            async ([running, late]) => {
              const { inpage } = /** @type {any} */ (globalThis);
              const ids = running.map(() => /** @type {number[]} */ ([]));
              /** @type {(value?: unknown) => void} */
              let begun = () => {};
              const all = new Promise((resolve) => (begun = resolve));
              const answers = running.map(async ([text, params], i) => {
                for await (const { token_ids } of inpage.chat(text, params)) {
                  ids[i].push(...token_ids);
                  if (ids.every(({ length }) => length > 0)) begun();
                }
              });
              await all;
              const before = ids.map(({ length }) => length);
              await inpage.chat(late[0], late[1])[Symbol.asyncIterator]().next();
              const meanwhile = ids.map(({ length }, i) => length - before[i]);
              await Promise.all(answers);
              return { ids, meanwhile };
            },
            /** @type {const} */ ([running, late]),
          );
        await use(Object.assign(all, { during }));
        await page.close();
      },
      { scope: "worker" },
    ],
  }),
);

/** @param {any} answer @param {object} schema */
function follows(answer, schema) {
  expect(answer.error).toBeUndefined();
  expect(answer.finish_reason, answer.text).toBe("stop");
  expect(problems(JSON.parse(answer.text), schema), answer.text).toEqual([]);
}

test("an answer follows its schema; one beside it is what it is alone", async ({ ask, site }) => {
  const free = /** @type {[string, object]} */ (["Why is the sky blue?", { temperature: 0.8, seed: 3, max_tokens: 40 }]);
  const [alone] = await ask([free]);
  expect(site.requests.filter((line) => line.includes("xgrammar"))).toEqual([]); // who asks for none pays nothing
  const [held, beside] = await ask([[TELL, { temperature: 0, max_tokens: 100, schema: PERSON }], free]);
  follows(held, PERSON);
  expect(beside.token_ids).toEqual(alone.token_ids);
  expect(site.requests.filter((line) => line.includes("xgrammar"))).toHaveLength(1);
});

test("answers go on while a grammar compiles", async ({ ask }) => {
  const free = /** @type {[string, object]} */ (["Why is the sky blue?", { temperature: 0, max_tokens: 120, logit_bias: { 2: -100 } }]);
  const list = { type: "array", items: { enum: ["a", "b"] }, minItems: 36, maxItems: 36 };
  const held = /** @type {[string, object]} */ (["List letters.", { temperature: 1, seed: 1, max_tokens: 120, schema: list }]);
  const [alone, listed] = await ask([free, held]);
  /** @type {Record<string, object>} */
  const properties = {};
  for (let i = 0; i < 60; i++) properties[`field_${i}`] = { type: "string", pattern: `^[a-z${i}]{1,8}$` };
  const large = { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
  const told = await ask.during([free, held], [TELL, { temperature: 0, max_tokens: 3, schema: large }]);
  expect(told.ids).toEqual([alone.token_ids, listed.token_ids]);
  // Tokens of each between the question and the first of its answer: without a worker, those of one burst.
  for (const count of told.meanwhile) expect(count).toBeGreaterThan(10);
});

test("twenty answers at random all follow it", async ({ ask }) => {
  const asked = Array.from({ length: 20 }, (_, seed) => ({ temperature: 1, top_p: 1, seed, max_tokens: 100, schema: PERSON }));
  const answers = await ask(asked.map((params) => [TELL, params]));
  for (const answer of answers) follows(answer, PERSON);
  expect(new Set(answers.map(({ text }) => text)).size).toBeGreaterThan(10);
});

test("regular expressions and EBNF", async ({ ask }) => {
  const [date, sum] = await ask([
    ["When was Ada born?", { temperature: 1, seed: 1, regex: "(18|19)[0-9]{2}-[01][0-9]-[0-3][0-9]" }],
    ["What is 2 and 3?", { temperature: 1, seed: 2, grammar: 'root ::= number " + " number\nnumber ::= [1-9] [0-9]?' }],
  ]);
  expect(date.text).toMatch(/^(18|19)[0-9]{2}-[01][0-9]-[0-3][0-9]$/);
  expect(sum.text).toMatch(/^[1-9][0-9]? \+ [1-9][0-9]?$/);
  expect([date.finish_reason, sum.finish_reason]).toEqual(["stop", "stop"]);
});

test("what cannot be followed is refused by name, and others go on", async ({ ask }) => {
  const good = /** @type {[string, object]} */ ([TELL, { temperature: 1, seed: 5, max_tokens: 100, schema: PERSON }]);
  const [expected] = await ask([good]);
  /** @type {[object, string][]} */
  const bad = [
    [{ schema: { type: "integer", minimum: 5, maximum: 2 } }, "schema.minimum"], // found by the router
    [{ schema: { type: "object", properties: 5 } }, "schema.properties"],
    [{ grammar: "root ::= nothing" }, "grammar"], // found by XGrammar, which aborts
    [{ grammar: "root ::= root" }, "grammar"], // no end of it
    [{ regex: "(" }, "regex"],
    [{ schema: { type: "object", not: {} } }, "schema.not"],
    [{ schema: PERSON, resume: [504, 504] }, "schema"], // which no such answer begins with
  ];
  const [kept, ...refused] = await ask([good, ...bad.map(([params]) => /** @type {[string, object]} */ ([TELL, { max_tokens: 9, ...params }]))]);
  expect(kept.token_ids).toEqual(expected.token_ids);
  refused.forEach(({ error }, i) => expect(error, JSON.stringify(bad[i])).toMatchObject({ code: "invalid_request", field: bad[i][1] }));
  expect(refused[0].error.message).toContain("'minimum' at # leaves no value");
});

test("the grammar outlives its engine", async ({ ask }) => {
  const asked = /** @type {[string, object]} */ ([TELL, { temperature: 1, seed: 6, max_tokens: 100, schema: PERSON }]);
  const [expected] = await ask([asked]);
  const [answer] = await ask([asked], [4]); // the fourth call from now on kills its engine
  expect(answer.failovers).toHaveLength(1);
  expect(answer.token_ids).toEqual(expected.token_ids);
});

test("logprobs are the model's own", async ({ ask }) => {
  const { token_ids: ids, logits } = REFERENCE.first_token_logits;
  const params = { temperature: 0, max_tokens: 12 };
  const [plain, told, varied] = await ask([
    ["What is gravity?", params],
    ["What is gravity?", { ...params, logprobs: 20 }],
    ["What is gravity?", { temperature: 1.5, seed: 1, logit_bias: { [ids[0]]: -100 }, max_tokens: 1, logprobs: 5 }],
  ]);
  expect(told.token_ids).toEqual(plain.token_ids);
  expect(told.streamed).toEqual(told.logprobs);
  expect(told.logprobs.map((/** @type {any} */ each) => each.token)).toEqual(told.token_ids);
  for (const { token, logprob, top } of told.logprobs) {
    expect(top[0]).toEqual([token, expect.closeTo(logprob, 5)]);
    expect(top).toHaveLength(20);
    const mass = top.reduce((/** @type {number} */ sum, /** @type {number[]} */ [, each]) => sum + Math.exp(each), 0);
    expect(mass).toBeLessThanOrEqual(1 + 1e-5);
  }
  // Differences of logprobs are differences of logits: those of float32, less what int8 activations cost.
  const first = new Map(told.logprobs[0].top);
  const known = ids.map((id, i) => /** @type {const} */ ([id, logits[i] - logits[0]])).filter(([id]) => first.has(id));
  expect(known.length).toBeGreaterThan(15);
  for (const [id, difference] of known) expect(first.get(id) - first.get(ids[0])).toBeCloseTo(difference, 0);
  // Temperature and bias change what is chosen, not what is told.
  const [{ top }] = told.logprobs;
  expect(varied.logprobs[0].top).toEqual(top.slice(0, 5).map((/** @type {number[]} */ [id, each]) => [id, expect.closeTo(each, 5)]));
  expect(varied.logprobs[0].token).not.toBe(ids[0]);
});

test("functions are called as their parameters say", async ({ ask }) => {
  const weather = {
    type: "object",
    properties: { place: { type: "string", maxLength: 10 }, days: { type: "integer", minimum: 1, maximum: 9 } },
    required: ["place", "days"],
  };
  const mood = { type: "object", properties: { mood: { enum: ["good", "bad"] } }, required: ["mood"] };
  /** @type {Record<string, object>} */
  const parameters = { weather, mood };
  const tools = Object.entries(parameters).map(([name, each]) => ({ type: "function", function: { name, parameters: each } }));
  const [refused] = await ask([["Hi", { tools }]]);
  expect(refused.error).toMatchObject({ code: "unsupported", field: "tools" });

  const asked = [0, 1, 2].map((seed) => ({ temperature: 1, seed, max_tokens: 90, tools, tool_choice: "required", parallel_tool_calls: false }));
  const named = { ...asked[0], tool_choice: { type: "function", function: { name: "mood" } } };
  const answers = await ask([...asked, named].map((params) => ["How will the weather be in Ulm?", { ...params, model: "with-tools" }]));
  const calls = answers.map(({ text }) => /^<tool_call>\n\{"name": "(\w+)", "arguments": (.*)\}\n<\/tool_call>$/.exec(text) ?? [text, "", ""]);
  for (const [text, name, args] of calls) expect(problems(JSON.parse(args || "null"), parameters[name] ?? {}), text).toEqual([]);
  for (const [text, name] of calls) expect(Object.keys(parameters), text).toContain(name);
  expect(calls[3][1]).toBe("mood");
});
