/** @file The executor in Chromium: numbers, threads, bursts, interruption, faults and death of its workers. */

import { DOUBT } from "../../web/engine/wasm/thread_count.js";
import { SCORE_WORDS, SEQUENCE, SEQUENCE_WORDS } from "../../web/engine/format/abi.js";
import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { asFloat, blockTables, feed, sequenceStruct, TRAP, VOCAB, WAIT } from "./support/model.js";

test.use({ together: true });

const PROMPT = [5, 17, 3, 42, 8, 8, 60, 1, 0, 33, 21, 9, 14, 2, 7, 11, 25, 30, 4, 6]; // over a page's edge

/** @param {import("@playwright/test").Page} lab @param {object} [options] */
async function loaded(lab, options = {}) {
  const { value, error } = await call(lab, "load", { base: ARTIFACT, ...options });
  expect(error).toBeUndefined();
  await call(lab, "reservePages", 32);
  return value;
}

test("without a given number of threads, as many compute as no fewer clearly beat", async ({ lab, model }) => {
  const { threads, prompt_threads: forPrompts, threads_measured: measured } = await loaded(lab);
  expect(Object.keys(measured)).toContain(String(threads));
  const limit = Math.max(...Object.values(measured)) / DOUBT;
  expect(threads).toBe(Math.max(...Object.keys(measured).map(Number).filter((count) => measured[count] >= limit)));
  expect(forPrompts).toBeGreaterThanOrEqual(threads);
  expect(forPrompts).toBeLessThanOrEqual(Math.max(...Object.keys(measured).map(Number)));
  const { value } = await call(lab, "step", { ...feed([PROMPT]), wantLogits: true });
  expect(value.logits.slice(-VOCAB)).toEqual(model.logits(PROMPT));
});

test("says what was loaded", async ({ lab, model }) => {
  const info = await loaded(lab, { threads: 2 });
  expect(info).toMatchObject({
    backend: "wasm", variant: "wasm-simd", threads: 2, prompt_threads: 2, threads_measured: null, vocab: VOCAB, context: 128, page_tokens: 16, page_bytes: 256,
    blocks_per_sequence: 8, max_rows: 32, max_sequences: 4, max_logit_rows: 32, isolated: true, warnings: [],
    weight_bytes: model.manifest.weights.shards.reduce((sum, shard) => sum + shard.bytes, 0),
  });
  expect(info.max_pages).toBeGreaterThanOrEqual(32);
});

for (const threads of [1, 2, 3]) {
  test(`logits, scores and choices are the model's on ${threads} thread(s)`, async ({ lab, model }) => {
    const info = await loaded(lab, { threads });
    expect(info.threads).toBe(threads);
    const rows = feed([PROMPT]);
    const targets = [...PROMPT.slice(1), -1];
    const sample = PROMPT.flatMap((_, i) => sequenceStruct({ position: i }));
    const { value } = await call(lab, "step", { ...rows, targets, sample: sample.slice(0, 4 * SEQUENCE_WORDS), wantLogits: true });
    for (let row = 0; row < PROMPT.length; row++) {
      const expected = model.logits(PROMPT.slice(0, row + 1));
      expect(value.logits.slice(row * VOCAB, (row + 1) * VOCAB)).toEqual(expected);
      const best = expected.indexOf(Math.max(...expected));
      expect(value.scores[row * SCORE_WORDS]).toBe(best);
      if (row < 4) expect(value.sequences[row * SEQUENCE_WORDS + SEQUENCE.chosen]).toBe(best);
      const sum = expected.reduce((total, x) => total + Math.exp(x - expected[best]), 0);
      const nll = targets[row] < 0 ? 0 : expected[best] - expected[targets[row]] + Math.log(sum);
      expect(asFloat(value.scores[row * SCORE_WORDS + 1])).toBeCloseTo(nll, 3);
    }
  });
}

test("sequences in one batch keep to their own pages, fed whole or in chunks", async ({ lab, model }) => {
  await loaded(lab, { threads: 2 });
  const both = [PROMPT.slice(0, 9), PROMPT.slice(9, 18)];
  const whole = await call(lab, "step", { ...feed(both), wantLogits: true });
  const last = [8, 17].map((row) => whole.value.logits.slice(row * VOCAB, (row + 1) * VOCAB));
  expect(last).toEqual(both.map((tokens) => model.logits(tokens)));

  await call(lab, "step", feed(both.map((tokens) => tokens.slice(0, 5))));
  const chunk = await call(lab, "step", { ...feed(both.map((tokens) => tokens.slice(5)), 5), wantLogits: true });
  expect([3, 7].map((row) => chunk.value.logits.slice(row * VOCAB, (row + 1) * VOCAB))).toEqual(last);
});

