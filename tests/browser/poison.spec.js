/** @file One request must not take the others down: what would end the router is refused, what ends it is found. */

import { expect, greedy, test } from "./support/failing.js";

const INNOCENT = ["hello", "a b c", "who are you", "x", "the last one", "abc", "0123", "zz"];

/** Router workers that a page made. @param {import("@playwright/test").Page} page */
function routers(page) {
  /** @type {import("@playwright/test").Worker[]} */
  const made = [];
  page.on("worker", (worker) => worker.url().endsWith("/router/worker.js") && made.push(worker));
  return made;
}

/** Errors of requests with something nested, each made in the page. @param {import("@playwright/test").Page} page @param {number} depth */
function nested(page, depth) {
  return page.evaluate(async (depth) => {
    const { inpage } = /** @type {any} */ (globalThis);
    /** @type {(kind: "list" | "object") => any} */
    const deep = (kind) => {
      /** @type {any} */
      let value = 1;
      for (let i = 0; i < depth; i++) value = kind === "list" ? [value] : { a: value };
      return value;
    };
    const cycle = /** @type {any} */ ({});
    cycle.cycle = cycle;
    /** @param {any} parameters */
    const tool = (parameters) => ({ type: "function", function: { name: "f", parameters } });
    /** @type {Record<string, (() => any)>} */
    const asked = {
      tags: () => inpage.chat("hi", { tags: deep("list") }),
      seed: () => inpage.chat("hi", { seed: cycle }),
      schema: () => inpage.chat("hi", { schema: deep("object") }),
      "schema as text": () => inpage.chat("hi", { schema: "[".repeat(depth) + "]".repeat(depth) }),
      tools: () => inpage.chat("hi", { tools: [tool(deep("object"))] }),
      tool_choice: () => inpage.chat("hi", { tool_choice: deep("list") }),
      "messages of content": () => inpage.chat([{ role: "user", content: deep("list") }]),
      "messages[0].tool_calls[0].function.arguments": () =>
        inpage.chat([{ role: "assistant", content: "", tool_calls: [{ function: { name: "f", arguments: "[".repeat(depth) + "]".repeat(depth) } }] }]),
      messages: () => inpage.chat(deep("list")),
      prompt: () => inpage.complete(deep("list")),
      resume: () => inpage.complete("hi", { resume: [deep("list")] }),
      "tag of forget": () => inpage.forget(deep("list")),
      ids: () => inpage.score(deep("list")),
      prompts: () => inpage.prefetch([deep("list")]),
      model: () => inpage.preload(deep("object")),
      backend: () => inpage.add({ model: "other/", backend: deep("object") }),
    };
    const found = [];
    for (const [name, ask] of Object.entries(asked)) {
      try {
        const answer = ask();
        await (answer.next?.() ?? answer);
        found.push([name, "no error"]);
      } catch (error) {
        const { code, field } = /** @type {any} */ (error);
        found.push([name.split(" ")[0], code, field]);
      }
    }
    return found;
  }, depth);
}

test("a request that is nested too deeply is refused by name; the router and the others notice nothing", async ({ page, start, ask, model }) => {
  const made = routers(page);
  await start({ threads: 1 });
  const others = INNOCENT.map((question) => ask("chat", question));
  for (const depth of [3000, 101]) {
    const found = await nested(page, depth);
    expect(found).toEqual(found.map(([name]) => [name, "invalid_request", name]));
  }
  const answers = await Promise.all(others);
  expect(answers.map(({ ids }) => ids)).toEqual(INNOCENT.map((question) => greedy(model, question, 60)));
  expect(made.length).toBe(1);
});

