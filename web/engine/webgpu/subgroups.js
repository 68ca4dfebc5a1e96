/**
 * @file Kernels that require a feature of the device: which of them cannot run here. Those with subgroups also want threads to
 * lie in subgroups in their order, which WGSL leaves open, and the operations that they use to do what they should: a kernel
 * of one workgroup checks both. A driver may make another pipeline otherwise: the exam would find that.
 */

import { EngineError } from "../format/errors.js";
import { COUNTERS } from "./counters.js";
import { USAGE } from "./device.js";
import { compile } from "./kernels.js";
import { ReadBack } from "./transfer.js";

const SUBGROUPS = "subgroups";
const NAME = "astray";
const CODE = `enable ${SUBGROUPS};
@group(0) @binding(0) var<storage, read_write> count : atomic<u32>;
@compute @workgroup_size(256)
fn ${NAME}(
  @builtin(local_invocation_index) t : u32,
  @builtin(subgroup_invocation_id) lane : u32,
  @builtin(subgroup_size) size : u32
) {
  let read = subgroupShuffle(t, (lane & ~3u) | 2u) == (t & ~3u) + 2u;
  let swapped = subgroupShuffleXor(t, 2u) == (t ^ 2u);
  let spread = quadBroadcast(t, 1u) == (t & ~3u) + 1u;
  if (lane != t % size || !read || !swapped || !spread) { atomicAdd(&count, 1u); }
}
`;

/**
 * @param {import("../format/plan.js").Plan} plan
 * @returns {string[]} features that are of use to it
 */
export function featuresOf({ kernels }) {
  return [...new Set(kernels.flatMap(({ requires }) => requires))];
}

/**
 * @param {import("./device.js").Gpu} gpu
 * @param {import("../format/plan.js").Plan} plan
 * @param {boolean} tuned whether kernels are chosen at all; without, nothing is tried that the variant does not require
 * @param {readonly string[]} required of the variant: none of its kernels can do without
 * @returns {Promise<Set<number>>} ids of kernels
 * @throws {EngineError} unsupported
 */
export async function cannotRun(gpu, plan, tuned, required) {
  const has = new Set(featuresOf(plan).filter((feature) => tuned && gpu.device.features.has(feature)));
  if ((has.has(SUBGROUPS) || required.includes(SUBGROUPS)) && !(await inOrder(gpu))) {
    if (required.includes(SUBGROUPS)) throw new EngineError("unsupported", "this device's subgroups are not as kernels need them", "variant");
    has.delete(SUBGROUPS);
  }
  return new Set(plan.kernels.flatMap(({ requires }, id) => (requires.every((feature) => has.has(feature)) ? [] : [id])));
}

/**
 * @param {import("./device.js").Gpu} gpu opened with subgroups
 * @returns {Promise<boolean>} whether subgroups are what kernels take them for
 */
async function inOrder(gpu) {
  const count = gpu.buffer(NAME, 4, USAGE.STORAGE | USAGE.COPY_SRC);
  const block = gpu.buffer(NAME, 16, USAGE.UNIFORM);
  const readBack = new ReadBack(gpu, NAME, 4);
  try {
    const [{ layout, pipeline }] = await compile(gpu, [{ name: NAME, access: "w", code: CODE }]);
    const encoder = gpu.device.createCommandEncoder({ label: NAME });
    const pass = gpu.pass(encoder);
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, gpu.bindGroup(NAME, layout, [{ buffer: count }, { buffer: block }]));
    gpu.counters[COUNTERS.dispatches]++;
    pass.dispatchWorkgroups(1);
    pass.end();
    const recorded = readBack.record(encoder, [{ source: count, offset: 0, bytes: 4 }]);
    gpu.submit(encoder);
    return new Uint32Array((await readBack.read(recorded)).buffer)[0] === 0;
  } catch {
    gpu.check(); // a driver that gives up on this one is left alone; a device that is gone is not
    return false;
  } finally {
    readBack.end();
    gpu.free(count);
    gpu.free(block);
  }
}
