/**
 * @file Validates WGSL that no adapter at hand can run (shader-f16, also with subgroups, and matrix units): every kernel becomes a
 * pipeline on Dawn's null backend, with WebGPU's default limits. It computes nothing. Not part of `make test`:
 *
 *     npm install --no-save webgpu && node tests/support/validate_wgsl.mjs build/models/…/webgpu-f16/kernels.wgsl
 */

import { readFileSync } from "node:fs";

import { create } from "webgpu";

const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
Object.assign(globalThis, { gpu }); // collected while devices live, it takes the process with it
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({ requiredFeatures: ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"] });
const limits = ["maxStorageBuffersPerShaderStage", "maxComputeWorkgroupStorageSize", "maxComputeInvocationsPerWorkgroup"];
console.log(limits.map((name) => `${name} ${device.limits[name]}`).join(", "));
let failed = 0;
for (const file of process.argv.slice(2)) {
  const kernels = readFileSync(file, "utf8").split(/^\/\/: /m).slice(1);
  for (const text of kernels) {
    const at = text.indexOf("\n");
    const name = text.slice(0, at);
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: name, code: text.slice(at + 1) });
    device.createComputePipeline({ label: name, layout: "auto", compute: { module, entryPoint: name } });
    const error = await device.popErrorScope();
    if (error) console.error(`${name}: ${error.message}`);
    failed += error ? 1 : 0;
  }
  console.log(`${file}: ${kernels.length} kernels, ${failed} refused so far`);
}
process.exit(failed || process.argv.length < 3 ? 1 : 0);