for (const isolated of [true, false]) {
  test.describe(isolated ? "isolated" : "not isolated", () => {
    test.use({ isolated });

    test("a burst decodes several sequences and ends them by itself", async ({ lab, model }) => {
      const info = await loaded(lab);
      expect(info.isolated).toBe(isolated);
      if (!isolated) expect(info).toMatchObject({ threads: 1, threads_measured: null });
      const prompts = [PROMPT.slice(0, 6), PROMPT.slice(6, 9)];
      await call(lab, "step", { ...feed([prompts[0].slice(0, -1)]), blockTables: blockTables(2) });
      await call(lab, "step", { ...feed([[], prompts[1].slice(0, -1)]), blockTables: blockTables(2) });
      const lengths = [7, 3];
      let sequences = prompts.flatMap((prompt, i) =>
        sequenceStruct({ token: prompt[prompt.length - 1], position: prompt.length - 1, remaining: lengths[i], reserved: 128 }),
      );
      /** @type {number[][]} */
      const produced = [[], []];
      // Not isolated, a burst may end at its time limit: go on as the router does.
      while (sequences[SEQUENCE.finished] === 0) {
        const { value, error } = await call(lab, "run", { sequences, n: 2, blockTables: blockTables(2), maxSteps: 16 });
        expect(error).toBeUndefined();
        for (const [at, token] of value.out.entries()) if (token >= 0) produced[at % 2].push(token);
        ({ sequences } = value);
      }
      expect(produced).toEqual(prompts.map((prompt, i) => model.greedy(prompt, lengths[i])));
      expect(sequences[SEQUENCE_WORDS + SEQUENCE.finished]).toBe(2);
    });

    test("a burst is told while it runs", async ({ lab, model }) => {
      await loaded(lab);
      const burst = {
        sequences: sequenceStruct({ token: 5, position: 0, remaining: 40, reserved: 128 }), n: 1, blockTables: blockTables(1), maxSteps: 100,
      };
      const { steps, out, finished, slices } = await call(lab, "runTold", burst);
      expect([steps, out, finished]).toEqual([40, model.greedy([5], 40), [2]]);
      expect(slices.length).toBeGreaterThan(2);
      const told = slices.flatMap((/** @type {any} */ slice) => slice.out);
      expect(told).toEqual(out.slice(0, told.length));
      expect(told.length).toBeLessThan(40); // the rest comes with the result
      expect(slices.map((/** @type {any} */ slice) => [slice.steps, slice.finished])).toEqual(slices.map((/** @type {any} */ slice) => [slice.out.length, [0]]));
    });
  });
}

test("interrupt ends a burst after its current step, and the next one runs on", async ({ lab }) => {
  await loaded(lab, { threads: 2 });
  const burst = (/** @type {number} */ token) => ({
    sequences: sequenceStruct({ token, position: 0, remaining: 100, reserved: 128 }), n: 1, blockTables: blockTables(1), maxSteps: 8,
  });
  const { value } = await call(lab, "runInterrupted", burst(WAIT));
  expect(value.steps).toBe(1);
  // With a slice's last step, the runtime forgets that its bell rang.
  expect((await call(lab, "runInterrupted", { ...burst(WAIT), tellMs: 1 })).value.steps).toBe(1);
  const next = await call(lab, "run", burst(5));
  expect(next.value.steps).toBe(8);
  const counters = await call(lab, "counters");
  expect(counters.value.slice(0, 3)).toEqual([10, 40, 10]);
});

test("idle threads are asleep, and stay so", async ({ lab }) => {
  await loaded(lab, { threads: 3 });
  const counted = async () => (await call(lab, "counters")).value.slice(4);
  await call(lab, "step", feed([PROMPT]));
  await expect.poll(async () => (await counted())[1]).toBe(2);
  const [sleeps] = await counted();
  // Some round trips later nobody has woken up: this is what an idle page costs.
  for (let i = 0; i < 10; i++) expect(await counted()).toEqual([sleeps, 2]);
  await call(lab, "step", feed([PROMPT]));
  await expect.poll(async () => (await counted())[1]).toBe(2);
  expect((await counted())[0]).toBeGreaterThanOrEqual(sleeps + 2);
});

