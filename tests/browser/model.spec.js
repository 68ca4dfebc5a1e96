/**
 * @file The real model in Chromium, against what PyTorch says in float32 (tests/reference), and bit for bit against
 * itself under every circumstance that must not matter.
 */

import { expect, REFERENCE, scattered, test, TEXT, VARIANTS } from "./support/real.js";

/** Where the runner-up is at least this far behind in float32, int8 activations must choose the same token. */
const CLEAR = 0.5;
/** Perplexity may be this much above float32's. */
const MOST = 1.005;
/** Far below float32's, the scoring would be wrong, not the model good. */
const LEAST = 0.98;

/** @param {number[]} nll */
const perplexity = (nll) => Math.exp(nll.reduce((sum, value) => sum + value, 0) / nll.length);

/**
 * Positions with a clear choice whose argmax differs from the reference's.
 * @param {number[]} argmax
 * @param {number[]} wanted
 * @param {number[]} margin of the reference
 */
function disagreements(argmax, wanted, margin) {
  return wanted.flatMap((token, i) => (margin[i] >= CLEAR && argmax[i] !== token ? [{ step: i, token, got: argmax[i], margin: margin[i] }] : []));
}

for (const [at, variant] of VARIANTS.entries()) {
  // That threads change no bit is a test of its own: INPAGE_SLOW=1 has all of these.
  for (const threads of process.env.INPAGE_SLOW ? [1, 2] : [2 - at]) {
    test(`${variant}, ${threads} thread(s): every clear greedy token is float32's`, async ({ model }) => {
      const engine = await model.engine(variant, threads);
      expect(model.info(engine)).toMatchObject({ variant, threads, isolated: true, warnings: [] });
      // A long prompt is one for the first of them, and natively.
      const prompts = Object.entries(REFERENCE.prompts).filter(([, { ids }]) => process.env.INPAGE_SLOW || at === 0 || ids.length < 300);
      expect(prompts.length).toBeGreaterThan(1);
      for (const [name, { ids, greedy_f32, margin }] of prompts) {
        const text = [...ids, ...greedy_f32];
        const { argmax } = await model.call("score", engine, { ids: text, from: ids.length - 1, pages: scattered(text.length) });
        expect(argmax).toHaveLength(greedy_f32.length);
        expect(disagreements(argmax, greedy_f32, margin), name).toEqual([]);
      }
    });
  }
}

test.describe("perplexity", () => {
  test.describe.configure({ timeout: 600_000 });

  (process.env.INPAGE_SLOW ? test : test.skip)("of eight windows of 512 tokens is float32's", async ({ model }) => {
    const engine = await model.engine("wasm-relaxed", 2);
    const nll = [];
    for (let at = 0; at < TEXT.ids.length; at += 512) {
      const ids = TEXT.ids.slice(at, at + 512);
      const pages = scattered(512, (at / 512) * 32);
      nll.push(...(await model.call("score", engine, { ids, from: 0, pages })).nll);
    }
    report("windows of 512", nll, TEXT.windows_512);
  });

  /** Of a context of 4,096. INPAGE_SLOW=1: all. */
  const LENGTH = process.env.INPAGE_SLOW ? 4096 : 1536;

  test(`of ${LENGTH} tokens in one context is float32's`, async ({ model }) => {
    const engine = await model.engine("wasm-relaxed", 2);
    const { nll } = await model.call("score", engine, { ids: TEXT.ids.slice(0, LENGTH), from: 0, pages: scattered(LENGTH) });
    const wanted = TEXT.context_4096.nll.slice(0, LENGTH - 1);
    report(`context of ${LENGTH}`, nll, { ...TEXT.context_4096, nll: wanted, perplexity: perplexity(wanted) });
  });

  /**
   * @param {string} what
   * @param {number[]} nll
   * @param {import("./support/real.js").Scored} reference
   */
  function report(what, nll, reference) {
    expect(nll).toHaveLength(reference.nll.length);
    const found = perplexity(nll);
    const ratio = found / reference.perplexity;
    console.log(`perplexity, ${what}: ${found.toFixed(4)}, float32 ${reference.perplexity.toFixed(4)}, ${((ratio - 1) * 100).toFixed(2)} % above`);
    expect(ratio).toBeLessThan(MOST);
    expect(ratio).toBeGreaterThan(LEAST);
  }
});

