/**
 * @file The WebGPU executor in Chromium, on the software adapter that it brings, with the synthetic model: numbers, bursts,
 * what it creates and submits, faults, and weights shared with WASM.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";

import { SCORE_WORDS, SEQUENCE, SEQUENCE_WORDS } from "../../web/engine/format/abi.js";
import { groupWeights } from "../../web/engine/webgpu/buffers.js";
import { COUNTERS } from "../../web/engine/webgpu/counters.js";
import { fold, Uniforms } from "../../web/engine/webgpu/uniforms.js";
import { weightSink } from "../../web/engine/webgpu/weights.js";
import { ARTIFACT, call } from "./support/fixtures.js";
import { asFloat, BLOCKS, blockTables, feed, sequenceStruct, VOCAB } from "./support/model.js";
import { changedPlan, expect, loaded, test, WITH_WEBGPU, withoutChoices } from "./support/webgpu.js";

test.use({ ...WITH_WEBGPU, together: true });

// What is loaded in a test itself chooses no token.
test.beforeEach(({ server }) => withoutChoices(server));

const PROMPT = [5, 17, 3, 42, 8, 8, 60, 1, 0, 33, 21, 9, 14, 2, 7, 11, 25, 30, 4, 6]; // over a page's edge

/** @typedef {import("@playwright/test").Page} Page */
/** @typedef {Record<keyof typeof COUNTERS, number>} Counted */

/** What happens while `act` does, by counter. @param {Page} lab @param {() => Promise<unknown>} act @returns {Promise<Counted>} */
async function counted(lab, act) {
  const before = (await call(lab, "counters")).value;
  await act();
  const after = (await call(lab, "counters")).value;
  return /** @type {Counted} */ (Object.fromEntries(Object.entries(COUNTERS).map(([name, i]) => [name, after[i] - before[i]])));
}

/** @param {Record<string, number>} floats @param {Record<string, number>} fields */
function sampled(floats, fields) {
  const words = Int32Array.from(sequenceStruct(fields));
  for (const [name, value] of Object.entries(floats)) new Float32Array(words.buffer)[SEQUENCE[/** @type {"top_p"} */ (name)]] = value;
  return Array.from(words);
}

test("weights are cut between tensors into buffers of 128 MiB", () => {
  const MiB = 2 ** 20;
  const weight = (/** @type {number} */ offset, /** @type {number} */ bytes) => ({ name: "w", kind: "weight", offset, bytes });
  const group = (/** @type {object[]} */ ...buffers) => groupWeights(/** @type {any} */ ({ buffers }));
  expect(group(weight(100 * MiB, 28 * MiB), { kind: "kv" }, weight(0, 100 * MiB), weight(128 * MiB, 256))).toEqual([
    { start: 0, end: 128 * MiB },
    { start: 128 * MiB, end: 128 * MiB + 256 },
  ]);
  // Two slices of one tensor, and the tensor bound again under another name.
  expect(group(weight(0, 100 * MiB), weight(100 * MiB, 100 * MiB), weight(0, 100 * MiB))).toHaveLength(2);
  expect(() => group(weight(0, 129 * MiB))).toThrow("larger than");
});