test("a wrong batch is refused by name and the next right one works", async ({ lab, model }) => {
  await call(lab, "load", { base: ARTIFACT });
  const good = feed([PROMPT]);
  const unreserved = (await call(lab, "step", good)).error;
  expect(unreserved).toMatchObject({ code: "invalid_request", field: "blockTables" });
  await call(lab, "reservePages", 8);
  /** @type {[object, string][]} */
  const wrong = [
    [{ ...good, tokenIds: PROMPT.map(() => VOCAB) }, "tokenIds"],
    [{ ...good, positions: PROMPT.map((_, i) => i + 120) }, "positions"],
    [{ ...good, rowSequence: PROMPT.map(() => 1) }, "rowSequence"],
    [{ ...good, logitRows: [PROMPT.length] }, "logitRows"],
    [{ ...good, blockTables: [0, 1, 2] }, "blockTables"],
    [feed([Array.from({ length: 33 }, () => 1)]), "tokenIds"],
    [{ ...good, tokenIds: [] }, "tokenIds"],
  ];
  for (const [batch, field] of wrong) {
    expect((await call(lab, "step", batch)).error).toMatchObject({ code: "invalid_request", field });
  }
  expect((await call(lab, "reservePages", 2 ** 30)).error.code).toBe("out_of_memory");
  const mask = { ...good, sample: sequenceStruct({ mask: 5 }) };
  expect((await call(lab, "step", mask)).error).toMatchObject({ code: "invalid_request", field: "mask" });
  const { value } = await call(lab, "step", { ...good, logitRows: [PROMPT.length - 1], wantLogits: true });
  expect(value.logits).toEqual(model.logits(PROMPT));
});

for (const threads of [1, 2]) {
  test(`a trap on thread ${threads - 1} loses the device, and the next load works`, async ({ lab, model }) => {
    await loaded(lab, { threads });
    const { error } = await call(lab, "step", feed([[TRAP]]));
    expect(error.code).toBe("device_lost");
    expect((await call(lab, "step", feed([[1]]))).error.code).toBe("device_lost");
    await loaded(lab, { threads });
    const { value } = await call(lab, "step", { ...feed([[1, 2]]), wantLogits: true });
    expect(value.logits.slice(VOCAB)).toEqual(model.logits([1, 2]));
  });
}

test("a worker that ends without a word rejects what is pending", async ({ lab }) => {
  await expect.poll(() => lab.workers().length).toBe(0); // the last test's have ended
  await loaded(lab, { threads: 1 });
  const worker = lab.workers().find((each) => each.url().endsWith("/worker.js"));
  await worker?.evaluate(() => globalThis.close());
  expect((await call(lab, "step", feed([[1]]))).error.code).toBe("device_lost");
});

test("unload ends a step that never would, and the next load works", async ({ lab, model }) => {
  await loaded(lab, { threads: 2 });
  const step = call(lab, "step", feed([[WAIT]]));
  await call(lab, "unload");
  expect((await step).error.code).toBe("cancelled");
  await loaded(lab, { threads: 2 });
  const { value } = await call(lab, "step", { ...feed([[7]]), wantLogits: true });
  expect(value.logits).toEqual(model.logits([7]));
});

test("without a WebGPU adapter its variant is unsupported, and WASM runs", async ({ lab, model }) => {
  const { error } = await call(lab, "load", { base: ARTIFACT, variant: "webgpu-f32" });
  expect(error).toMatchObject({ code: "unsupported", field: "variant" });
  await loaded(lab);
  const { value } = await call(lab, "step", { ...feed([[7]]), wantLogits: true });
  expect(value.logits).toEqual(model.logits([7]));
});

test("two engines in one page do not disturb each other", async ({ lab, model }) => {
  for (const name of ["a", "b"]) {
    expect((await call(lab, "load", { base: ARTIFACT, threads: 2 }, name)).error).toBeUndefined();
    await call(lab, "reservePages", 16, name);
  }
  const results = await Promise.all([
    call(lab, "step", { ...feed([PROMPT]), wantLogits: true }, "a"),
    call(lab, "step", { ...feed([[9, 9]]), wantLogits: true }, "b"),
  ]);
  expect(results[0].value.logits.slice(-VOCAB)).toEqual(model.logits(PROMPT));
  expect(results[1].value.logits.slice(-VOCAB)).toEqual(model.logits([9, 9]));
});
