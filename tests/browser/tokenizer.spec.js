/** @file The page's tokenizer library, in Chromium, gives the ids that llama.cpp gives: the parity corpus and the reference prompts. */

import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "@playwright/test";

const ROOT = path.resolve(import.meta.dirname, "../..");
const MODEL = process.env.INPAGE_ARTIFACT ?? path.join(ROOT, "build/models/smollm2-135m-instruct");
const LIBRARY = path.join(ROOT, "node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs");

/** @param {string} name */
const reference = (name) => JSON.parse(readFileSync(path.join(ROOT, "tests/reference", name), "utf8"));

test("tokenizer.json encodes in the page as in llama.cpp", async ({ page }) => {
  const corpus = reference("tokenizer-corpus.json").texts;
  const prompts = Object.values(reference("smollm2-135m-instruct.json").prompts);
  const text = reference("smollm2-135m-instruct-text.json");
  const known = [...corpus, ...prompts, text];
  const result = await page.evaluate(
    async ({ library, json, texts }) => {
      const url = URL.createObjectURL(new Blob([library], { type: "text/javascript" }));
      const { Tokenizer } = await import(url);
      const whole = JSON.parse(json);
      const full = new Tokenizer(whole, {});
      const plain = new Tokenizer({ ...whole, added_tokens: [] }, {});
      /** @param {any} tokenizer @param {string} t @returns {number[]} */
      const encode = (tokenizer, t) => tokenizer.encode(t, { add_special_tokens: false }).ids;
      return texts.map((t) => ({ ids: encode(full, t), plain_ids: encode(plain, t) }));
    },
    {
      library: readFileSync(LIBRARY, "utf8"),
      json: readFileSync(path.join(MODEL, "tokenizer.json"), "utf8"),
      texts: known.map((t) => t.text),
    },
  );
  expect(known.length).toBeGreaterThan(250);
  for (const [i, { text: t, ids, plain_ids }] of known.entries()) {
    expect(result[i].ids, JSON.stringify(t).slice(0, 200)).toEqual(ids);
    if (plain_ids) expect(result[i].plain_ids, JSON.stringify(t).slice(0, 200)).toEqual(plain_ids);
  }
});
