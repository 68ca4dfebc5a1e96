/**
 * @file Does the exam find a wrong kernel, for variants that no adapter of Chromium's here runs? Each kernel of a tiny model in
 * turn, in Node (Dawn), on Mesa 26's lavapipe: webgpu-f16, webgpu-matrix-8x8x8, and faster than SwiftShader webgpu-int8. Not part
 * of `make test`; exits with 1 where a wrong kernel passes or a right one does not (gpu_tiny.mjs says how to make a model):
 *
 *     node tests/support/gpu_exam.mjs build/tests/tiny-gpu/tiny-qwen3 webgpu-matrix-8x8x8
 */

import { examineEach } from "../browser/support/planted.js";
import { runningOf, wrongly } from "../browser/support/wrong_kernels.js";
import { dawn } from "./dawn.mjs";

const [model, variant] = process.argv.slice(2);
const PAGES = 64;

const { base, close } = await dawn(model);
const faults = Object.fromEntries([...runningOf(model, variant)].map(([name, code]) => [name, wrongly(code)]));
const found = await examineEach(base, { model: faults, sampler: {} }, PAGES, variant, (kernel, error) => console.log(`${kernel}: ${error || "PASSED"}`));
const wrong = found.filter(({ kernel, error, after }) => after || (kernel === "none" ? error : !error.includes("wrong numbers")));
console.log(`${found.length - 1} wrong kernels, ${wrong.length} of them not found, or the right ones refused`);
for (const { kernel, error, after } of wrong) console.log(JSON.stringify({ kernel, error, after }));
await close();
process.exit(wrong.length ? 1 : 0);
