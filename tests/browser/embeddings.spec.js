/**
 * @file Embeddings and ranks in the page: tiny encoders, compiled, on WebAssembly and WebGPU, from Python's router through
 * the client and through OpenAI's interface, against transformers (tests/reference/encoders.json).
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { expect, test } from "./support/router.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const MEAN = "/bert-mean/";
const RANKS = "/bert-ranks/";
const WITNESS = JSON.parse(readFileSync(path.join(ROOT, "tests/reference/encoders.json"), "utf8"));
/** In float32, of the largest. */
const ERROR = 2e-5;

/** Texts and the question, and where the compiled models lie. @returns {{texts: string[], query: string, folders: string[]}} */
function compiled() {
  const script = `
import json
from support.encoders import bert_artifact
from support.tiny_bert import QUERY, TEXTS
print(json.dumps({"texts": TEXTS, "query": QUERY, "folders": [str(bert_artifact(n)) for n in ("mean", "ranks")]}))`;
  return told(script);
}

/** What a script prints last, as JSON. @param {string} script @returns {any} */
function told(script) {
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  const printed = execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { env, encoding: "utf8" });
  return JSON.parse(printed.trim().split("\n").at(-1) ?? "");
}

/** @param {import("./support/server.js").FaultServer} server */
function mounted(server) {
  const { folders, ...rest } = compiled();
  [MEAN, RANKS].forEach((prefix, i) => server.mount(prefix, folders[i]));
  return rest;
}

/** @param {number[][]} found @param {number[][]} wanted */
function near(found, wanted) {
  const largest = Math.max(...wanted.flat().map(Math.abs));
  return Math.max(...wanted.flat().map((value, i) => Math.abs(found.flat()[i] - value))) / largest;
}

/** @param {number[]} logits @returns {number[]} */
const scoresOf = (logits) => logits.map((x) => 1 / (1 + Math.exp(-x)));

/** How far scores are from those of the witness. @param {{results: {index: number, score: number}[]}} ranking @param {number[]} logits */
function offBy({ results }, logits) {
  const byIndex = [...results].sort((a, b) => a.index - b.index).map(({ score }) => score);
  return Math.max(...scoresOf(logits).map((score, i) => Math.abs(byIndex[i] - score)));
}

test.use(WITH_WEBGPU);
test.describe.configure({ timeout: 300_000 }); // the first time, two models are compiled

test("vectors, ranks, progress, an end, and OpenAI's interface", async ({ page, server, start }) => {
  const { texts, query } = mounted(server);
  const info = await start({ model: MEAN, backend: "wasm", models: [{ model: RANKS }] });
  expect(info.backend).toBe("wasm");
  const found = await page.evaluate(
    async ([texts, query, ranks, id]) => {
      const { inpage } = /** @type {any} */ (globalThis);
      /** @type {number[][]} */
      const told = [];
      const onProgress = (/** @type {number} */ done, /** @type {number} */ total) => told.push([done, total]);
      const { vectors, prompt_tokens } = await inpage.embed(texts, { truncate: true, onProgress });
      const alone = (await inpage.embed(texts[0])).vectors[0];
      const short = (await inpage.embed([texts[0]], { dimensions: 8 })).vectors[0];
      const end = new AbortController();
      const ended = inpage.embed(Array.from({ length: 3000 }, (_, i) => `cat ${i}`), { signal: end.signal, onProgress: () => end.abort() });
      const code = await ended.catch((/** @type {any} */ error) => error.code);
      const refused = await inpage.embed(["a", texts.at(-1)]).catch((/** @type {any} */ e) => [e.code, e.field]);
      const ranking = await inpage.rerank(query, texts, { model: ranks, truncate: true });
      const body = JSON.stringify({ model: id, input: texts.slice(0, 2), encoding_format: "float" });
      const reply = await inpage.fetch("http://inpage/v1/embeddings", { method: "POST", body });
      const { data } = await reply.json();
      return {
        vectors: vectors.map((/** @type {Float32Array} */ v) => [...v]), alone: [...alone], short: [...short], prompt_tokens, told, code, refused,
        ranking, data: data.map((/** @type {any} */ each) => each.embedding),
      };
    },
    /** @type {const} */ ([texts, query, "bert-ranks", "bert-mean"]),
  );
  const { vectors, ids } = WITNESS.mean;
  expect(near(found.vectors, vectors)).toBeLessThan(ERROR);
  expect(found.alone).toEqual(found.vectors[0]);
  expect(found.short).toHaveLength(8);
  expect(found.prompt_tokens).toBe(ids.flat().length);
  expect(found.told.at(-1)).toEqual([texts.length, texts.length]);
  expect(found.code).toBe("cancelled");
  expect(found.refused).toEqual(["invalid_request", "texts[1]"]);
  expect(near(found.data, vectors.slice(0, 2))).toBeLessThan(ERROR);
  expect(offBy(found.ranking, WITNESS.ranks.logits)).toBeLessThan(1e-4);
  const scores = scoresOf(WITNESS.ranks.logits);
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  expect(found.ranking.results.map((/** @type {{index: number}} */ { index }) => index)).toEqual(order);
});

