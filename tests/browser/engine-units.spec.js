/** @file Parts of the engine that need no page: hashing, probes, memory limits, the server that injects faults. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";

import { BegunLoad } from "../../web/engine/begun.js";
import { matrixUnits } from "../../web/engine/core/matrix_units.js";
import { ABI_VERSION, EXPORTED_FUNCTIONS, HISTORY, MAX_STOP, MAX_THREADS, SEQUENCE, SEQUENCE_WORDS } from "../../web/engine/format/abi.js";
import { createMemory, growTo, importedMemory, kvCapacity, limitMemory } from "../../web/engine/wasm/memory.js";
import { outOfMemory } from "../../web/engine/sequential/memory.js";
import { together } from "../../web/engine/sequential/together.js";
import { xxh32 } from "../../web/engine/storage/checksum.js";
import { sha256 } from "../../web/engine/storage/sha256.js";
import { call, expect, test } from "./support/fixtures.js";

const RUNTIME = new URL("../../compile/inpage_compile/runtime/", import.meta.url);

test("sha256 agrees with Node's at every length around a block", () => {
  for (const length of [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000, 65537]) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 131) ^ (i >> 8));
    expect(sha256(bytes)).toBe(createHash("sha256").update(bytes).digest("hex"));
    expect(sha256(bytes.subarray(1))).toBe(createHash("sha256").update(bytes.subarray(1)).digest("hex"));
  }
});

test("an adapter's matrix units are words: those that multiply float16 into float32, by no more than 32 lanes", () => {
  const config = (/** @type {string} */ componentType, /** @type {string} */ resultComponentType, M = 16, N = 16, K = 16) => ({ componentType, resultComponentType, M, N, K });
  const subgroupMatrixConfigs = [config("f16", "f16"), config("f16", "f32"), config("i8", "i32", 16, 16, 32), config("f16", "f32", 16, 8, 8)];
  const words = ["16x16x16", "16x8x8"].map((size) => `chromium-experimental-subgroup-matrix/${size}`);
  expect(matrixUnits({ subgroupMatrixConfigs, subgroupMaxSize: 32 })).toEqual(words);
  expect(matrixUnits({ subgroupMatrixConfigs, subgroupMaxSize: 64 })).toEqual([]);
  expect(matrixUnits({ subgroupMaxSize: 4 })).toEqual([]);
  expect(matrixUnits({})).toEqual([]);
});

test("xxh32 agrees with the xxhash package's (Python, 4.1.0) at every length around a stripe and a word", () => {
  const sums = { 0: "02cc5d05", 1: "002e0d32", 3: "aca17380", 4: "073faa82", 15: "9f29f87b", 16: "3f6c9665", 17: "e048ecdb", 31: "00f1525c", 32: "ee42e668", 100: "75936eb8", 65537: "51851338" };
  for (const [length, sum] of Object.entries(sums)) {
    const bytes = Uint8Array.from({ length: Number(length) + 1 }, (_, i) => (i - 1) * 31 + 7).subarray(1);
    expect(xxh32(bytes)).toBe(parseInt(sum, 16));
    expect(xxh32(bytes.slice())).toBe(parseInt(sum, 16));
  }
});

test("abi.js says what abi.h says", () => {
  const header = readFileSync(new URL("abi.h", RUNTIME), "utf8");
  /** @param {string} name */
  const defined = (name) => Number(new RegExp(`#define ${name} (\\d+)`).exec(header)?.[1]);
  expect(defined("INPAGE_ABI_VERSION")).toBe(ABI_VERSION);
  expect(defined("INPAGE_MAX_STOP")).toBe(MAX_STOP);
  expect(defined("INPAGE_HISTORY")).toBe(HISTORY);
  expect(defined("INPAGE_MAX_THREADS")).toBe(MAX_THREADS);
  for (const name of EXPORTED_FUNCTIONS) expect(header).toContain(`${name}(`);

  // Walk the struct's fields in order; every one is a word, or as many as its array holds.
  const body = /typedef struct \{([^}]*)\} inpage_sequence;/.exec(header)?.[1].replace(/\/\*[\s\S]*?\*\//g, "") ?? "";
  const fields = body.split(";").flatMap((line) => line.trim().replace(/^(float|u?int32_t)\s+/, "").split(",")).map((field) => field.trim());
  let at = 0;
  for (const field of fields.filter(Boolean)) {
    const [, name, size] = /** @type {RegExpExecArray} */ (/^(\w+)(?:\[(\w+)\])?$/.exec(field));
    expect([name, SEQUENCE[/** @type {keyof typeof SEQUENCE} */ (name)]]).toEqual([name, at]);
    at += size === undefined ? 1 : Number(size) || defined(size);
  }
  expect(at).toBe(SEQUENCE_WORDS);
});

test("the first failure of an ONNX load ends the others, and is told when they have ended", async () => {
  /** @type {string[]} */
  const ended = [];
  const begin = (/** @type {AbortSignal} */ signal) => [
    Promise.reject(new Error("no library")),
    new Promise((_, reject) => signal.addEventListener("abort", () => setTimeout(() => reject(ended.push(signal.reason.message))))),
  ];
  await expect(together(new AbortController().signal, begin)).rejects.toThrow("no library");
  expect(ended).toEqual(["no library"]);
  expect(await together(new AbortController().signal, () => [Promise.resolve(1), Promise.resolve("b")])).toEqual([1, "b"]);
});

