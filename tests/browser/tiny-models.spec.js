/**
 * @file Tiny models in every engine of the page, against numpy (which `tests/compile/test_tiny_models.py` holds against
 * PyTorch): every number format, kind of rotary positions and family, and heads at the edges of attention's kernels (no
 * whole groups of 32, a single head, more heads a key head than are made at once).
 * The same bits from one thread and two, whether a prompt comes whole, in pieces, token by token or from shared pages, alone
 * or beside others.
 */

import { test as base, expect } from "@playwright/test";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { COUNTERS } from "../../web/engine/webgpu/counters.js";
import { FaultServer } from "./support/server.js";
import { WITH_WEBGPU } from "./support/webgpu.js";
import { kernelsIn, runningOf, wrongly } from "./support/wrong_kernels.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, "build/tests/page-tiny");
/**
 * Of a logit, relative to the largest: in float32, where a last bit now and then sends a key or a value to the neighbouring
 * half (5e-4 of it), and with activations of eight bits. A group of 32 weights lost in a matrix is 0.4 to 1.
 */
const FLOAT = 5e-4;
const INT8 = 0.08;
const NEW = ["gemma3", "gemma2", "mistral", "smollm3", "granite", "phi3", "lfm2"];
const [ROPES, KINDS] = [["linear", "llama3", "yarn", "qwen3-yarn"], ["k_quants", "q4_k_m", "q5_k", "few_bits", "all-q2_k", "all-q3_k", "all-q4_k", "all-q5_k", "all-q6_k", "all-iq4_nl", "all-iq4_xs", "all-mxfp4", "all-q5_0", "all-q5_1", "all-bf16"]];
/** @type {Record<string, {threads: number[], usual: string[], slow: string[]}>} The slow ones stand natively in tests/compile too: INPAGE_SLOW=1 has them in the page. */
const ENGINES = {
  "wasm-relaxed": { threads: [1, 2], usual: ["uneven", "gemma3", "lfm2", "k_quants"], slow: ["three", "qwen2", "yarn", "eighty", "wide", "qwen3", ...NEW, ...ROPES, ...KINDS] },
  "wasm-simd": { threads: [1, 2], usual: ["qwen2"], slow: ["alone", "k_quants", "eighty", "uneven", ...NEW, ...ROPES, ...KINDS] },
  "webgpu-f32": {
    threads: [1],
    usual: ["qwen3-yarn"],
    slow: ["k_quants", "qwen3", "eighty", "alone", "three", "wide", "uneven", "qwen2-apart", "apart", "nine", ...NEW, ...ROPES, ...KINDS],
  },
  "webgpu-int8": { threads: [1], usual: [], slow: ["k_quants", "uneven", "eighty", "qwen3", "gemma3", "lfm2", "phi3", ...KINDS] },
};
/** @param {string} variant */
const modelsOf = (variant) => [...new Set([...ENGINES[variant].usual, ...(process.env.INPAGE_SLOW ? ENGINES[variant].slow : [])])];
const MODELS = [...new Set(Object.keys(ENGINES).flatMap(modelsOf))];
/** Weights are floats, so that activations are never rounded to eight bits. */
const FLOATS = ["alone", "gemma2", "mistral", "granite", "lfm2", "linear", "llama3", "yarn", "qwen3-yarn", "all-bf16"];
const PAGES = 64;
/** For profiles, behind all that a test has reserved. */
const PROFILED = 64;

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {page_: import("@playwright/test").Page}>} */
const test = base.extend({
  page_: [
    /** @param {{browser: import("@playwright/test").Browser}} fixtures @param {(value: import("@playwright/test").Page) => Promise<void>} use */
    async ({ browser }, use) => {
      const script = path.join(ROOT, "tests/browser/support/tiny_models.py");
      const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
      const wanted = MODELS.map((name) => {
        const variants = Object.keys(ENGINES).filter((variant) => modelsOf(variant).includes(name));
        return `${name}=${variants.join(",")}`;
      });
      execFileSync(path.join(ROOT, ".venv/bin/python"), [script, OUT, ...wanted], { stdio: "inherit", env });
      const mounts = { "/web/": path.join(ROOT, "web"), "/tests/": path.join(ROOT, "tests"), "/tiny/": OUT };
      const server = new FaultServer(mounts, { isolated: true });
      const page = await browser.newPage();
      await page.goto(`${await server.start()}/tests/browser/support/real_page.html`);
      await page.waitForFunction(() => "lab" in globalThis);
      await use(page);
      await page.close();
      await server.stop();
    },
    { scope: "worker", timeout: 600_000 }, // the first time, all models are compiled
  ],
});

