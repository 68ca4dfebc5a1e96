/** @file Artifacts that are not what they claim: each gives one typed error that names the field, and leaves nothing. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";

import { ABI_VERSION } from "../../web/engine/format/abi.js";
import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";

test.use({ together: true });

const PLAN = "wasm-simd/plan.json";
const KERNELS = "wasm-simd/kernels.wasm";
const NO_CACHE = { base: ARTIFACT, cache: false };

/** @param {any} lab @param {any} model */
async function worksNow(lab, model) {
  expect((await call(lab, "load", { ...NO_CACHE, threads: 2 })).error).toBeUndefined();
  await call(lab, "reservePages", 8);
  const { value } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(value.logits).toEqual(model.logits([3, 1, 4]));
}

/**
 * Serve another file in place of the artifact's, with a manifest that vouches for it.
 * @param {any} server @param {any} manifest @param {"plan" | "kernels"} which @param {Uint8Array} body
 */
function replace(server, manifest, which, body) {
  const entry = manifest.variants[0][which];
  entry.bytes = body.length;
  entry.sha256 = createHash("sha256").update(body).digest("hex");
  server.fault(`${ARTIFACT}/${entry.file}`, { body });
}

/** @type {[string, (manifest: any) => void, string, string][]} */
const MANIFESTS = [
  ["another schema", (m) => (m.schema = 2), "artifact_invalid", "schema"],
  ["no weights", (m) => delete m.weights, "artifact_invalid", "weights"],
  ["weights of 5 GiB", (m) => (m.weights.bytes = 5 * 2 ** 30), "artifact_invalid", "weights.bytes"],
  ["weights larger than the shards", (m) => (m.weights.bytes += 256), "artifact_invalid", "weights.bytes"],
  ["a huge shard", (m) => Object.assign(m.weights, { bytes: 2 ** 31, shards: [{ ...m.weights.shards[0], bytes: 2 ** 31 }] }),
    "artifact_invalid", "weights.shards[0].bytes"],
  ["a gap between shards", (m) => (m.weights.shards[1].offset += 256), "artifact_invalid", "weights.shards[1].offset"],
  ["a fraction of a byte", (m) => (m.weights.shards[0].bytes = 0.5), "artifact_invalid", "weights.shards[0].bytes"],
  ["a hash that is none", (m) => (m.weights.shards[0].sha256 = "../x"), "artifact_invalid", "weights.shards[0].sha256"],
  ["a file outside the folder", (m) => (m.weights.shards[0].file = "../secret.bin"), "artifact_invalid", "weights.shards[0].file"],
  ["a file on another host", (m) => (m.variants[0].plan.file = "//host/plan.json"), "artifact_invalid", "variants[0].plan.file"],
  ["a tensor outside the weights", (m) => (m.tensors[1].offset = 2 ** 30), "artifact_invalid", "tensors[1].offset"],
  ["a tensor twice", (m) => m.tensors.push(m.tensors[0]), "artifact_invalid", "tensors[3].name"],
  ["no such variant", (m) => (m.variants = []), "unsupported", "variant"],
  ["a native variant", (m) => (m.variants[0].backend = "native"), "unsupported", "variant"],
  ["a variant for an engine that is not here", (m) => (m.variants[0].backend = "toString"), "unsupported", "variant"],
  ["neither plan nor kernels", (m) => m.variants.forEach((/** @type {any} */ v) => [delete v.plan, delete v.kernels]), "artifact_invalid", "variants.plan"],
  ["kernels without a plan", (m) => delete m.variants[0].plan, "artifact_invalid", "variants[0].plan"],
  ["an unknown requirement", (m) => m.variants[0].requires.push("warp-drive"), "unsupported", "variant"],
  ["a shorter context than the plan's", (m) => (m.architecture.context = 64), "artifact_invalid", "plan.maxima.context"],
  ["a plan of another size", (m) => (m.variants[0].plan.bytes += 1), "artifact_invalid", "variants[0].plan"],
  ["a missing tensor", (m) => m.tensors.pop(), "artifact_invalid", "plan.buffers[8].tensor"],
];

test("manifests that lie", async ({ lab, model }) => {
  for (const [name, change, code, field] of MANIFESTS) {
    await test.step(name, async () => {
      const manifest = structuredClone(model.manifest);
      change(manifest);
      expect((await call(lab, "load", { ...NO_CACHE, manifest })).error).toMatchObject({ code, field });
    });
  }
  await worksNow(lab, model);
});

