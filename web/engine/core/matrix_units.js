/** @file What an adapter's matrix units multiply, as entries of a variant's `requires`. */

/** A feature of Chromium's, behind `--enable-unsafe-webgpu`; its adapters say which matrices they take. */
export const MATRICES = "chromium-experimental-subgroup-matrix";
/** Kernels have teams of 32 threads, with one subgroup in each that works the units. */
const MOST_LANES = 32;

/**
 * @typedef {{componentType: string, resultComponentType: string, M: number, N: number, K: number}} Config
 * @typedef {{subgroupMatrixConfigs?: Iterable<Config>, subgroupMaxSize?: number}} Info what a GPUAdapterInfo has of it
 */

/**
 * @param {object} info a GPUAdapterInfo
 * @returns {string[]} a word for each size of float16 matrices whose products are added up in float32
 */
export function matrixUnits(info) {
  const { subgroupMatrixConfigs = [], subgroupMaxSize = Infinity } = /** @type {Info} */ (info);
  if (subgroupMaxSize > MOST_LANES) return [];
  const halves = [...subgroupMatrixConfigs].filter(({ componentType, resultComponentType }) => componentType === "f16" && resultComponentType === "f32");
  return halves.map(({ M, N, K }) => `${MATRICES}/${M}x${N}x${K}`);
}