test.use(WITH_WEBGPU);

/**
 * @template {keyof import("./support/real_page.js").RealLab} M
 * @param {import("@playwright/test").Page} page
 * @param {M} method
 * @param {Parameters<import("./support/real_page.js").RealLab[M]>} args
 * @returns {Promise<Awaited<ReturnType<import("./support/real_page.js").RealLab[M]>>>}
 */
const call = (page, method, ...args) =>
  page.evaluate(
    ([name, list]) => /** @type {any} */ (globalThis).lab[/** @type {string} */ (name)](.../** @type {unknown[]} */ (list)),
    /** @type {const} */ ([method, args]),
  );

/** Five pages of a sequence, in no order. @param {number} i @returns {number[]} */
const pagesOf = (i) => Array.from({ length: 5 }, (_, k) => (13 * (5 * i + k)) % PAGES);

/**
 * Those of all groups that hold what some of the first one hold. `shares`: how many of a group's hold the tokens of one.
 * @param {number[]} pages
 * @param {number[]} shares
 */
function groupPages(pages, shares) {
  let first = 0;
  return shares.flatMap((share) => {
    const own = pages.flatMap((page) => Array.from({ length: share }, (_, k) => first + page * share + k));
    first += PAGES * share;
    return own;
  });
}

/** @param {number[]} found @param {number[]} wanted */
const worst = (found, wanted) => Math.max(...wanted.map((value, i) => Math.abs(found[i] - value)));

/**
 * Every way to come to the same place: logits hashed at some positions, tokens of a burst, the logits after it.
 * @param {import("@playwright/test").Page} page
 * @param {string} engine
 * @param {number[]} ids
 */
async function sameBits(page, engine, ids) {
  const probes = [0, 15, 16, 17, ids.length - 2];
  /** @param {number} chunk @param {number} beside neighbours of other lengths @param {number} start tokens that lie in the pages */
  const trace = (chunk, beside, start = 0) => {
    const others = Array.from({ length: beside }, (_, i) => ({ ids: ids.slice(i + 1, i + 10), pages: pagesOf(i + 1) }));
    const own = { ids, pages: pagesOf(0), probes: probes.filter((position) => position >= start), start };
    return call(page, "trace", engine, { sequences: [own, ...others], chunk, decode: 3 });
  };
  const wanted = await trace(ids.length, 0);
  expect(Object.keys(wanted.probes)).toHaveLength(new Set(probes).size);
  expect(await trace(1, 0), "token by token").toEqual(wanted);
  expect(await trace(7, 3), "in pieces, beside three").toEqual(wanted);
  // The first page is another's, which went on differently.
  const other = { ids: [...ids.slice(0, 16), 7, 8, 9], pages: [pagesOf(0)[0], ...pagesOf(5).slice(1)] };
  await call(page, "trace", engine, { sequences: [other], chunk: 18, decode: 1 });
  const later = Object.fromEntries(Object.entries(wanted.probes).filter(([position]) => Number(position) >= 16));
  expect(await trace(ids.length, 1, 16), "behind a shared page").toEqual({ ...wanted, probes: later });
  return wanted;
}

/**
 * A prompt of more rows than the usual 128, in one step and in two.
 * @param {import("@playwright/test").Page} page
 * @param {string} engine that takes 256
 * @param {number[]} ids
 */
