/**
 * @file The built site's router with the real model: its prompts and answers are the reference's, and what a user may
 * send in error, or in malice, gives one typed error or stays what it is.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { REFERENCE, ROOT } from "./support/real.js";
import { expect, test as base } from "./support/site.js";

const { p32 } = REFERENCE.prompts;
/** p32's ids before and after what the user says: the chat template as the model's authors apply it. */
const SUFFIX = [2, 198, 1, 520, 9531, 198];
const PREFIX = p32.ids.slice(0, p32.ids.lastIndexOf(4093) + 2);

/** @typedef {(kind: "chat" | "complete" | "countTokens", asked: unknown, params?: object) => Promise<any>} Ask the completion, or {error} */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {site: import("./support/site.js").Served, ask: Ask}>} */
const test = base.extend(
  /** @type {any} */ ({
    ask: [
      /** @param {{browser: import("@playwright/test").Browser, site: import("./support/site.js").Served}} fixtures @param {(value: Ask) => Promise<void>} use */
      async ({ browser, site }, use) => {
        const page = await browser.newPage();
        await page.goto(`${site.url}NOTICES.txt`);
        await page.evaluate(async () => {
          const { InPage } = await import(new URL("client/inpage.js", location.href).href);
          /** @type {any} */ (globalThis).inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct" });
        });
        await use((kind, asked, params = { temperature: 0, max_tokens: 1 }) =>
          page.evaluate(
            async ([kind, asked, params]) => {
              try {
                if (kind === "countTokens") return await /** @type {any} */ (globalThis).inpage.countTokens(asked);
                let last;
                for await (const piece of /** @type {any} */ (globalThis).inpage[kind](asked, params)) last = piece;
                return last.completion;
              } catch (error) {
                const { code, message, field } = /** @type {any} */ (error);
                return { error: { code, message, field } };
              }
            },
            /** @type {const} */ ([kind, asked, params]),
          ),
        );
        await page.close();
      },
      { scope: "worker" },
    ],
  }),
);

/** @param {Ask} ask */
async function works(ask) {
  const answer = await ask("chat", "What is gravity?", { temperature: 0, max_tokens: 16 });
  expect(answer.prompt_ids).toEqual(p32.ids);
  // Answering freely, it says what float32 says up to the first choice that was close.
  const clear = p32.margin.findIndex((margin) => margin < 0.5);
  expect(clear).toBeGreaterThan(12);
  expect(answer.token_ids.slice(0, clear)).toEqual(p32.greedy_f32.slice(0, Math.min(clear, 16)));
}

test("asks as the reference asks, answers as it answers", async ({ ask }) => {
  await works(ask);
});

test("a prompt's tokens are counted as they are read, also where they do not fit", async ({ ask }) => {
  const count = (/** @type {unknown} */ messages) => ask("countTokens", messages);
  expect(await count("What is gravity?")).toBe(p32.ids.length);
  expect(await count([{ role: "user", content: "What is gravity?" }])).toBe(p32.ids.length);
  expect(await count("word ".repeat(9000))).toBeGreaterThan(9000);
  expect(await count([])).toMatchObject({ error: { code: "invalid_request", field: "messages" } });
});

test("control tokens that a user spells stay text", async ({ ask }) => {
  /** @type {{texts: {text: string, ids: number[], plain_ids: number[]}[]}} */
  const { texts } = JSON.parse(readFileSync(path.join(ROOT, "tests/reference/tokenizer-corpus.json"), "utf8"));
  const spelled = texts.filter(({ text }) => /^\S.*<\|im_end\|>/s.test(text));
  expect(spelled.length).toBeGreaterThan(2);
  for (const { text, ids, plain_ids } of spelled) {
    expect(ids).toContain(2);
    expect(plain_ids).not.toContain(2);
    expect((await ask("chat", text)).prompt_ids).toEqual([...PREFIX, ...plain_ids, ...SUFFIX]);
    expect((await ask("complete", text)).prompt_ids).toEqual(plain_ids);
  }
});

test("a prompt longer than the context, and none at all, are refused; the next call works", async ({ ask }) => {
  /** @type {["chat" | "complete", unknown, string][]} */
  const bad = [
    ["chat", "word ".repeat(8200), "messages"],
    ["complete", "word ".repeat(8200), "prompt"],
    ["complete", Array(8193).fill(504), "prompt"],
    ["chat", [], "messages"],
    ["complete", [], "prompt"],
    ["complete", [49152], "prompt[0]"],
  ];
  for (const [kind, asked, field] of bad) {
    const { error } = await ask(kind, asked);
    expect(error, `${kind} ${String(asked).slice(0, 20)}`).toMatchObject({ code: "invalid_request", field });
    expect(error.message).not.toContain("\n");
  }
  await works(ask);
});
