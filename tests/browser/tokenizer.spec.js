/**
 * @file The page's tokenizer, in Chromium, gives the ids that llama.cpp gives: the parity corpus, the reference prompts, odd
 * texts with every kind of tokenizer, by a tokenizer.json and by its tables; and grammars work with SentencePiece's
 * vocabularies.
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "./support/site.js";

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

test("every kind of tokenizer encodes in the page as in llama.cpp, and SentencePiece follows a schema", async ({ page, site }) => {
  const script = path.join(import.meta.dirname, "support/tokenizers.py");
  const options = { cwd: ROOT, encoding: /** @type {const} */ ("utf8"), maxBuffer: 1 << 28 };
  const { texts, tokenizers, guided } = JSON.parse(execFileSync(path.join(ROOT, ".venv/bin/python"), [script], options));
  const { tokenizer: body } = guided;
  await page.route("**/models/spm/tokenizer.json", (route) => route.fulfill({ body, contentType: "application/json" }));
  await page.route("**/models/spm/tokenizer.bin", (route) => route.fulfill({ body: Buffer.from(guided.tables, "base64") }));
  await page.goto(`${site.url}NOTICES.txt`);

  const wrong = await page.evaluate(
    async ({ texts, tokenizers }) => {
      const { tokenizer } = await import(new URL("router/texts.js", location.href).href);
      return tokenizers.flatMap((/** @type {any} */ { name, description, tables, ids }) => {
        const outline = JSON.parse(description);
        const packed = Uint8Array.from(atob(tables), (letter) => letter.charCodeAt(0));
        const forms = { text: outline, tables: { ...outline, model: { ...outline.model, vocab: {}, merges: [] }, tables: packed } };
        return Object.entries(forms).map(([form, made]) => {
          const library = tokenizer(made);
          const found = texts.map((/** @type {string} */ text) => Array.from(library.encode([text]).ids));
          const differ = texts.filter((/** @type {string} */ _, /** @type {number} */ i) => String(found[i]) !== String(ids[i]));
          // A token as its vocabulary has it: of it come the bytes of one that is a part of a character.
          const { vocab } = outline.model;
          const other = Object.keys(vocab).filter((text) => library.piece(vocab[text]) !== text);
          const decoded = found.filter((/** @type {number[]} */ some) => some.length > 0).map((/** @type {number[]} */ some) => library.decode(some));
          return { name, form, differ: [...differ, ...other], decoded };
        });
      });
    },
    { texts, tokenizers },
  );
  expect(wrong.length).toBeGreaterThan(50);
  for (let i = 0; i < wrong.length; i += 2) expect(wrong[i + 1].decoded, wrong[i].name).toEqual(wrong[i].decoded);
  expect(wrong.filter((/** @type {any} */ { differ }) => differ.length > 0)).toEqual([]);

  const answers = await page.evaluate(
    async ({ guided }) => {
      const at = (/** @type {string} */ file) => import(new URL(file, location.href).href);
      const [{ Grammars }, { DEFAULT_POLICY }, { tokenizer }] = await Promise.all(
        ["engine/grammar/grammar.js", "engine/storage/download.js", "router/texts.js"].map(at),
      );
      const base = new URL("models/spm/", location.href).href;
      const source = { base, store: null, policy: DEFAULT_POLICY, signal: new AbortController().signal, warnings: [] };
      const grammars = await Grammars.open(source, guided.manifest, guided.size, 4);
      const [end] = guided.manifest.tokenizer.eos;
      const library = tokenizer(JSON.parse(guided.tokenizer));
      let seed = 1;
      const answers = [];
      for (let n = 0; n < 12; n++) {
        const constraint = { id: String(n), kind: "schema", source: guided.grammar };
        const mask = new Uint32Array(Math.ceil(guided.size / 32));
        /** @type {number[]} */
        const tokens = [];
        while (tokens.length < 300) {
          await grammars.mask(constraint, tokens, mask);
          const open = Array.from({ length: guided.size }, (_, i) => i).filter((i) => (mask[i >> 5] >> (i & 31)) & 1);
          seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
          // Every third choice is of a byte, where there is one.
          const bytes = tokens.length % 3 ? [] : open.filter((i) => i >= 3 && i < 259);
          const from = bytes.length > 0 ? bytes : open;
          const token = from[(seed >>> 8) % from.length];
          if (token === end) break;
          tokens.push(token);
        }
        answers.push({ text: library.decode(tokens), bytes: tokens.filter((i) => i >= 3 && i < 259).length });
      }
      return answers;
    },
    { guided },
  );
  for (const { text } of answers) {
    const { name, age, mood, ...rest } = JSON.parse(text);
    expect([typeof name, typeof age, Object.keys(rest)], text).toEqual(["string", "number", []]);
    expect(["\u00e9t\u00e9 \u2581", "ok"], text).toContain(mood);
  }
  expect(answers.some(({ bytes }) => bytes > 0)).toBe(true);
});