async function longStep(page, engine, ids) {
  const long = Array.from({ length: 140 }, (_, i) => ids[i % ids.length]);
  const pages = Array.from({ length: 9 }, (_, i) => (7 * i + 3) % PAGES);
  const [whole, halves] = [256, 70].map((chunk) => () => call(page, "trace", engine, { sequences: [{ ids: long, pages, probes: [138] }], chunk, decode: 1 }));
  const before = (await call(page, "counters", engine))[COUNTERS.steps];
  const wanted = await whole();
  expect((await call(page, "counters", engine))[COUNTERS.steps] - before, "a step for the prompt, two after it").toBe(3);
  expect(await halves(), "in two steps").toEqual(wanted);
}

/**
 * A profile has a time for every launch of a step, alone and of many rows.
 * @param {import("@playwright/test").Page} page
 * @param {string} engine on WebGPU
 * @param {string} folder of its variant
 * @param {"gpu" | "wall"} clock
 */
async function profiled(page, engine, folder, clock) {
  const plan = JSON.parse(readFileSync(path.join(OUT, folder, "plan.json"), "utf8"));
  for (const [fn, rows] of /** @type {const} */ ([[plan.functions[0], 1], [plan.functions.at(-1), 20]])) {
    const found = await call(page, "profile", engine, { rows, depth: 3, repeats: 2 });
    expect(found).toMatchObject({ rows, sequences: 1, depth: 3, clock });
    expect(found.launch_kernel).toEqual(fn.launches.map((/** @type {{kernel: number}} */ { kernel }) => kernel));
    expect(found.launch_workgroups[0]).toBe(rows); // the embedding's
    for (const times of [found.launch_us, [found.step_us]]) expect(times.reduce((sum, us) => sum + us)).toBeGreaterThan(0);
    expect(found.launch_us).toHaveLength(fn.launches.length);
    if (clock === "gpu") expect(found.busy).toBeGreaterThan(0);
    else expect(found.busy).toBeNull();
  }
  await expect(call(page, "profile", engine, { rows: 0 })).rejects.toThrow(/rows must be 1 to/);
}

for (const [variant, { threads: counts }] of Object.entries(ENGINES)) {
  for (const name of modelsOf(variant)) {
    test(`${variant}: ${name}`, async ({ page_: page }) => {
      /** @type {{ids: number[], nll: number[], logits: number[][], shares: number[]}} of all tokens; of the last ones; of a page, each group's */
      const { ids, nll, logits, shares } = JSON.parse(readFileSync(path.join(OUT, `${name}.json`), "utf8"));
      const bound = variant !== "webgpu-f32" && !FLOATS.includes(name) ? INT8 : FLOAT;
      const largest = Math.max(...logits.flat().map(Math.abs));
      const tokens = logits[0].map((_, i) => i);
      /** @type {unknown[]} */
      const traces = [];
      for (const threads of counts) {
        const engine = `${variant} ${name} ${threads}`;
        const all = PAGES * shares.reduce((sum, share) => sum + share);
        const inGroups = (/** @type {number} */ i) => groupPages(pagesOf(i), shares);
        await call(page, "load", engine, { base: `/tiny/tiny-${name}`, variant, threads, contextPages: all + PROFILED }, all);
        const scores = await call(page, "score", engine, { ids, from: 0, pages: pagesOf(0) });
        expect(worst(scores.nll, nll) / largest, `prefill on ${threads} threads`).toBeLessThan(2 * bound);
        /** @param {number} i of the steps @param {number[]} pages */
        const after = (i, pages) => call(page, "lastLogits", engine, { ids: ids.slice(0, ids.length - logits.length + i + 1), pages, tokens });
        const first = variant.startsWith("webgpu") && !process.env.INPAGE_SLOW ? logits.length - 4 : 0; // a software GPU takes its time
        const found = [];
        for (let i = first; i < logits.length; i++) found.push(await after(i, pagesOf(0)));
        const off = Math.max(...found.map((row, i) => worst(row, logits[first + i]))) / largest;
        console.log(`${engine}: logits off by ${off.toExponential(1)} of the largest at most`);
        expect(off, `decoded on ${threads} threads`).toBeLessThan(bound);
        await call(page, "movePages", engine, { from: inGroups(0), to: inGroups(5) });
        expect(await after(logits.length - 1, pagesOf(5)), "from pages that were read and written back elsewhere").toEqual(found.at(-1));
        traces.push(await sameBits(page, engine, variant.startsWith("webgpu") ? ids.slice(0, 20) : ids));
        if (variant.startsWith("webgpu")) {
          await longStep(page, engine, ids);
          await profiled(page, engine, `tiny-${name}/${variant}`, "wall");
        }
        await call(page, "unload", engine);
      }
      for (const trace of traces) expect(trace, "on any number of threads").toEqual(traces[0]);
    });
  }
}

