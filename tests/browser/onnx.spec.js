/**
 * @file ONNX Runtime as an engine of the page: a tiny Llama's graph in the layout of onnxruntime-genai (float32) and of
 * transformers.js (4 bits, float16 cache), from Python's router. The witness is ONNX Runtime in Python, which for float32
 * says what PyTorch says (tests/reference/make_onnx.py).
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { expect, test } from "./support/failing.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const MODEL = "/onnx/";
const WITNESS = JSON.parse(readFileSync(path.join(ROOT, "tests/reference/onnx/onnx.json"), "utf8"));
/** So far apart that another order of sums changes nothing. */
const CLEAR = { fp32: 1e-3, q4f16: 0.02 };

/** @param {"onnx_artifact" | "both_artifact"} which of tests/support/onnx_folder.py @returns {string} its folder */
function compiled(which) {
  const script = `
from inpage.cli import vendor
from support import onnx_folder
vendor.ensure_one("onnxruntime-web")
print(onnx_folder.${which}())`;
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  return execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { env, encoding: "utf8" }).trim().split("\n").at(-1) ?? "";
}

/** How many tokens of an answer the witness is sure of. @param {"fp32" | "q4f16"} level @param {{greedy: number[], margin: number[]}} prompt */
function clear(level, { greedy, margin }) {
  const close = margin.findIndex((each) => each < CLEAR[level]);
  const stop = greedy.findIndex((token) => token === 0 || token === 2);
  return Math.min(...[close, stop, greedy.length].filter((n) => n >= 0));
}

