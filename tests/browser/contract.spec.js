/** @file The contract of three languages: what Python refuses of a plan or a manifest, JavaScript refuses too, by the same name. */

import { readFileSync } from "node:fs";
import { expect, test } from "@playwright/test";

import { checkBatch } from "../../web/engine/core/batch.js";
import { trial } from "../../web/engine/core/trial.js";
import { described, readManifest } from "../../web/engine/format/manifest.js";
import { readPlan } from "../../web/engine/format/plan.js";

/** @typedef {{of: "wasm" | "webgpu", at: (string | number)[], to?: any, times?: number, remove?: boolean, field: string}} Case */

/** @param {string} name @returns {any} */
const corpus = (name) => JSON.parse(readFileSync(new URL(`../../format/corpus/${name}.json`, import.meta.url), "utf8"));

/** @param {any} good @param {Case} change */
function changed(good, { at, to, times, remove }) {
  const out = structuredClone(good);
  let place = out;
  for (const key of at.slice(0, -1)) place = place[key];
  const last = at[at.length - 1];
  if (remove) delete place[last];
  else place[last] = times ? Array(times).fill(to) : to;
  return out;
}

/** @param {() => unknown} read @returns {string | null} the field that is refused */
function refused(read) {
  try {
    read();
  } catch (error) {
    if (/** @type {any} */ (error).code === "artifact_invalid") return /** @type {any} */ (error).field;
    throw error;
  }
  return null;
}

test("JavaScript accepts no plan that Python refuses", () => {
  const { tensors, good, bad } = corpus("plan");
  const known = new Map(tensors.map((/** @type {{name: string}} */ t) => [t.name, t]));
  for (const backend of /** @type {const} */ (["wasm", "webgpu"])) {
    expect(readPlan(good[backend], known, backend).functions.length).toBe(2);
  }
  expect(bad.length).toBeGreaterThan(80);
  for (const change of bad) {
    const field = refused(() => readPlan(changed(good[change.of], change), known, change.of));
    expect([change, field]).toEqual([change, change.field]);
  }
});

test("layers stand in groups with block tables of their own", () => {
  const { tensors, good, fine } = corpus("plan");
  const known = new Map(tensors.map((/** @type {{name: string}} */ t) => [t.name, t]));
  for (const { of, kv_groups, blocks_per_sequence, columns, same_as_none } of fine) {
    const plan = { ...structuredClone(good[of]), kv_groups, blocks_per_sequence };
    plan.buffers[plan.io.block_tables].bytes = 8 * blocks_per_sequence;
    const made = readPlan(plan, known, of);
    expect(made.kvGroups).toEqual(same_as_none ? [] : kv_groups);
    expect(made.blockTables.map(({ first }) => first)).toEqual(columns ?? [0]);
    const { input, sequences, pages } = trial(made, 2, 20, 5);
    expect(checkBatch(input, made, 5 + pages)).toBe(sequences);
    expect(new Set(input.blockTables.filter((page) => page >= 0)).size, "no page in two tables").toBe(pages);
    expect(() => checkBatch(input, made, 4 + pages), "of the last table too").toThrow("reserved");
    expect(refused(() => readPlan({ ...plan, blocks_per_sequence: blocks_per_sequence - 1 }, known, of))).toBe("plan.blocks_per_sequence");
  }
});

test("an encoder's plan has no KV cache, and a step whole sequences", () => {
  const { tensors, good, encoder } = corpus("plan");
  const known = new Map(tensors.map((/** @type {{name: string}} */ t) => [t.name, t]));
  const plan = encoder.changes.reduce(changed, good[encoder.of]);
  const made = readPlan(plan, known, encoder.of);
  expect([made.paged, made.width, made.vocab, made.pageBytes, made.blockTables]).toEqual([false, 25, 50, 0, []]);
  for (const change of encoder.bad) {
    expect([change, refused(() => readPlan(changed(plan, change), known, encoder.of))]).toEqual([change, change.field]);
  }
  const { input, sequences, pages } = trial(made, 4, 20, 5);
  expect([checkBatch(input, made, 0), pages]).toEqual([sequences, 0]);
  const two = {
    ...input, positions: Int32Array.of(0, 0, 1, 2), rowSequence: Int32Array.of(0, 1, 1, 1), blockTables: Int32Array.of(0, 1, 1, 1, 3, 2),
  };
  expect(checkBatch(two, made, 0)).toBe(2);
  for (const [i, value] of [[0, 1], [1, 0], [3, 2], [3, -1], [4, 4], [4, 2], [5, 4], [5, -1]]) {
    const blockTables = Int32Array.from(two.blockTables, (one, k) => (k === i ? value : one));
    expect(() => checkBatch({ ...two, blockTables }, made, 0), `word ${i} is ${value}`).toThrow(/blockTables|positions/);
  }
  expect(() => checkBatch({ ...two, positions: Int32Array.of(0, 1, 1, 2) }, made, 0)).toThrow("positions");
  expect(() => checkBatch({ ...two, targets: Int32Array.of(3) }, made, 0)).toThrow("logitRows");
  expect(() => checkBatch({ ...two, rowSequence: Int32Array.of(1, 1, 1, 1) }, made, 0)).toThrow("positions");
});

test("JavaScript accepts no manifest that Python refuses, but for the revision", () => {
  const { good, bad } = corpus("manifest");
  const signed = { ...good, revision: "0".repeat(64) };
  expect(readManifest(signed, "wasm-simd").weightBytes).toBe(1536);
  expect(bad.length).toBeGreaterThan(80);
  for (const change of bad) {
    const field = refused(() => readManifest(changed(signed, change), "wasm-simd"));
    expect([change, field]).toEqual([change, change.field]);
  }
});

test("a manifest comes as text, and is bounded before it is parsed", () => {
  const { good } = corpus("manifest");
  const brackets = { ...good, name: '[[{{,,\\"[' };
  expect(described(JSON.stringify(brackets))).toEqual(brackets);
  for (const bad of ["{", `{"a": ${"[".repeat(101)}${"]".repeat(101)}}`, `[${"1,".repeat(2 ** 20)}1]`, '"a', '{"a": "\\"}']) {
    expect(refused(() => described(bad))).toBe("manifest");
  }
});

test("a tensor of every number format is as large for JavaScript as for ggml", () => {
  const { good, sizes } = corpus("manifest");
  delete good.graph; // which would need room of its own
  delete good.mlc;
  for (const { format, rows, columns, bytes } of sizes) {
    const whole = (Math.floor(bytes / 256) + 1) * 256;
    /** @param {number} claimed */
    const manifest = (claimed) => ({
      ...good,
      revision: "0".repeat(64),
      tensors: [{ name: "t", shape: [rows, columns], format, layout: "rows16", offset: 0, bytes: claimed }],
      weights: { bytes: whole, shards: [{ ...good.weights.shards[0], bytes: whole }] },
    });
    expect(readManifest(manifest(bytes), "wasm-simd").tensors.get("t")).toEqual({ offset: 0, bytes });
    expect(refused(() => readManifest(manifest(bytes + 1), "wasm-simd"))).toBe("tensors[0].bytes");
  }
});