/**
 * A model with some files of a variant changed, in a folder of its own.
 * @param {string} model folder
 * @param {string} name of the new one
 * @param {string} variant
 * @param {Record<string, (text: string) => string>} changes by the manifest's name of the file
 * @returns {string} name
 */
function altered(model, name, variant, changes) {
  cpSync(path.join(OUT, model), path.join(OUT, name), { recursive: true });
  const manifest = JSON.parse(readFileSync(path.join(OUT, model, "manifest.json"), "utf8"));
  const files = manifest.variants.find((/** @type {{name: string}} */ each) => each.name === variant);
  for (const [kind, change] of Object.entries(changes)) {
    const bytes = Buffer.from(change(readFileSync(path.join(OUT, model, files[kind].file), "utf8")));
    writeFileSync(path.join(OUT, name, files[kind].file), bytes);
    Object.assign(files[kind], { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
  }
  writeFileSync(path.join(OUT, name, "manifest.json"), JSON.stringify(manifest));
  return name;
}

/**
 * The model with a wrong kernel.
 * @param {string} model folder
 * @param {string} kernel
 * @param {string} variant
 * @returns {string} the folder's name
 */
function planted(model, kernel, variant = "webgpu-f32") {
  return altered(model, "planted", variant, {
    kernels: (text) =>
      text.split(/^(?=\/\/: )/m).map((part) => (part.startsWith(`//: ${kernel}\n`) ? part.replace(/(?<=\n)[^]*/, wrongly) : part)).join(""),
  });
}

/**
 * The model without its function for a few rows, whose kernels are half of what a software adapter compiles.
 * @param {string} model folder
 * @returns {string} the folder's name
 */
function withoutFewRows(model) {
  return altered(model, "two-functions", "webgpu-f32", {
    plan: (text) => {
      const plan = JSON.parse(text);
      plan.functions.splice(1, 1);
      const launched = plan.functions.flatMap((/** @type {any} */ fn) => fn.launches.map((/** @type {any} */ launch) => launch.kernel));
      plan.alternatives = plan.alternatives.filter((/** @type {number[]} */ [first]) => launched.includes(first));
      const kept = [...new Set([...launched, ...plan.alternatives.flat()])];
      plan.kernels = kept.map((id) => plan.kernels[id]);
      plan.alternatives = plan.alternatives.map((/** @type {number[]} */ ids) => ids.map((id) => kept.indexOf(id)));
      for (const { launches } of plan.functions) for (const launch of launches) launch.kernel = kept.indexOf(launch.kernel);
      return JSON.stringify(plan);
    },
  });
}

const EXAMINED = "tiny-qwen3-yarn";

const WRONG = /this GPU computes wrong numbers: token \d+ (has|leads|is chosen)/;

test("a GPU whose kernels compute wrong numbers fails the exam", async ({ page_: page }) => {
  const options = { variant: "webgpu-f32", threads: 1, contextPages: PAGES, exam: true, cache: false };
  // Of what only decodes; what only reads prompts is wrong in the test of others' places.
  const [kernel, ...more] = [...runningOf(path.join(OUT, EXAMINED)).keys()].filter((name) => name.startsWith("attention_spans"));
  expect(more).toEqual([]);
  const loading = call(page, "load", kernel, { ...options, base: `/tiny/${planted(withoutFewRows(EXAMINED), kernel)}` });
  await expect(loading).rejects.toThrow(WRONG);
});

test("so does one whose kernels round to 8 bits", async ({ page_: page }) => {
  test.skip(!process.env.INPAGE_SLOW, "minutes");
  test.setTimeout(1_200_000);
  const [model, variant] = ["tiny-k_quants", "webgpu-int8"];
  const options = { variant, threads: 1, contextPages: PAGES, exam: true, cache: false };
  await call(page, "load", "right", { ...options, base: `/tiny/${model}` }, 0);
  await call(page, "unload", "right");
  // One for a single row, one for tiles, and what rounds their rows.
  const few = [...runningOf(path.join(OUT, model), variant).keys()].filter((name) => /^(gated.*_int8_1|gated.*_q8_\d+x\d+x\d+|quantize_rows_\d+_norm)$/.test(name));
  expect(few).toHaveLength(3);
  for (const kernel of few) {
    const loading = call(page, "load", kernel, { ...options, base: `/tiny/${planted(model, kernel, variant)}` });
    await expect(loading, kernel).rejects.toThrow(WRONG);
  }
});

test("kernels that run in others' places leave the same bits, and sit the exam", async ({ page_: page }) => {
  const model = process.env.INPAGE_SLOW ? EXAMINED : withoutFewRows(EXAMINED);
  const { alternatives, kernels } = JSON.parse(readFileSync(path.join(OUT, model, "webgpu-f32/plan.json"), "utf8"));
  const [firsts, lasts] = [0, -1].map((at) => alternatives.map((/** @type {number[]} */ ids) => kernels[Number(ids.at(at))].name));
  const wrong = lasts.find((/** @type {string} */ name) => /^gated.*_12$/.test(name)); // reads prompts
  expect(lasts.length).toBeGreaterThan(2);
  const options = { variant: "webgpu-f32", threads: 1, contextPages: PAGES + PROFILED, exam: true, tune: true, cache: false };
  const trace = (/** @type {string} */ engine) => {
    const ids = Array.from({ length: 20 }, (_, i) => (5 + 17 * i) % 256);
    return call(page, "trace", engine, { sequences: [{ ids, pages: pagesOf(0), probes: [0, 17, 19] }], chunk: 18, decode: 2 });
  };
  await call(page, "load", "lasts", { ...options, base: `/tiny/${model}`, kernels: lasts }, PAGES);
  const wanted = await trace("lasts");
  await call(page, "unload", "lasts");
  // A wrong one that is chosen fails, and those that were right before run on.
  await call(page, "load", "firsts", { ...options, base: `/tiny/${planted(model, wrong)}`, kernels: firsts, profile: true }, PAGES);
  await expect(call(page, "chooseKernels", "firsts", [wrong])).rejects.toThrow(WRONG);
  expect(await trace("firsts")).toEqual(wanted);
  await expect(call(page, "chooseKernels", "firsts", [wrong])).rejects.toThrow(/before the first step/);
  await profiled(page, "firsts", `${model}/webgpu-f32`, "gpu");
  await call(page, "unload", "firsts");
});

test("a wrong constant in any one kernel fails the exam", async ({ page_: page }) => {
  test.skip(!process.env.INPAGE_SLOW && !process.env.INPAGE_FAULTS, "the long form of the test before: minutes");
  test.setTimeout(1_200_000);
  const sampling = ["sampling", "choosing"].map((name) => readFileSync(path.join(ROOT, `web/engine/webgpu/${name}.wgsl`), "utf8"));
  const faults = [runningOf(path.join(OUT, EXAMINED)), kernelsIn(sampling.join(""))].map((kernels) =>
    Object.fromEntries([...kernels].map(([name, code]) => [name, wrongly(code)])));
  const found = await page.evaluate(
    async ([base, [model, sampler], pages]) => {
      /** @type {typeof import("./support/planted.js")} */
      const { examineEach } = await import(/** @type {string} */ ("/tests/browser/support/planted.js"));
      return examineEach(base, { model, sampler }, pages);
    },
    /** @type {const} */ ([`/tiny/${EXAMINED}`, faults, PAGES]),
  );
  expect(found).toHaveLength(faults.reduce((sum, file) => sum + Object.keys(file).length, 1));
  expect(found.filter(({ after }) => after !== "")).toEqual([]);
  expect(found.filter(({ kernel, error }) => kernel !== "none" && !WRONG.test(error))).toEqual([]);
});
