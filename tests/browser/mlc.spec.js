/**
 * @file MLC's libraries as an engine of the page, with web-llm as npm has it. No library can be had where these tests run: what
 * is shown is all that happens up to one, with a module in its place that is none. With INPAGE_MLC_LIB, a folder of MLC's
 * with a library (*.wasm) in it, the last test runs it, beside web-llm driven by hand.
 */

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

import { MLCEngine } from "@mlc-ai/web-llm";

import { MlcExecutor, Tap } from "../../web/engine/mlc/executor.js";
import { callsOf, Sequences } from "../../web/engine/mlc/sequences.js";
import { Shards } from "../../web/engine/mlc/weights.js";
import { planOf } from "../../web/engine/sequential/sampler.js";
import { ROOT } from "./support/real.js";
import { expect, test } from "./support/router.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const MODEL = "/mlc/";
const GIVEN = process.env.INPAGE_MLC_LIB;

test.use(WITH_WEBGPU);

/** @param {string} artifact an expression of Python @returns {string} the folder that it gives */
function compiled(artifact) {
  const script = `
from inpage.cli import vendor
from inpage_compile.mlc_model import compile_mlc
from support.mlc_folder import *
vendor.ensure_one("@mlc-ai/web-llm")
print(${artifact})`;
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  return execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { env, encoding: "utf8" }).trim().split("\n").at(-1) ?? "";
}

test("up to the library: what the device lacks, damage, a site without web-llm, and a library that is none", async ({ page, server, origin }) => {
  const folder = compiled("mlc_artifact()");
  server.mount(MODEL, folder);
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  /** @param {Record<string, string>} [lacks] word that is required → another */
  const load = (lacks = {}) =>
    page.evaluate(
      async ([model, lacks]) => {
        const { EngineClient } = await import(/** @type {string} */ ("/web/engine/client.js"));
        const client = new EngineClient();
        const manifest = await (await fetch(`${model}manifest.json`)).json();
        const [variant] = manifest.variants;
        variant.requires = variant.requires.map((/** @type {string} */ word) => /** @type {any} */ (lacks)[word] ?? word);
        try {
          return await client.load({ base: new URL(model, location.href).href, manifest: JSON.stringify(manifest), variant: variant.name });
        } catch (error) {
          const { code, field, message } = /** @type {any} */ (error);
          return { code, field, message };
        } finally {
          await client.unload();
        }
      },
      /** @type {const} */ ([MODEL, lacks]),
    );
  const fetched = () => server.log.map((/** @type {any} */ each) => String(each.path ?? each)).filter((/** @type {string} */ name) => /\.(?:bin|wasm)$|web-llm\.js/.test(name));

  const limits = { "maxStorageBuffersPerShaderStage:10": "maxStorageBuffersPerShaderStage:999" };
  expect(await load(limits)).toMatchObject({ code: "unsupported", field: "variant", message: expect.stringMatching(/maxStorageBuffersPerShaderStage of \d+, not of 999/) });
  const halves = await page.evaluate(async () => {
    const { requireSupport } = await import(/** @type {string} */ ("/web/engine/mlc/load.js"));
    return requireSupport({ requires: ["webgpu", "shader-f16"] }, { wasm: ["atomics"], webgpu: true }).catch((/** @type {any} */ { message }) => message);
  });
  expect(halves).toContain("no shader-f16"); // which no software adapter has
  expect(fetched()).toEqual([]);

  const library = `${MODEL}mlc-webgpu/library.wasm`;
  const damaged = readFileSync(path.join(folder, "mlc-webgpu/library.wasm"));
  damaged[damaged.length - 1] ^= 1;
  server.fault(library, { body: damaged }, { body: damaged });
  expect(await load()).toMatchObject({ code: "artifact_invalid", field: "variants[0].library", message: expect.stringContaining("sha256") });

  // The real package takes its configuration and the library from the artifact, and finds no TVM in it.
  const none = { code: "artifact_invalid", field: "variants[0].library", message: expect.stringContaining("is no library that web-llm runs: TypeError") };
  expect(await load()).toMatchObject(none);
  expect(await page.evaluate(() => caches.keys())).toEqual([]); // the model is kept once, in our storage

  const before = fetched().length;
  const code = "/web/vendor/webllm/web-llm.js";
  server.fault(code, { status: 404 }, { status: 404 });
  expect(await load()).toMatchObject({ code: "unsupported", field: "variant", message: expect.stringContaining("this site has no web-llm") });
  expect(fetched().slice(before)).toEqual([code, code]);
});