test("the worker refuses what came to it unchecked, and answers the next", async ({ page, start }) => {
  await start({ threads: 1 });
  const heard = await page.evaluate(async () => {
    const worker = new Worker("/web/router/worker.js", { type: "module", name: "another" });
    const deep = "[".repeat(3000) + "]".repeat(3000);
    /** @type {any[]} */
    const heard = [];
    const done = new Promise((resolve) => {
      worker.onmessage = ({ data }) => {
        if (typeof data !== "string" || !data.includes('"id"') || data.includes('"job"')) return;
        heard.push(JSON.parse(data));
        if (heard.length === 5) resolve(undefined);
      };
    });
    worker.postMessage(`{"id": 1, "op": "chat", "params": {"tags": ${deep}}}`);
    worker.postMessage(`{"id": 2, "op": "chat", "messages": ${deep}}`);
    worker.postMessage(`{"id": 3, "op": "chat", "messages": [`);
    worker.postMessage(`{"id": 4, "op": "chat", "nothing": {"a": ${'{"b":'.repeat(3000)}1${"}".repeat(3000)}}}`);
    worker.postMessage(`{"id": 5, "op": "loaded"}`);
    await done;
    worker.terminate();
    return heard.map(({ id, error }) => [id, error.code, error.field]);
  });
  expect(heard).toEqual([
    [1, "invalid_request", "tags"],
    [2, "invalid_request", "messages"],
    [3, "invalid_request", null],
    [4, "invalid_request", "nothing"],
    [5, "unsupported", null],
  ]);
});

test("a request that ends each router fails alone, costs the others no token, and is not sent again and again", async ({ page, start, ask, model }) => {
  await page.evaluate(() => {
    const scope = /** @type {any} */ (globalThis);
    scope.kills = 0;
    globalThis.Worker = class extends Worker {
      /** @param {any} message @param {any[]} more */
      postMessage(message, ...more) {
        super.postMessage(message, .../** @type {[]} */ (more));
        if (typeof message !== "string" || !message.includes("POISON")) return;
        scope.kills++;
        this.terminate();
      }
    };
  });
  await start({ threads: 1 });
  const asked = [...INNOCENT.slice(0, 5), "POISON", ...INNOCENT.slice(5)];
  const answers = await Promise.all(asked.map((question) => ask("chat", question)));
  expect(answers.map(({ ids, code }) => ids ?? code)).toEqual(asked.map((question) => (question === "POISON" ? "poison_request" : greedy(model, question, 60))));
  expect(await page.evaluate(() => /** @type {any} */ (globalThis).kills)).toBeLessThanOrEqual(5); // in the crowd, beside others that proved harmless, alone
  expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
});

(process.env.INPAGE_SLOW ? test : test.skip)("routers that are killed again and again while many answer cost nobody anything", async ({ start, killer, ask, model }) => {
  await start({ threads: 1 });
  await killer.routers([3, 2, 7, 2, 11, 4]);
  const answers = await Promise.all(INNOCENT.map((question) => ask("chat", question)));
  expect(answers.map(({ ids, code }) => ids ?? code)).toEqual(INNOCENT.map((question) => greedy(model, question, 60)));
});

test("wherever Python dies it is said as fatal, and answers go on in the next router", async ({ page, start, ask, model }) => {
  const made = routers(page);
  await start({ threads: 1 });
  await page.evaluate(() => {
    // With its first tokens.
    const scope = /** @type {any} */ (globalThis);
    scope.first = new Promise((resolve) => (scope.begun = resolve));
  });
  const answered = page.evaluate(async () => {
    const { inpage, begun } = /** @type {any} */ (globalThis);
    const pieces = [];
    for await (const piece of inpage.chat("hello", { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 } })) {
      pieces.push(piece);
      begun();
    }
    return { ids: pieces.flatMap((piece) => piece.token_ids), completion: pieces.at(-1).completion };
  });
  await page.evaluate(() => /** @type {any} */ (globalThis).first);
  await made[0].evaluate(() => {
    performance.now = () => {
      throw new RangeError("Maximum call stack size exceeded");
    };
  });
  const later = await ask("chat", "a b c");
  const { ids } = await answered;
  expect(ids).toEqual(greedy(model, "hello", 60));
  expect(later.ids).toEqual(greedy(model, "a b c", 60));
  expect(made.length).toBe(2);
  expect(later.failovers.map((/** @type {any} */ { reason }) => reason)).toEqual([expect.stringMatching(/^fatal: Python failed: /)]);
});