test("it answers as ONNX Runtime does elsewhere: alone, together, in pieces; held to a grammar; with logprobs", async ({ page, server, start }) => {
  server.mount(MODEL, compiled("onnx_artifact"));
  for (const level of /** @type {const} */ (["fp32", "q4f16"])) {
    const info = await start({ model: `${MODEL}${level === "fp32" ? "" : `#${level}`}`, backend: "onnx" });
    expect(info).toMatchObject({ backend: "onnx", variant: "onnx-wasm", model: "tiny-llama" });
    const found = await page.evaluate(
      async ([prompts]) => {
        const { inpage } = /** @type {any} */ (globalThis);
        const whole = async (/** @type {AsyncIterable<any>} */ pieces) => {
          let last;
          for await (const piece of pieces) last = piece;
          return last.completion;
        };
        const greedy = { temperature: 0, max_tokens: 24 };
        const alone = [];
        for (const ids of prompts) alone.push(await whole(inpage.complete(ids, greedy)));
        const together = await Promise.all(prompts.map((/** @type {number[]} */ ids) => whole(inpage.complete(ids, greedy))));
        const drawn = [];
        for (let i = 0; i < 2; i++) drawn.push(await whole(inpage.complete(prompts[1], { temperature: 0.9, top_p: 0.9, seed: 5, max_tokens: 16 })));
        const held = await whole(inpage.complete(prompts[1], { regex: "[ab]{6}", temperature: 1, seed: 3, max_tokens: 12, logprobs: 2 }));
        return { alone, together, drawn, held };
      },
      [WITNESS[level].map((/** @type {any} */ { ids }) => ids)],
    );
    const tokens = (/** @type {any[]} */ answers) => answers.map(({ token_ids }) => token_ids);
    WITNESS[level].forEach((/** @type {any} */ prompt, /** @type {number} */ i) => {
      const sure = clear(level, prompt);
      expect(sure).toBeGreaterThan(4);
      expect(tokens(found.alone)[i].slice(0, sure)).toEqual(prompt.greedy.slice(0, sure));
    });
    expect(tokens(found.together)).toEqual(tokens(found.alone));
    expect(tokens(found.drawn)[1]).toEqual(tokens(found.drawn)[0]);
    expect(found.held.text).toMatch(/^[ab]{6}$/);
    expect(found.held.logprobs[0].top).toHaveLength(2);
    await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  }
  expect(server.log.filter((/** @type {any} */ each) => String(each.path ?? each).includes("asyncify"))).toEqual([]);
});

test("a token costs its inputs and a row of logits; a sequence can go back, is dropped, and is not made up", async ({ page, server, origin }) => {
  server.mount(MODEL, compiled("onnx_artifact"));
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  const prompt = WITNESS.q4f16[1];
  const found = await page.evaluate(
    async ([base, model, ids, greedy]) => {
      const { EngineClient } = await import(`${base}engine/client.js`);
      const { SEQUENCE, SEQUENCE_WORDS } = await import(`${base}engine/format/abi.js`);
      const level = `${model}q4f16/manifest.json`;
      const client = new EngineClient();
      const manifest = await (await fetch(level)).text();
      /** @type {any[]} */
      const told = [];
      const onProgress = (/** @type {any} */ event) => told.push(event);
      const info = await client.load({ base: new URL(model, location.href).href, manifest, variant: "onnx-wasm", threads: 2, onProgress });
      const slot = 3;
      /** @param {number[]} tokens @param {number} start */
      const step = (tokens, start) => client.step({
        tokenIds: Int32Array.from(tokens),
        positions: Int32Array.from(tokens, (_, i) => start + i),
        rowSequence: new Int32Array(tokens.length),
        blockTables: Int32Array.of(slot),
        logitRows: Int32Array.of(tokens.length - 1),
        wantLogits: true,
      });
      const before = await client.memory();
      const first = [...(await step(ids, 0)).logits];
      const counts = [await client.counters()];
      const sequences = new Int32Array(SEQUENCE_WORDS);
      const set = { token: greedy[0], position: ids.length, remaining: 8, reserved: 200, mask: -1 };
      for (const [name, value] of Object.entries(set)) sequences[SEQUENCE[name]] = value;
      new Float32Array(sequences.buffer).fill(1, SEQUENCE.top_p, SEQUENCE.top_p + 1).fill(1, SEQUENCE.repetition_penalty, SEQUENCE.repetition_penalty + 1);
      const { out } = await client.run({ sequences, n: 1, blockTables: Int32Array.of(slot), maxSteps: 8 });
      counts.push(await client.counters());
      const held = await client.memory();
      const again = [...(await step(ids.slice(1), 1)).logits];
      const beyond = await step([5], ids.length + 9).catch((/** @type {any} */ { code, field }) => [code, field]);
      client.drop(slot);
      const after = await client.memory();
      await client.unload();
      return { told, info, first, again, beyond, out: [...out], cost: [...counts[1]].map((n, i) => n - counts[0][i]), bytes: [held - before, after - before] };
    },
    /** @type {const} */ (["/web/", MODEL, prompt.ids, prompt.greedy]),
  );
  const runtime = found.told.filter(({ phase }) => phase === "kernels").at(-1); // before the weights, with its size
  expect(runtime.loaded).toBe(runtime.total);
  expect(runtime.total).toBeGreaterThan(1e7);
  expect(found.told.findIndex(({ phase }) => phase === "weights")).toBeGreaterThan(found.told.indexOf(runtime));
  expect(found.info).toMatchObject({ page_bytes: 0, page_tokens: 1, max_pages: 0, threads: 2, vocab: 320, context: 256 });
  expect(found.out).toEqual(prompt.greedy.slice(1, 9));
  const [steps, , rows, sampled, , , tensors, bytes] = found.cost;
  expect([steps, rows, sampled]).toEqual([8, 8, 8]);
  expect([tensors, bytes]).toEqual([8 * 4, 8 * 320 * 2]); // its four inputs; keys and values go back as they came
  expect(Math.max(...found.first.map((value, i) => Math.abs(found.again[i] - value)))).toBeLessThan(CLEAR.q4f16);
  expect(found.beyond).toEqual(["invalid_request", "positions"]);
  const [held, left] = found.bytes;
  expect([held, left]).toEqual([2 * 2 * 2 * 16 * 2 * (prompt.ids.length + 8), 0]);
});

test("a graph that is not what its manifest says, and a site without the runtime, have their names", async ({ page, server, origin }) => {
  server.mount(MODEL, compiled("onnx_artifact"));
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  const load = (/** @type {number} */ heads) =>
    page.evaluate(
      async ([model, heads]) => {
        const { EngineClient } = await import(/** @type {string} */ ("/web/engine/client.js"));
        const client = new EngineClient();
        const manifest = await (await fetch(`${model}manifest.json`)).json();
        manifest.architecture.kv_heads = heads;
        const said = (/** @type {any} */ { code, field }) => [code, field];
        try {
          await client.load({ base: new URL(model, location.href).href, manifest: JSON.stringify(manifest), variant: "onnx-wasm", threads: 1, cache: false });
        } catch (error) {
          return [said(error)];
        }
        const one = { tokenIds: Int32Array.of(5), positions: Int32Array.of(0), rowSequence: Int32Array.of(0), blockTables: Int32Array.of(0), logitRows: Int32Array.of(0), wantLogits: true };
        const found = [];
        for (let i = 0; i < 2; i++) found.push(await client.step(one).then(() => "no error", said));
        await client.unload();
        return found;
      },
      /** @type {const} */ ([MODEL, heads]),
    );
  expect(await load(4)).toEqual([["artifact_invalid", "graph.cache"], ["artifact_invalid", "graph.cache"]]);
  server.fault("/web/vendor/onnxruntime/ort-wasm-simd-threaded.wasm", { status: 404 });
  expect(await load(2)).toEqual([["unsupported", "variant"]]);
});

test("beside our engine it is a candidate, and an answer goes on with the other where the faster one dies", async ({ page, server, start, killer, ask }) => {
  server.mount(MODEL, compiled("both_artifact"));
  await start({ model: MODEL, threads: 1 });
  const measured = await page.evaluate(async () => {
    const { inpage } = /** @type {any} */ (globalThis);
    await inpage.measure();
    return { explained: await inpage.explain(), variant: (await inpage.refresh()).variant };
  });
  for (const name of ["wasm-simd", "onnx-wasm"]) expect(measured.explained).toMatch(new RegExp(`${name}: .*tokens a second`));
  // Which of them runs depends on how busy the machine was when they were measured.
  const faster = measured.variant;
  const other = faster === "wasm-simd" ? "onnx-wasm" : "wasm-simd";
  await killer.engines([2, 1]);
  const [, prompt] = WITNESS.fp32;
  const { ids, failovers } = await ask("complete", prompt.ids);
  expect(failovers.map((/** @type {any} */ { from, to }) => `${from} ${to}`)).toEqual([`${faster} ${faster}`, `${faster} ${other}`]);
  expect(ids.slice(0, prompt.greedy.length)).toEqual(prompt.greedy);
  const explained = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.explain());
  // Ours is the first by rank: that is no taking over, but a return.
  expect(explained).toMatch(new RegExp(`Running ${other}: ${other === "wasm-simd" ? "measured" : "took over because"}`));
  expect(explained).toMatch(new RegExp(`${faster}: .*failed \\d+ seconds ago`));
});