test("each byte of 12 GB of weights is copied to its place", async () => {
  // Layers of a 7B in half precision, tensors padded to 256 bytes, shards of 16 MiB that end anywhere within them.
  const MiB = 2 ** 20;
  const sizes = Array.from({ length: 27 }, () => [16384, 50331648, 33554432, 117440512, 117440512, 117440512, 9216]);
  let end = 0;
  const weights = sizes.flat().map((bytes) => ({ name: "w", kind: "weight", offset: (end = Math.ceil(end / 256) * 256 + bytes) - bytes, bytes }));
  expect(end).toBeGreaterThan(11.7e9);
  /** @type {Map<object, [number, number][]>} */
  const written = new Map();
  /** @type {number[]} */
  let staged = [];
  const range = new ArrayBuffer(16 * MiB);
  // A GPU with so much memory cannot be had here: this one keeps the ranges of copies.
  const gpu = {
    attempt: async (/** @type {string} */ _, /** @type {() => unknown} */ make) => make(),
    buffer: () => ({ getMappedRange: () => range, unmap: () => undefined, mapAsync: async () => undefined }),
    wait: (/** @type {unknown} */ done) => done,
    submit: () => undefined,
    free: () => undefined,
    device: {
      createCommandEncoder: () => ({
        copyBufferToBuffer: (/** @type {object} */ _, /** @type {number} */ from, /** @type {object} */ to, /** @type {number} */ at, /** @type {number} */ bytes) => {
          expect(from + bytes).toBeLessThanOrEqual(16 * MiB);
          written.get(to)?.push([at, at + bytes]);
          staged.push(bytes);
        },
      }),
    },
  };
  const groups = groupWeights(/** @type {any} */ ({ buffers: weights })).map((group) => ({ ...group, buffer: /** @type {any} */ ({}) }));
  groups.forEach(({ buffer }) => written.set(buffer, []));
  const sink = await weightSink(/** @type {any} */ (gpu), groups, 16 * MiB);
  for (let offset = 0; offset < end; offset += 16 * MiB) {
    const shard = /** @type {any} */ ({ offset, bytes: Math.min(16 * MiB, end - offset) });
    staged = [];
    await sink.open(0, shard);
    await sink.place(0, shard);
    const gaps = 256 * staged.length; // between tensors that are in different buffers
    expect(staged.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThanOrEqual(shard.bytes - gaps);
  }
  for (const { start, end, buffer } of groups) {
    expect(end - start).toBeLessThanOrEqual(128 * MiB);
    let reached = 0;
    for (const [from, to] of written.get(buffer) ?? []) {
      expect(from).toBe(reached);
      reached = to;
    }
    expect(reached).toBe(end - start);
  }
});

test("grids are computed from the variables, long ones folded, and equal blocks shared", () => {
  expect(fold([65535, 2, 1])).toEqual([65535, 2, 1]);
  expect(fold([65536, 2, 1])).toEqual([32768, 2, 2]);
  expect(fold([200_001, 1, 1])).toEqual([50_001, 1, 4]);
  const [rows, logitRows] = [{ variable: 0 }, { variable: 2 }];
  const launch = { kernel: 0, buffers: [], scalars: [[1, 0], [0, 7]], grid: [200_000, { operator: "ceildiv", a: rows, b: 8 }, 1] };
  const head = { ...launch, scalars: [[1, 2]], grid: [3, { operator: "*", a: logitRows, b: { operator: "+", a: rows, b: 1 } }, 1] };
  const uniforms = new Uniforms(/** @type {any} */ ([launch, head, launch]));
  expect(uniforms.blocks).toEqual([0, 1, 0]);
  expect(uniforms.set([17, 1, 2])?.subarray(0, 3)).toEqual(Int32Array.of(17, 7, 199_999));
  expect(uniforms.grids).toEqual([[50_000, 3, 4], [3, 36, 1], [50_000, 3, 4]]);
  expect(uniforms.set([17, 1, 2])).toBeNull();
  expect(uniforms.set([17, 1, 0])?.subarray(64, 66)).toEqual(Int32Array.of(0, 2));
  expect(uniforms.grids[1]).toBeNull();
});

test("says what was loaded, and refuses a wrong batch by name", async ({ lab, model }) => {
  const info = await loaded(lab, {}, 0);
  expect(info).toMatchObject({
    backend: "webgpu", variant: "webgpu-f32", vocab: VOCAB, context: 128, page_tokens: 16, page_bytes: 256,
    blocks_per_sequence: BLOCKS, max_rows: 32, max_sequences: 4, max_logit_rows: 32, max_pages: 4 * BLOCKS, warnings: [],
    weight_bytes: model.manifest.weights.shards.reduce((sum, shard) => sum + shard.bytes, 0),
    adapter: { software: true, vendor: expect.any(String) },
  });

  const good = feed([PROMPT]);
  expect((await call(lab, "step", good)).error).toMatchObject({ code: "invalid_request", field: "blockTables" });
  await call(lab, "reservePages", 8);
  /** @type {[object, string][]} */
  const wrong = [
    [{ ...good, tokenIds: PROMPT.map(() => VOCAB) }, "tokenIds"],
    [{ ...good, logitRows: [PROMPT.length] }, "logitRows"],
    [{ ...good, sample: sequenceStruct({ mask: 5 }) }, "mask"],
    [{ ...good, sample: sequenceStruct({ n_bias: 5000 }), bias: Array.from({ length: 10_000 }, () => 1) }, "bias"],
  ];
  for (const [batch, field] of wrong) {
    expect((await call(lab, "step", batch)).error).toMatchObject({ code: "invalid_request", field });
  }
  const { value } = await call(lab, "step", { ...good, logitRows: [PROMPT.length - 1], wantLogits: true });
  expect(value.logits).toEqual(model.logits(PROMPT));
});

test("logits, scores and choices are the model's, in one submit", async ({ atOnce: lab, model }) => {
  const targets = [...PROMPT.slice(1), -1];
  const sample = [0, 1, 2, 3].flatMap((position) => sequenceStruct({ position }));
  /** @type {any} */
  let value;
  const counts = await counted(lab, async () => {
    ({ value } = await call(lab, "step", { ...feed([PROMPT]), targets, sample, wantLogits: true }));
  });
  expect(counts).toMatchObject({ steps: 1, rows: PROMPT.length, launches: 3, sampled: 4, submits: 1 });
  for (let row = 0; row < PROMPT.length; row++) {
    const expected = model.logits(PROMPT.slice(0, row + 1));
    expect(value.logits.slice(row * VOCAB, (row + 1) * VOCAB)).toEqual(expected);
    const sorted = expected.toSorted((a, b) => b - a);
    const best = expected.indexOf(sorted[0]);
    const sum = expected.reduce((total, x) => total + Math.exp(x - sorted[0]), 0);
    const nll = targets[row] < 0 ? 0 : sorted[0] - expected[targets[row]] + Math.log(sum);
    const [argmax, ...floats] = value.scores.slice(row * SCORE_WORDS, (row + 1) * SCORE_WORDS);
    expect(argmax).toBe(best);
    expect(asFloat(floats[0])).toBeCloseTo(nll, 4);
    expect(asFloat(floats[1])).toBe(sorted[0] - sorted[1]);
    if (row >= 4) continue;
    const struct = value.sequences.slice(row * SEQUENCE_WORDS);
    expect(struct[SEQUENCE.chosen]).toBe(best);
    expect(asFloat(struct[SEQUENCE.margin])).toBe(sorted[0] - sorted[1]);
    expect(asFloat(struct[SEQUENCE.logprob])).toBeCloseTo(-Math.log(sum), 5);
  }
});

test("sequences in one batch keep to their own pages, fed whole or in chunks, while KV grows", async ({ lab, model }) => {
  await loaded(lab, {}, 16);
  const both = [PROMPT.slice(0, 9), PROMPT.slice(9, 18)];
  const whole = await call(lab, "step", { ...feed(both), wantLogits: true });
  const last = [8, 17].map((row) => whole.value.logits.slice(row * VOCAB, (row + 1) * VOCAB));
  expect(last).toEqual(both.map((tokens) => model.logits(tokens)));

  await call(lab, "step", { ...feed(both.map((tokens) => tokens.slice(0, 5))), logitRows: [] });
  const grown = await counted(lab, () => call(lab, "reservePages", 20));
  expect(grown).toMatchObject({ buffers: 1, bind_groups: 4 }); // kv, and who touches it in two functions
  const chunk = await call(lab, "step", { ...feed(both.map((tokens) => tokens.slice(5)), 5), wantLogits: true });
  expect([3, 7].map((row) => chunk.value.logits.slice(row * VOCAB, (row + 1) * VOCAB))).toEqual(last);
  expect((await call(lab, "reservePages", 33)).error).toMatchObject({ code: "out_of_memory", field: "pages" });
});

test("a burst is a pass and a submit a step, nothing created, four bytes read back a token", async ({ atOnce: lab, model }) => {
  await call(lab, "step", { ...feed([PROMPT.slice(0, -1)]), logitRows: [] });
  const run = { sequences: sequenceStruct({ token: PROMPT[19], position: 19, remaining: 24, reserved: 128 }), n: 1, blockTables: blockTables(1) };
  await call(lab, "run", { ...run, maxSteps: 1 }); // how long a step takes is known after it
  /** @type {any} */
  let value;
  const counts = await counted(lab, async () => {
    ({ value } = await call(lab, "run", { ...run, maxSteps: 24 }));
  });
  expect(value.out).toEqual(model.greedy(PROMPT, 24));
  expect(counts).toEqual({
    steps: 24, rows: 24, sampled: 24, launches: 24 * 3, dispatches: 24 * 5, passes: 24, submits: 24,
    readbacks: 1, readback_bytes: 4 * 24, buffers: 0, bind_groups: 0, buffer_bytes: 0,
  });
});

test("sequences end by a stop id, their length or their pages, and the others go on", async ({ atOnce: lab, model }) => {
  const prompts = [PROMPT.slice(0, 6), PROMPT.slice(6, 9), PROMPT.slice(9, 13), PROMPT.slice(13, 16)];
  const greedy = prompts.map((prompt) => model.greedy(prompt, 16));
  const stop = greedy[2][4];
  const lengths = [16, 3, greedy[2].indexOf(stop) + 1, 14]; // the last starts at position 2 and has one page
  const tables = blockTables(4);
  await call(lab, "step", { ...feed(prompts.map((prompt) => prompt.slice(0, -1))), blockTables: tables, logitRows: [] });
  const fields = [{}, { remaining: 3 }, { n_stop: 1, stop }, { reserved: 16 }];
  const sequences = prompts.flatMap((prompt, i) =>
    sequenceStruct({ token: prompt[prompt.length - 1], position: prompt.length - 1, remaining: 16, reserved: 128, ...fields[i] }),
  );
  const { value } = await call(lab, "run", { sequences, n: 4, blockTables: tables, maxSteps: 64 });
  const produced = [0, 1, 2, 3].map((i) => value.out.filter((/** @type {number} */ _, /** @type {number} */ at) => at % 4 === i));
  expect(value.steps).toBe(16);
  produced.forEach((tokens, i) => {
    expect(tokens.filter((/** @type {number} */ token) => token >= 0)).toEqual(greedy[i].slice(0, lengths[i]));
  });
  const finished = [0, 1, 2, 3].map((i) => value.sequences[i * SEQUENCE_WORDS + SEQUENCE.finished]);
  expect(finished).toEqual([2, 2, 1, 3]);

  // What has finished sits the next burst out; the pages of the others are as if they had run alone.
  expect((await call(lab, "run", { sequences: value.sequences, n: 4, blockTables: tables, maxSteps: 4 })).value.steps).toBe(0);
  for (const [i, prompt] of prompts.entries()) {
    const end = prompt.length + lengths[i] - 1;
    const text = [...prompt, ...greedy[i]].slice(0, end + 1);
    const row = { tokenIds: [text[end]], positions: [end], rowSequence: [i], blockTables: tables, logitRows: [0], wantLogits: true };
    if (i !== 3) expect((await call(lab, "step", row)).value.logits).toEqual(model.logits(text));
  }
});

test("a sampled burst is single steps, with penalties and a bias, in one slice or many", async ({ atOnce, sliced }) => {
  const floats = { temperature: 1.3, top_p: 0.97, repetition_penalty: 1.2, presence_penalty: 0.5, frequency_penalty: 0.3 };
  const biasWords = Array.from(new Int32Array(Float32Array.of(-3).buffer));
  const bias = [7, ...biasWords, 9, ...biasWords];
  const START = { token: 6, position: 19, remaining: 30, reserved: 128, n_bias: 2, seed: 77 };
  /** @type {number[][]} */
  const answers = [];
  const lab = atOnce;
  for (const lab of [atOnce, sliced]) {
    await call(lab, "step", { ...feed([PROMPT.slice(0, -1)]), logitRows: [] });
    const run = { sequences: sampled({ ...floats, temperature: 300 }, START), n: 1, blockTables: blockTables(1), bias, maxSteps: 20 };
    answers.push((await call(lab, "run", run)).value.out);
  }
  /** @type {number[]} */
  const tokens = [];
  let struct = sampled({ ...floats, temperature: 300 }, START);
  while (tokens.length < 20) {
    const at = 19 + tokens.length;
    const row = { tokenIds: [struct[SEQUENCE.token]], positions: [at], rowSequence: [0], blockTables: blockTables(1), logitRows: [0] };
    const { value } = await call(lab, "step", { ...row, sample: struct, bias });
    const chosen = value.sequences[SEQUENCE.chosen];
    struct = [...struct];
    struct[SEQUENCE.history + struct[SEQUENCE.n_history]++] = struct[SEQUENCE.token] = chosen;
    struct[SEQUENCE.position]++;
    tokens.push(chosen);
  }
  expect(answers).toEqual([tokens, tokens]);
  expect(new Set(tokens).size).toBeGreaterThan(3);
});

test("interrupt ends a burst after the slices under way, and the next one runs on", async ({ sliced: lab }) => {
  const burst = { sequences: sequenceStruct({ token: 5, position: 0, remaining: 100, reserved: 128 }), n: 1, blockTables: blockTables(1), maxSteps: 60 };
  const { value } = await call(lab, "runInterrupted", burst);
  expect(value.steps).toBeLessThan(60);
  expect((await call(lab, "run", burst)).value.steps).toBe(60);
});

// The last one with this page.
test("a device that is lost in a burst rejects what is pending, and the next load works", async ({ sliced: lab, model }) => {
  const sequences = sequenceStruct({ token: 5, position: 0, remaining: 100, reserved: 128 });
  const burst = call(lab, "run", { sequences, n: 1, blockTables: blockTables(1), maxSteps: 100 });
  await call(lab, "fail", "device");
  expect((await burst).error.code).toBe("device_lost");
  expect((await call(lab, "step", feed([[1]]))).error.code).toBe("device_lost");
  await loaded(lab);
  const { value } = await call(lab, "step", { ...feed([[1, 2]]), wantLogits: true });
  expect(value.logits.slice(VOCAB)).toEqual(model.logits([1, 2]));

  // While idle it is known at the next call.
  await call(lab, "fail", "device");
  await expect.poll(async () => (await call(lab, "counters")).error?.code).toBe("device_lost");
});

test("an error names the launch that it belongs to", async ({ lab, model, server, artifact }) => {
  const { plan, manifest } = changedPlan(artifact, (p) => (p.functions[1].launches[1].grid[1] = 65536));
  server.fault(`${ARTIFACT}/webgpu-f32/plan.json`, { body: plan });
  const { error } = await call(lab, "load", { base: ARTIFACT, variant: "webgpu-f32", manifest, cache: false });
  expect(error).toMatchObject({ code: "artifact_invalid", field: "plan.functions[1].launches[1].grid[1]" });

  // In debug mode each launch is looked at by itself, and the numbers are the same.
  await loaded(lab, { debug: true });
  const { value } = await call(lab, "step", { ...feed([[1, 2]]), wantLogits: true });
  expect(value.logits.slice(VOCAB)).toEqual(model.logits([1, 2]));
});

test("kernels that do the same: each leaves the same logits on a grid of its own, and is timed before the first step", async ({ lab, model, server, artifact }) => {
  const { plan, manifest } = changedPlan(artifact, (p) => {
    // The first takes two rows a workgroup: on its grid the other would leave out half of them.
    const pairs = p.kernels.push({ ...p.kernels[1], name: "accumulate_pairs", workgroup: [64, 2, 1] }) - 1;
    p.alternatives = [[pairs, 1]];
    for (const { launches } of p.functions) {
      launches[1] = { ...launches[1], kernel: pairs, grid: [1, ["ceildiv", "logit_rows", 2], 1], others: [launches[1].grid] };
    }
  });
  const names = ["accumulate_pairs", "accumulate"];
  const load = async (/** @type {object} */ options, /** @type {string} */ name) => {
    server.fault(`${ARTIFACT}/webgpu-f32/plan.json`, { body: plan });
    const { value } = await call(lab, "load", { base: ARTIFACT, variant: "webgpu-f32", manifest, cache: false, ...options }, name);
    await call(lab, "reservePages", 8, name);
    return value.alternatives;
  };
  const logits = async () => {
    const input = { ...feed([PROMPT.slice(0, 3)]), logitRows: [0, 1, 2], wantLogits: true };
    return (await call(lab, "step", input, "tuned")).value.logits;
  };
  const wanted = [1, 2, 3].flatMap((n) => model.logits(PROMPT.slice(0, n)));

  expect(await load({ tune: true, kernels: ["accumulate"] }, "tuned")).toEqual([names]);
  const kernels = [...names, "accumulate_pairs"].map((name) => ({ name, most: 4 }));
  const timed = async (/** @type {number} */ budgetMs) => (await call(lab, "timeKernels", { kernels, budgetMs }, "tuned")).value;
  expect((await timed(1e6)).every((/** @type {number} */ ms) => ms >= 0)).toBe(true);
  expect(await timed(0)).toEqual([NaN, NaN, NaN]);
  for (const name of ["accumulate", "accumulate_pairs", "accumulate"]) {
    expect((await call(lab, "chooseKernels", [name], "tuned")).error).toBeUndefined();
    expect(await logits()).toEqual(wanted);
  }
  expect(await timed(1e6)).toEqual([NaN, NaN, NaN]); // they would write to pages in use
  expect(await call(lab, "chooseKernels", ["store"], "tuned")).toMatchObject({ error: { code: "invalid_request", field: "kernels" } });
  expect(await load({}, "untuned")).toEqual([]); // on a software adapter
});

test("a kernel that a driver refuses, or whose feature is missing, is left out where another does the same", async ({ lab, model, server, artifact }) => {
  const features = { refused: [], halves: ["shader-f16"], together: ["subgroups"] }; // software adapters have the last one
  const { plan, manifest } = changedPlan(artifact, (p) => {
    const others = Object.entries(features).map(([name, requires]) =>
      p.kernels.push({ ...p.kernels[1], name, ...(requires.length ? { requires } : {}) }) - 1);
    p.alternatives = [[1, ...others]];
    for (const { launches } of p.functions) launches[1].others = others.map(() => launches[1].grid);
  });
  const { kernels } = manifest.variants.find((/** @type {{name: string}} */ { name }) => name === "webgpu-f32");
  const right = readFileSync(path.join(artifact, kernels.file), "utf8");
  const [twin] = right.split("//: accumulate\n")[1].split("//: ");
  const sources = {
    refused: "@compute @workgroup_size(64) fn refused() { nothing(); }\n",
    halves: twin.replace("fn accumulate", "fn halves"), // any device would compile it
    together: `enable subgroups;\n${twin.replace("fn accumulate", "fn together")}`,
  };
  const body = Buffer.from(right + Object.entries(sources).map(([name, code]) => `//: ${name}\n${code}`).join(""));
  Object.assign(kernels, { bytes: body.length, sha256: createHash("sha256").update(body).digest("hex") });
  const load = async (/** @type {string[]} */ remembered) => {
    server.fault(`${ARTIFACT}/webgpu-f32/plan.json`, { body: plan });
    server.fault(`${ARTIFACT}/${kernels.file}`, { body });
    const options = { base: ARTIFACT, variant: "webgpu-f32", manifest, cache: false, tune: true, kernels: remembered };
    const { value } = await call(lab, "load", options);
    await call(lab, "reservePages", 8);
    return value.alternatives;
  };
  const logits = async () => (await call(lab, "step", { ...feed([PROMPT]), logitRows: [19], wantLogits: true })).value.logits;

  expect(await load(["halves"])).toEqual([["accumulate", "together"]]); // what was remembered is no choice here
  expect(await call(lab, "chooseKernels", ["halves"])).toMatchObject({ error: { code: "invalid_request", field: "kernels" } });
  const timed = await call(lab, "timeKernels", { kernels: [{ name: "together", most: 1 }], budgetMs: 1e6 });
  expect(timed.error).toBeUndefined();
  expect((await call(lab, "chooseKernels", ["together"])).error).toBeUndefined();
  expect(await logits()).toEqual(model.logits(PROMPT));
});

test("kernels that do not compile are refused by name", async ({ lab, server, artifact }) => {
  const { plan, manifest } = changedPlan(artifact, (p) => (p.kernels[0].name = "shop"));
  server.fault(`${ARTIFACT}/webgpu-f32/plan.json`, { body: plan });
  const { error } = await call(lab, "load", { base: ARTIFACT, variant: "webgpu-f32", manifest, cache: false });
  expect(error).toMatchObject({ code: "artifact_invalid", field: "kernels" });
  expect(error.message).toContain("shop");
});

test("weights that one executor stored are the other's: going from one to the other downloads none", async ({ lab, model, server }) => {
  for (const order of [["webgpu-f32", "wasm-simd"], ["wasm-simd", "webgpu-f32"]]) {
    for (const [i, variant] of order.entries()) {
      const info = await loaded(lab, { variant });
      expect(info.cached_bytes).toBe(i === 0 ? 0 : info.weight_bytes);
      const shards = server.log.filter(({ path }) => path.includes("/weights/"));
      expect(shards).toHaveLength(i === 0 ? model.manifest.weights.shards.length : 0);
      const { value } = await call(lab, "step", { ...feed([PROMPT]), logitRows: [19], wantLogits: true });
      expect(value.logits).toEqual(model.logits(PROMPT));
      server.log = [];
    }
    await lab.evaluate(async () => (await navigator.storage.getDirectory()).removeEntry("inpage-files", { recursive: true }));
  }
});

test("a shard with a wrong byte is fetched again, and refused if it stays wrong", async ({ lab, server }) => {
  const shard = `${ARTIFACT}/weights/00001.bin`;
  server.fault(shard, { flip: 12345 });
  await loaded(lab, { cache: false });
  expect(server.requests(shard)).toHaveLength(2);
  server.fault(shard, { flip: 12345, always: true });
  const { error } = await call(lab, "load", { base: ARTIFACT, variant: "webgpu-f32", cache: false });
  expect(error).toMatchObject({ code: "artifact_invalid", field: "weights.shards[1]" });
});