test.describe("bit for bit", () => {
  const LENGTH = 140; // more than one step takes
  const DECODE = 16;
  const PROBES = Array.from({ length: 16 }, (_, i) => 3 + i * 9);
  /** The sequence that is watched, on pages that depend on `first`. @param {number} first */
  const watched = (first) => ({ ids: TEXT.ids.slice(0, LENGTH), pages: scattered(LENGTH + DECODE + 1, first), probes: PROBES });
  /** Seven others of other lengths, and the watched one in their midst. */
  const crowd = () => {
    const others = [1, 9, 30, 64, 65, 17, 117].map((length, i) => ({
      ids: TEXT.ids.slice(700 + 200 * i, 700 + 200 * i + length),
      pages: scattered(LENGTH + DECODE + 1, 15 * (i + 1)),
    }));
    return [...others.slice(0, 3), watched(0), ...others.slice(3)];
  };
  /** @type {Map<string, import("./support/real_page.js").Trace>} */
  const whole = new Map();

  /**
   * What everything else is compared with: prefilled in steps as large as they may be, alone, on two threads.
   * @param {import("./support/real.js").RealModel} model
   * @param {string} variant
   */
  async function wanted(model, variant) {
    const known = whole.get(variant);
    if (known) return known;
    const engine = await model.engine(variant, 2);
    const trace = await model.call("trace", engine, { sequences: [watched(0)], chunk: model.info(engine).max_rows, decode: DECODE });
    expect(Object.keys(trace.probes)).toHaveLength(PROBES.length);
    expect(new Set(Object.values(trace.probes)).size).toBe(PROBES.length);
    expect(trace.tokens).toHaveLength(DECODE);
    whole.set(variant, trace);
    return trace;
  }

  for (const variant of VARIANTS) {
    // Of the second what is likeliest to show in its own code: INPAGE_SLOW=1 has all of it.
    const all = process.env.INPAGE_SLOW || variant === VARIANTS[0] ? test : test.skip;

    // On other pages, and on one thread, others of these are as well.
    (process.env.INPAGE_SLOW ? test : test.skip)(`${variant}: twice, on other pages`, async ({ model }) => {
      const engine = await model.engine(variant, 2);
      const again = { sequences: [watched(40)], chunk: model.info(engine).max_rows, decode: DECODE };
      expect(await model.call("trace", engine, again)).toEqual(await wanted(model, variant));
    });

    for (const chunk of process.env.INPAGE_SLOW ? [1, 7, 16, 100] : [1, 16]) {
      all(`${variant}: prefilled in chunks of ${chunk}`, async ({ model }) => {
        const engine = await model.engine(variant, 2);
        const trace = await model.call("trace", engine, { sequences: [watched(20)], chunk, decode: DECODE });
        expect(trace).toEqual(await wanted(model, variant));
      });
    }

    for (const threads of [1, 2]) {
      (threads === 2 ? test : all)(`${variant}, ${threads} thread(s): beside seven others`, async ({ model }) => {
        const engine = await model.engine(variant, threads);
        const trace = await model.call("trace", engine, { sequences: crowd(), watched: 3, chunk: 11, decode: DECODE });
        expect(trace).toEqual(await wanted(model, variant));
      });
    }

    (process.env.INPAGE_SLOW ? test : test.skip)(`${variant}: on one thread`, async ({ model }) => {
      const engine = await model.engine(variant, 1);
      const trace = await model.call("trace", engine, { sequences: [watched(0)], chunk: 100, decode: DECODE });
      expect(trace).toEqual(await wanted(model, variant));
    });

    all(`${variant}: a burst is single steps, greedy and sampled`, async ({ model }) => {
      const engine = await model.engine(variant, 2);
      const how = { sequences: [watched(0)], chunk: 128, decode: DECODE };
      expect(await model.call("trace", engine, { ...how, single: true })).toEqual(await wanted(model, variant));
      const params = { temperature: 0.9, top_p: 0.95, seed: 7 };
      const sampled = await model.call("trace", engine, { ...how, params });
      expect(sampled.tokens).not.toEqual((await wanted(model, variant)).tokens);
      expect(await model.call("trace", engine, { ...how, params, single: true })).toEqual(sampled);
      expect(await model.call("trace", await model.engine(variant, 1), { ...how, params })).toEqual(sampled);
    });

    all(`${variant}: in a page that is not isolated, on the one thread there is`, async ({ model, plain }) => {
      const engine = await plain.engine(variant, 2);
      expect(plain.info(engine)).toMatchObject({ variant, threads: 1, isolated: false });
      const trace = await plain.call("trace", engine, { sequences: [watched(60)], chunk: 100, decode: DECODE });
      expect(trace).toEqual(await wanted(model, variant));
    });
  }
});