test("more weights than WebAssembly addresses: both numbers, before a shard is asked for", async ({ lab, model, server }) => {
  const manifest = structuredClone(model.manifest);
  const bytes = 16 * 2 ** 20;
  const sha256 = "0".repeat(64);
  const shards = Array.from({ length: 320 }, (_, i) => ({ file: `weights/${i}.bin`, offset: i * bytes, bytes, sha256 }));
  Object.assign(manifest.weights, { bytes: 320 * bytes, shards });
  const { error } = await call(lab, "load", { ...NO_CACHE, manifest });
  expect(error.code).toBe("out_of_memory");
  const [needed, available] = /needs (\d+) bytes.*may have (\d+)/.exec(error.message)?.slice(1).map(Number) ?? [];
  expect(needed).toBeGreaterThan(320 * bytes);
  expect(available).toBeLessThanOrEqual(2 ** 32);
  expect(server.log.filter(({ path: asked }) => asked.includes("/weights/"))).toEqual([]);
});

/** @type {[string, (plan: any) => void, string, string | null][]} */
const PLANS = [
  ["an alternative that takes something else", (p) => (p.alternatives = [[0, 1]]), "artifact_invalid", "plan.alternatives[0][1]"],
  ["an alternative of no other kernel", (p) => (p.alternatives = [[0]]), "artifact_invalid", "plan.alternatives[0]"],
  ["a kernel in two lists", (p) => {
    p.kernels.push({ ...p.kernels[3], name: "twin" });
    p.alternatives = [[3, 4], [3, 4]];
  }, "artifact_invalid", "plan.alternatives[1][0]"],
  ["a launch of an alternative", (p) => {
    p.kernels.push({ ...p.kernels[3], name: "twin" });
    p.alternatives = [[4, 3]];
  }, "artifact_invalid", "plan.functions[0].launches[3].kernel"],
  ["another version", (p) => (p.version = 9), "artifact_invalid", "plan.version"],
  ["an arena too large for wasm", (p) => (p.arenas = [2 ** 32]), "out_of_memory", null],
  ["an arena buffer outside", (p) => (p.buffers[9].offset = 2 ** 20), "artifact_invalid", "plan.buffers[9].offset"],
  ["a misaligned buffer", (p) => (p.buffers[9].offset = 4), "artifact_invalid", "plan.buffers[9].offset"],
  ["a weight larger than its tensor", (p) => (p.buffers[7].bytes += 4), "artifact_invalid", "plan.buffers[7].bytes"],
  ["an input smaller than the maxima", (p) => (p.buffers[0].bytes = 4), "artifact_invalid", "plan.buffers[0].bytes"],
  ["logits in an input", (p) => (p.io.logits = 0), "artifact_invalid", "plan.io.logits"],
  ["a launch of no kernel", (p) => (p.functions[0].launches[0].kernel = 4), "artifact_invalid", "plan.functions[0].launches[0].kernel"],
  ["a launch with a buffer too few", (p) => p.functions[1].launches[3].buffers.pop(), "artifact_invalid", "plan.functions[1].launches[3].buffers"],
  ["groups of other layers than the model's", (p) => (p.kv_groups = [{ layers: [0, 1], page_tokens: 16, window: 9 }]), "artifact_invalid", "plan.kv_groups"],
  ["an unknown variable", (p) => (p.functions[0].launches[0].scalars = ["columns"]), "artifact_invalid", "plan.functions[0].launches[0].scalars[0]"],
  ["a kernel that the module lacks", (p) => {
    for (let id = 4; id <= 6; id++) p.kernels.push({ name: `more${id}`, buffers: 1, scalars: 0, access: "r" });
    p.functions[0].launches.push({ kernel: 6, buffers: [0], scalars: [] }); // the table of kernels.c has six
  }, "artifact_invalid", "plan"],
  ["functions out of order", (p) => p.functions.reverse(), "artifact_invalid", "plan.functions[1].max_rows"],
];

test("plans that lie", async ({ lab, model, server, artifact }) => {
  for (const [name, change, code, field] of PLANS) {
    await test.step(name, async () => {
      const manifest = structuredClone(model.manifest);
      const plan = JSON.parse(readFileSync(path.join(artifact, PLAN), "utf8"));
      change(plan);
      replace(server, manifest, "plan", Buffer.from(JSON.stringify(plan)));
      expect((await call(lab, "load", { ...NO_CACHE, manifest, threads: 2 })).error).toMatchObject({ code, field });
      await expect.poll(() => lab.workers().length).toBe(0);
    });
  }
  await worksNow(lab, model);
});