/** Stands in the run of all tests, INPAGE_SLOW=1. */
const slowTest = process.env.INPAGE_SLOW ? test : test.skip;

slowTest("ten thousand texts, twice: told as they come, and memory is what it was", async ({ page, server, start }) => {
  mounted(server);
  await start({ model: MEAN, backend: "wasm" });
  const found = await page.evaluate(async () => {
    const { inpage, performance } = /** @type {any} */ (globalThis);
    const words = ["cat", "river", "seven", "of", "light", "and", "a stone"];
    const text = (/** @type {number} */ i) => Array.from({ length: 1 + (i % 12) }, (_, k) => words[(i * 7 + k * k) % words.length]).join(" ");
    const rounds = [];
    for (const round of [0, 1]) {
      const texts = Array.from({ length: 10_000 }, (_, i) => `${text(i)} ${round * 10_000 + i}`);
      /** @type {number[][]} */
      const told = [];
      const onProgress = (/** @type {number} */ done, /** @type {number} */ total) => told.push([done, total]);
      const { vectors } = await inpage.embed(texts, { truncate: true, cache: false, onProgress });
      const places = [0, 4_321, 9_999];
      const alone = await Promise.all(places.map((i) => inpage.embed(texts[i], { truncate: true, cache: false })));
      const same = places.every((i, k) => vectors[i].every((/** @type {number} */ x, /** @type {number} */ n) => x === alone[k].vectors[0][n]));
      const { weight_bytes, arena_bytes } = (await inpage.refresh());
      const { bytes } = await performance.measureUserAgentSpecificMemory();
      rounds.push({ told, same, count: vectors.length, engine: weight_bytes + arena_bytes, bytes });
    }
    return rounds;
  });
  for (const { told, same, count } of found) {
    expect([count, same]).toEqual([10_000, true]);
    expect(told.length).toBeGreaterThan(10);
    expect(told.at(-1)).toEqual([10_000, 10_000]);
    expect(told.map(([done]) => done)).toEqual(told.map(([done]) => done).sort((a, b) => a - b));
  }
  const [first, second] = found;
  expect(second.engine).toBe(first.engine);
  expect(second.bytes).toBeLessThan(first.bytes * 1.02);
  console.log(`10,000 texts: ${first.bytes} bytes of page and workers after them, ${second.bytes} after 10,000 more; ${first.engine} of the engine`);
});

slowTest("WebGPU: the same vectors, alone and in company", async ({ page, server, start }) => {
  const { texts } = mounted(server);
  const info = await start({ model: MEAN, backend: "webgpu" });
  expect(info.variant).toBe("webgpu-f32");
  const [together, alone] = await page.evaluate(async (texts) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const { vectors } = await inpage.embed(texts, { truncate: true });
    const single = [];
    for (const text of texts.slice(0, 3)) single.push((await inpage.embed(text)).vectors[0]);
    return [vectors, single].map((all) => all.map((/** @type {Float32Array} */ v) => [...v]));
  }, texts);
  expect(near(together, WITNESS.mean.vectors)).toBeLessThan(ERROR);
  expect(alone).toEqual(together.slice(0, 3));
});

/** Of kinds that are no BERT. */
const NAMES = ["qwen3", "gemma", "nomic", "xlmr-ranks"];
for (const backend of ["wasm", "webgpu"]) {
  slowTest(`Qwen3-Embedding's, EmbeddingGemma's, Nomic's and XLM-RoBERTa's kind: ${backend}`, async ({ page, server, start }) => {
    const script = `
import json
from support.encoders import page_artifact
from support.tiny_bert import QUERY, TEXTS
print(json.dumps({"texts": TEXTS, "query": QUERY, "folders": [str(page_artifact(n)) for n in ${JSON.stringify(NAMES)}]}))`;
    const { texts, query, folders } = told(script);
    NAMES.forEach((name, i) => server.mount(`/${name}/`, folders[i]));
    const models = NAMES.slice(1).map((name) => ({ model: `/${name}/`, backend }));
    const info = await start({ model: `/${NAMES[0]}/`, backend, models });
    expect(info.backend).toBe(backend);
    const found = await page.evaluate(
      async ([texts, query, names]) => {
        const { inpage } = /** @type {any} */ (globalThis);
        const vectors = [];
        for (const model of names.slice(0, -1)) {
          const { vectors: made } = await inpage.embed(texts, { truncate: true, model });
          vectors.push(made.map((/** @type {Float32Array} */ v) => [...v]));
        }
        return { vectors, ranking: await inpage.rerank(query, texts, { truncate: true, model: names.at(-1) }) };
      },
      /** @type {const} */ ([texts, query, NAMES]),
    );
    found.vectors.forEach((made, i) => expect(near(made, WITNESS[NAMES[i]].vectors), NAMES[i]).toBeLessThan(ERROR));
    expect(offBy(found.ranking, WITNESS["xlmr-ranks"].logits)).toBeLessThan(1e-4);
  });
}
