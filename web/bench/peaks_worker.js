/**
 * @file One thread of peaks.js: runs a kernel of peaks.wasm when all others do, and checks what it summed up.
 */
import { WEIGHTS, expectedProducts, expectedSum, fillOperands } from "./peaks_check.js";

/**
 * @typedef {import("./peaks_check.js").Kernel} Kernel
 * @typedef {{module: WebAssembly.Module, memory: WebAssembly.Memory, control: Int32Array, scratch: number}} Start
 *   `scratch`: 16 KiB for this thread's operands and sums; `control[0]` counts arrivals
 * @typedef {{kernel: Kernel, at: number, bytes: number, passes: number, arrivals: number}} Job
 *   start when `arrivals` have come; `at` and `bytes`: this thread's part of what `read` reads
 * @typedef {{begun: number, ended: number, error: string | null}} Done on a clock that all threads share, ms
 */

const PATIENCE_MS = 10_000;

/** @type {Start} */
let start;
/** @type {Record<string, (...args: number[]) => void>} */
let kernels;

globalThis.addEventListener("message", async ({ data }) => {
  if (data.module) {
    start = data;
    const instance = await WebAssembly.instantiate(start.module, { env: { memory: start.memory } });
    kernels = /** @type {any} */ (instance.exports);
    globalThis.postMessage({ begun: 0, ended: 0, error: null });
  } else if (data.fill) {
    kernels.fill(data.at, data.bytes / 4, data.at / 4);
    globalThis.postMessage({ begun: 0, ended: 0, error: null });
  } else globalThis.postMessage(run(data));
});

/** @param {Job} job @returns {Done} */
function run({ kernel, at, bytes, passes, arrivals }) {
  const { memory, scratch } = start;
  const [x, w, out] = [scratch, scratch + 64, scratch + 64 + WEIGHTS * 16];
  if (kernel !== "read") fillOperands(memory.buffer, kernel, x, w);
  if (!arrive(arrivals)) return { begun: 0, ended: 0, error: "the other threads never came" };
  const begun = performance.timeOrigin + performance.now();
  if (kernel === "read") kernels.read(at, bytes / 16, passes, out);
  else kernels[kernel](x, w, WEIGHTS, passes, out);
  const ended = performance.timeOrigin + performance.now();
  const want = kernel === "read" ? expectedSum(at, bytes, passes) : expectedProducts(memory.buffer, kernel, x, w, passes);
  const got = new Int32Array(memory.buffer, out, want.length);
  const wrong = want.findIndex((value, i) => value !== got[i]);
  return { begun, ended, error: wrong < 0 ? null : `${kernel} summed up ${got[wrong]}, not ${want[wrong]}, in word ${wrong}` };
}

/** Wait for the other threads, without giving the core away. @param {number} arrivals @returns {boolean} */
function arrive(arrivals) {
  const { control } = start;
  const patience = performance.now() + PATIENCE_MS;
  Atomics.add(control, 0, 1);
  while (Atomics.load(control, 0) < arrivals) if (performance.now() > patience) return false;
  return true;
}