test("wrong bytes in plan or kernels", async ({ lab, model, server }) => {
  for (const [i, file] of [PLAN, KERNELS].entries()) {
    server.clear();
    server.fault(`${ARTIFACT}/${file}`, { flip: 100, always: true });
    const { error } = await call(lab, "load", NO_CACHE);
    expect(error).toMatchObject({ code: "artifact_invalid", field: ["variants[0].plan", "variants[0].kernels"][i] });
    expect(error.message).toContain("sha256");
  }
  server.clear();
  await worksNow(lab, model);
});

test("kernels that are no module, or another one", async ({ lab, model, server }) => {
  const header = [0, 97, 115, 109, 1, 0, 0, 0];
  const importMemory = [2, 18, 1, 3, 101, 110, 118, 6, 109, 101, 109, 111, 114, 121, 2, 3, 1, 128, 128, 4];
  /** Whose one function says that version. @param {number} version @returns {number[]} */
  const ofVersion = (version) => [
    ...header, 1, 5, 1, 96, 0, 1, 127, ...importMemory, 3, 2, 1, 0,
    7, 22, 1, 18, ...Buffer.from("inpage_abi_version"), 0, 0, 10, 6, 1, 4, 0, 65, version, 11,
  ];
  /** @type {[number[], string][]} */
  const modules = [
    [[1, 2, 3, 4, 5, 6, 7, 8, 9], "cut off"],
    [header, "imports no memory"],
    [[...header, 2, 200], "cut off"],
    [[...header, ...importMemory], "exports no inpage_abi_version"],
    [[...header, ...importMemory, 99], "compile"],
    [ofVersion(ABI_VERSION - 1), `another version (ABI ${ABI_VERSION - 1}, not ${ABI_VERSION}): compile the model again`],
    [ofVersion(ABI_VERSION), "exports no inpage_load"],
  ];
  for (const [bytes, message] of modules) {
    const manifest = structuredClone(model.manifest);
    replace(server, manifest, "kernels", Uint8Array.from(bytes));
    const { error } = await call(lab, "load", { ...NO_CACHE, manifest });
    expect(["artifact_invalid", "unsupported"]).toContain(error.code);
    expect(error.message).toContain(message);
  }
  await worksNow(lab, model);
});

test("a plan that is no JSON", async ({ lab, model, server }) => {
  for (const text of ["{", "\xff\xfe", "[]", "null"]) {
    const manifest = structuredClone(model.manifest);
    replace(server, manifest, "plan", Buffer.from(text, "latin1"));
    const { error } = await call(lab, "load", { ...NO_CACHE, manifest });
    expect(error).toMatchObject({ code: "artifact_invalid", field: "plan" });
  }
  await worksNow(lab, model);
});

test("a manifest that claims gigabytes costs nothing, again and again", async ({ lab, model }) => {
  const manifest = structuredClone(model.manifest);
  const bytes = 16 * 2 ** 20;
  const shard = manifest.weights.shards[0];
  Object.assign(manifest.weights, {
    bytes: 190 * bytes,
    shards: Array.from({ length: 190 }, (_, i) => ({ ...shard, offset: i * bytes, bytes })),
  });
  for (let i = 0; i < 6; i++) {
    const { error } = await call(lab, "load", { ...NO_CACHE, manifest, threads: 2 });
    expect(error).toMatchObject({ code: "artifact_invalid" });
  }
  await worksNow(lab, model);
});

test("loading and unloading again and again keeps no worker", async ({ lab, model }) => {
  for (let i = 0; i < 8; i++) {
    await worksNow(lab, model);
    if (i % 2) await call(lab, "unload");
  }
  await call(lab, "unload");
  await expect.poll(() => lab.workers().length).toBe(0);
});

test("threads and pages that make no sense are refused", async ({ lab, model }) => {
  for (const threads of [0, -1, 1.5]) {
    expect((await call(lab, "load", { ...NO_CACHE, threads })).error).toMatchObject({ code: "invalid_request", field: "threads" });
  }
  const { value } = await call(lab, "load", { ...NO_CACHE, contextPages: 4 });
  expect(value.max_pages).toBeGreaterThanOrEqual(4);
  await worksNow(lab, model);
});
