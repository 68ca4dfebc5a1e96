/**
 * @file Kernels against numpy on a Vulkan adapter through Dawn in Node, for features that no adapter of Chromium's here has:
 * shader-f16 (Mesa 25's lavapipe) and matrix units (Mesa 26's). Not part of `make test`; exits with 1 where something
 * differs, with 2 where the adapter lacks what kernels need:
 *
 *     PYTHONPATH=tests .venv/bin/python tests/browser/support/gpu_cases.py build/tests/gpu-halves --halves
 *     npm install --no-save webgpu && node tests/support/gpu_kernels.mjs build/tests/gpu-halves/float16
 *     node tests/support/gpu_kernels.mjs build/tests/gpu-halves/units
 */

import { readFileSync } from "node:fs";
import { create, globals } from "webgpu";

import { GpuLab } from "../browser/support/gpu_lab.js";

const gpu = create(["backend=vulkan", "enable-dawn-features=allow_unsafe_apis"]);
Object.assign(globalThis, globals, { gpu }); // collected while devices live, it takes the process with it
const adapter = await gpu.requestAdapter();
const [json, bin, wgsl] = ["json", "bin", "wgsl"].map((end) => readFileSync(`${process.argv[2]}.${end}`));
const needed = [...new Set([...String(wgsl).matchAll(/^enable (\w+);/gm)].map(([, name]) => ({ f16: "shader-f16" })[name] ?? name.replaceAll("_", "-")))];
if (!adapter || needed.some((name) => !adapter.features.has(name))) {
  console.error(`${adapter?.info.description ?? "no Vulkan adapter"}: ${needed.filter((name) => !adapter?.features.has(name)).join(", ")} missing`);
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