test("memory that ran out is told from a trap", () => {
  for (const said of ["std::bad_alloc", "RangeError: Array buffer allocation failed", "failed to allocate a buffer of size 9.", "could not allocate memory", "Aborted(OOM)"]) {
    expect([said, outOfMemory(new Error(said))]).toEqual([said, true]);
  }
  for (const said of ["RuntimeError: memory access out of bounds", "TempSpace allocator not found", "unreachable"]) {
    expect([said, outOfMemory(new Error(said))]).toEqual([said, false]);
  }
});

test("memory steps down where the browser refuses, and says how many pages it holds", () => {
  const real = WebAssembly.Memory;
  const refuseOver = 200;
  /** @type {number[]} */
  const asked = [];
  WebAssembly.Memory = /** @type {any} */ (
    /** @param {WebAssembly.MemoryDescriptor} descriptor */
    function (descriptor) {
      asked.push(Number(descriptor.maximum));
      if (Number(descriptor.maximum) > refuseOver) throw new RangeError("no");
      return new real(descriptor);
    }
  );
  try {
    const want = { initial: 2, maximum: 65536, fixedBytes: 65536 * 10, pageBytes: 65536 };
    const memory = createMemory({ ...want, kvPages: 1000 });
    expect(asked).toEqual([1010, 510, 260, 135]);
    expect(kvCapacity(memory, want.fixedBytes, want.pageBytes)).toBe(125);
    growTo(memory, 65536 * 135);
    expect(() => growTo(memory, 65536 * 136)).toThrow(expect.objectContaining({ code: "out_of_memory" }));
    expect(() => createMemory({ ...want, fixedBytes: 65536 * 190, kvPages: 1000 })).toThrow(
      expect.objectContaining({ code: "out_of_memory" }),
    );
    expect(() => createMemory({ ...want, maximum: 8, kvPages: 1000 })).toThrow(expect.objectContaining({ code: "out_of_memory" }));
  } finally {
    WebAssembly.Memory = real;
  }
});

test("settings narrow what a module declares, and never widen it", () => {
  const declared = { initial: 20, maximum: 4096 };
  const page = 65536;
  expect(limitMemory(declared, { initial: 0, maximum: Infinity })).toEqual(declared);
  expect(limitMemory(declared, { initial: 30 * page + 1, maximum: 100 * page - 1 })).toEqual({ initial: 31, maximum: 99 });
  expect(limitMemory(declared, { initial: 200 * page, maximum: 8 * page })).toEqual({ initial: 20, maximum: 20 });
  expect(limitMemory(declared, { initial: 0, maximum: 8192 * page })).toEqual(declared);
});

test("the linked module's memory limits are read", ({ artifact }) => {
  const { initial, maximum } = importedMemory(readFileSync(path.join(artifact, "wasm-simd/kernels.wasm")));
  expect(initial).toBeGreaterThan(0);
  expect(maximum).toBe(65536);
});

test.describe("features", () => {
  test("of an isolated page", async ({ lab }) => {
    expect(await call(lab, "features")).toMatchObject({
      wasm: ["simd128", "relaxed-simd", "atomics"], isolated: true, threads: true,
      storage: { opfs: true, idb: true, locks: true },
    });
  });

  test.describe("without isolation", () => {
    test.use({ isolated: false });
    test("there are no threads", async ({ lab }) => {
      expect(await call(lab, "features")).toMatchObject({ isolated: false, threads: false });
    });
  });
});

test("a load that was begun is the one that is asked for, whatever threads and kernels leave open", async () => {
  /** @param {Record<string, unknown>} more @returns {any} */
  const options = (more) => ({ base: "/m/", manifest: "{}", variant: "webgpu-f32", ...more });
  /** @param {Record<string, unknown>} begun @param {Record<string, unknown>} asked @param {number} came to so many threads */
  const taken = async (begun, asked, came) => {
    const load = new BegunLoad(options(begun), async () => /** @type {any} */ ({ threads: came }));
    return load.is(options(asked)) && (await load.takeOver(options(asked), undefined))?.threads;
  };
  const [a, b] = [{ kernels: ["a"] }, { kernels: ["b"] }];
  for (const [begun, asked, came, expected] of /** @type {const} */ ([
    [{ threads: null }, { threads: null }, 1, 1], // on a GPU
    [{ threads: 1 }, {}, 1, 1],
    [{ threads: 16 }, { threads: null }, 16, 16], // it measured more than are asked for when they are told
    [{}, { threads: 8 }, 8, 8],
    [{}, { threads: 8 }, 16, undefined],
    [{ threads: 4 }, { threads: 4 }, 1, 1], // memory cannot be shared
    [{ threads: 4 }, { threads: 8 }, 4, false],
    [{}, a, 1, 1],
    [a, b, 1, 1],
    [a, {}, 1, false], // it rehearsed that one alone, and all are to be timed
    [a, { kernels: null }, 1, false],
    [{}, { sliceMs: 7 }, 1, false],
  ])) expect(await taken(begun, asked, came), JSON.stringify([begun, asked, came])).toBe(expected);
});
