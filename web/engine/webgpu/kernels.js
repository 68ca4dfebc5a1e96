/**
 * @file kernels.wgsl → compute pipelines. Each kernel is a shader module of its own, behind a line `//: name`; all are
 * compiled at once, while the weights arrive.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { STAGE_COMPUTE } from "./device.js";

/** @typedef {{layout: GPUBindGroupLayout, pipeline: GPUComputePipeline}} Compiled */

/**
 * @param {Uint8Array} bytes of kernels.wgsl
 * @returns {Map<string, string>} WGSL by kernel
 */
export function splitKernels(bytes) {
  /** @type {Map<string, string>} */
  const sources = new Map();
  const text = new TextDecoder().decode(bytes);
  for (const part of text.split(/^\/\/: /m).slice(1)) {
    const end = part.indexOf("\n");
    sources.set(part.slice(0, end).trim(), part.slice(end + 1));
  }
  return sources;
}

/**
 * The layout of group 0: a storage buffer for each letter of `access`, then the uniform block.
 * @param {GPUDevice} device
 * @param {string} access r: read, other letters: also written
 * @returns {GPUBindGroupLayout}
 */
export function layoutOf(device, access) {
  /** @type {GPUBufferBindingType[]} */
  const types = [...access].map((letter) => (letter === "r" ? "read-only-storage" : "storage"));
  const entries = [...types, /** @type {const} */ ("uniform")].map((type, binding) => ({
    binding,
    visibility: STAGE_COMPUTE,
    buffer: { type },
  }));
  return device.createBindGroupLayout({ label: access, entries });
}

/**
 * @param {import("./device.js").Gpu} gpu
 * @param {{name: string, access: string, code: string}[]} kernels the entry point has the kernel's name
 * @returns {Promise<Compiled[]>}
 * @throws {EngineError} artifact_invalid for WGSL that does not compile, unsupported where the driver gives up
 */
export function compile(gpu, kernels) {
  const { device } = gpu;
  return Promise.all(
    kernels.map(async ({ name, access, code }) => {
      const { layout, module, pipelineLayout } = await gpu.attempt(`kernel ${name}`, () => {
        const layout = layoutOf(device, access);
        const pipelineLayout = device.createPipelineLayout({ bindGroupLayouts: [layout] });
        return { layout, pipelineLayout, module: device.createShaderModule({ label: name, code }) };
      });
      try {
        const compute = { module, entryPoint: name };
        const making = device.createComputePipelineAsync({ label: name, layout: pipelineLayout, compute });
        return { layout, pipeline: await gpu.wait(making) };
      } catch (error) {
        if (!(error instanceof GPUPipelineError)) throw error;
        if (error.reason === "validation") throw invalidArtifact(`${name}: ${error.message}`, "kernels");
        throw new EngineError("unsupported", `this device cannot compile ${name}: ${error.message}`, "kernels", error);
      }
    }),
  );
}
