/**
 * @file Kernels against numpy on a Vulkan adapter through Dawn in Node, for features that no adapter of Chromium's here has:
 * shader-f16 (Mesa 25's lavapipe) and matrix units (Mesa 26's). Not part of `make test`; exits with 1 where something
 * differs, with 2 where the adapter lacks what kernels need:
 *
 *     PYTHONPATH=tests .venv/bin/python tests/browser/support/gpu_cases.py build/tests/gpu-halves --halves
 *     npm install --no-save webgpu && node tests/support/gpu_kernels.mjs build/tests/gpu-halves/float16
 *     node tests/support/gpu_kernels.mjs build/tests/gpu-halves/matrix-8x8x8
 */

import { readFileSync } from "node:fs";
import { create, globals } from "webgpu";

import { MATRICES, matrixUnits } from "../../web/engine/core/matrix_units.js";
import { GpuLab } from "../browser/support/gpu_lab.js";

const gpu = create(["backend=vulkan", "enable-dawn-features=allow_unsafe_apis"]);
Object.assign(globalThis, globals, { gpu }); // collected while devices live, it takes the process with it
const adapter = await gpu.requestAdapter();
const [json, bin, wgsl] = ["json", "bin", "wgsl"].map((end) => readFileSync(`${process.argv[2]}.${end}`));
const needed = [...new Set([...String(wgsl).matchAll(/^enable (\w+);/gm)].map(([, name]) => ({ f16: "shader-f16" })[name] ?? name.replaceAll("_", "-")))];
const units = /matrix-(\d+x\d+x\d+)$/.exec(process.argv[2])?.[1];
const has = new Set([...(adapter?.features ?? []), ...matrixUnits(adapter?.info ?? {})]);
const missing = [...needed, ...(units ? [`${MATRICES}/${units}`] : [])].filter((name) => !has.has(name));
if (!adapter || missing.length > 0) {
  console.error(`${adapter?.info.description ?? "no Vulkan adapter"}: ${missing.join(", ")} missing`);
  process.exit(2);
}
console.log(`${adapter.info.description}, ${needed.join(", ")}`);
const device = await adapter.requestDevice({ requiredFeatures: needed });
const lab = new GpuLab(device, JSON.parse(String(json)), new Uint8Array(bin).buffer, String(wgsl));
let failed = 0;
for (const family of lab.families()) {
  const { cases, elements, failures } = await lab.run(family);
  console.log([`${family}: ${cases} cases, ${elements} elements, ${failures.length} failures`, ...failures].join("\n"));
  failed += failures.length;
}
process.exit(failed ? 1 : 0);
