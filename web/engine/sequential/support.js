/** @file What a variant requires of WebAssembly, for the sampler, and of WebGPU, for what computes the model. */

const GPU = ["webgpu", "shader-f16"];

/**
 * @param {readonly string[]} requires
 * @returns {{wasm: string[], gpu: string[]}} gpu: features and limits of an adapter
 */
export function parted(requires) {
  const ofGpu = (/** @type {string} */ word) => GPU.includes(word) || word.includes(":");
  return { wasm: requires.filter((word) => !ofGpu(word)), gpu: requires.filter((word) => ofGpu(word) && word !== "webgpu") };
}