test("what a library is fed; files are cut from shards, which are given back; the real engine without its model has died", async () => {
  const sequences = new Sequences();
  expect(sequences.goOn(0, 0)).toEqual([]); // begins
  sequences.add([5, 6, 7]);
  expect(sequences.goOn(0, 3)).toBe(null); // goes on
  expect(sequences.goOn(0, 2)).toEqual([5, 6]); // goes back
  sequences.add([5, 6, 8]);
  expect(sequences.goOn(1, 0)).toEqual([]); // another one
  sequences.add([9]);
  expect(sequences.goOn(0, 3)).toEqual([5, 6, 8]); // the first again
  sequences.add([5, 6, 8]);
  expect(() => sequences.goOn(1, 2)).toThrow("sequence 1 has 1 tokens, not 2");
  sequences.drop(0);
  expect(sequences.goOn(0, 0)).toEqual([]);
  expect(callsOf([5, 6, 7, 8], [])).toEqual([{ ids: [5, 6, 7, 8], end: 3 }]);
  expect(callsOf([5, 6, 7, 8], [1, 2, 1])).toEqual([{ ids: [5, 6], end: 1 }, { ids: [7], end: 2 }, { ids: [8], end: 3 }]);

  const shards = new Shards();
  for (const offset of [0, 8, 16]) {
    const target = shards.hold({ bytes: 8, offset });
    target.forEach((_, i) => (target[i] = offset + i));
  }
  expect([...shards.take({ path: "a", offset: 2, bytes: 3 })]).toEqual([2, 3, 4]);
  expect([...shards.take({ path: "b", offset: 6, bytes: 12 })]).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
  expect(() => shards.take({ path: "a", offset: 2, bytes: 3 })).toThrow("mlc.files: a was read before");

  // As after a lost device, of which web-llm learns as well.
  const tap = new Tap();
  const engine = new MLCEngine({ appConfig: { model_list: [] }, logitProcessorRegistry: new Map([["model", tap]]), logLevel: "ERROR" });
  const plan = planOf(/** @type {any} */ ({ variant: { name: "mlc-webgpu" }, vocab: 8, context: 8 }), 1);
  const gpu = { wait: (/** @type {Promise<unknown>} */ promise) => promise };
  const executor = new MlcExecutor(engine, tap, /** @type {any} */ (gpu), plan, /** @type {any} */ ({ fixedBytes: 0 }), 0);
  const one = { tokenIds: Int32Array.of(1), positions: Int32Array.of(0), rowSequence: Int32Array.of(0), blockTables: Int32Array.of(0), logitRows: Int32Array.of(0) };
  for (let i = 0; i < 2; i++) {
    const step = executor.step(/** @type {any} */ ({ ...one, wantLogits: true, bias: null }));
    await expect(step).rejects.toMatchObject({ code: "device_lost", message: expect.stringContaining("ModelNotLoadedError") });
  }
  await expect(engine.unload()).resolves.toBeUndefined();
});

test("a library that is given answers as web-llm driven by hand does, goes back, and follows a grammar", async ({ page, server, start, origin }) => {
  test.skip(!GIVEN, "INPAGE_MLC_LIB=FOLDER: MLC's libraries are not to be had here");
  const folder = path.resolve(GIVEN ?? "");
  const library = readdirSync(folder).find((name) => name.endsWith(".wasm"));
  if (!library) throw new Error(`${folder} has no library (*.wasm)`);
  const [from, code] = [JSON.stringify(folder), JSON.stringify(path.join(folder, library))];
  const out = JSON.stringify(path.join(ROOT, "build/tests/mlc-given"));
  server.mount(MODEL, compiled(`compile_mlc(${from}, ${code}, Path(${out}), Path("."), 256, lambda *_: None, True)`));
  server.mount("/given/resolve/main/", folder);
  const ids = [100, 200, 300, 400, 500, 600, 700, 800];
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  const byHand = await page.evaluate(
    async ([library, ids]) => {
      const { MLCEngine } = await import(/** @type {string} */ ("/web/vendor/webllm/web-llm.js"));
      const base = `${location.origin}/given/resolve/main/`;
      const overrides = { temperature: 0, top_p: 0.9, repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0, context_window_size: 256, sliding_window_size: -1 };
      const engine = new MLCEngine({ appConfig: { model_list: [{ model: base, model_id: "given", model_lib: `${base}${library}`, overrides }] } });
      await engine.reload("given");
      const tokens = [await engine.forwardTokensAndSample(ids, true)];
      while (tokens.length < 8) tokens.push(await engine.forwardTokensAndSample([tokens.at(-1)], false));
      await engine.unload();
      return tokens;
    },
    /** @type {const} */ ([library, ids]),
  );
  expect(await start({ model: MODEL, backend: "mlc" })).toMatchObject({ backend: "mlc", variant: "mlc-webgpu" });
  const found = await page.evaluate(async (ids) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const whole = async (/** @type {number[]} */ prompt, /** @type {object} */ options) => {
      let last;
      for await (const piece of inpage.complete(prompt, options)) last = piece;
      return last.completion;
    };
    const greedy = { temperature: 0, max_tokens: 8 };
    const [first, , again] = [await whole(ids, greedy), await whole(ids.slice(3), greedy), await whole(ids, greedy)];
    const held = await whole(ids, { regex: "[ab]{6}", temperature: 1, seed: 3, max_tokens: 12, logprobs: 2 });
    await inpage.unload();
    return { first: first.token_ids, again: again.token_ids, held };
  }, ids);
  expect(found.first.length).toBeGreaterThan(0); // fewer where the model ends
  expect(found.first).toEqual(byHand.slice(0, found.first.length));
  expect(found.again).toEqual(found.first);
  expect(found.held.text).toMatch(/^[ab]{6}$/);
  expect(found.held.logprobs[0].top).toHaveLength(2);
});
