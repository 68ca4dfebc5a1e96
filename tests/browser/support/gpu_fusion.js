/**
 * @file Times the pairs of gpu_fusion.py on a WebGPU device, in a page or in Node: fused and apart by turns, each a pass
 * of many repeats in one submit; after checking that both leave the same.
 */

/**
 * @typedef {import("./gpu_lab.js").CaseLaunch} Launch
 * @typedef {{name: string, rows: number, context: number, buffers: Record<string, {bytes: number, input?: number}>, fused: Launch[], apart: Launch[], outputs: Record<string, "float32" | "float16">}} Pair
 * @typedef {{name: string, rows: number, context: number, dispatches: [number, number], off: number, fusedUs: number, ratio: number, quartiles: [number, number]}} Timed
 * `off`: the largest difference, of the largest value; `fusedUs`: one time through; `ratio`: apart / fused, its median
 */

// Of GPUBufferUsage and GPUMapMode, which Node does not have.
const MAP_READ = 1, COPY_SRC = 4, COPY_DST = 8, UNIFORM = 64, STORAGE = 128; // prettier-ignore

/**
 * @param {GPUAdapter} adapter
 * @param {Pair[]} pairs
 * @param {ArrayBuffer} data
 * @param {string} wgsl
 * @param {{rounds: number, ms: number, only: string}} much rounds of every pair whose name has `only` in it, and about how long one submit of them
 * @returns {Promise<Timed[]>}
 */
export async function timeFusion(adapter, pairs, data, wgsl, { rounds, ms, only }) {
  const device = await adapter.requestDevice();
  const modules = new Map(wgsl.split(/^\/\/: /m).slice(1).map((text) => [text.slice(0, text.indexOf("\n")), text.slice(text.indexOf("\n") + 1)]));
  /** @type {Map<string, GPUComputePipeline>} */
  const pipelines = new Map();
  for (const [name, code] of modules) {
    const module = device.createShaderModule({ code, label: name });
    pipelines.set(name, await device.createComputePipelineAsync({ label: name, layout: "auto", compute: { module, entryPoint: name } }));
  }
  const out = [];
  for (const pair of pairs.filter(({ name }) => name.includes(only))) {
    const [fused, apart] = [pair.fused, pair.apart].map((launches) => new Side(device, pipelines, pair, launches, data));
    await fused.run(1);
    await apart.run(1);
    const off = await worst(fused, apart);
    await fused.run(2); // a kernel's first runs are slower
    const count = Math.max(1, Math.min(1000, Math.round((2 * ms) / (await fused.run(2)))));
    await apart.run(2);
    const times = [];
    for (let round = 0; round < rounds; round++) {
      const first = round % 2 ? fused : apart;
      const a = await first.run(count);
      const b = await (first === fused ? apart : fused).run(count);
      times.push(first === fused ? [a, b] : [b, a]);
    }
    const ratios = times.map(([a, b]) => b / a).sort((a, b) => a - b);
    const at = (/** @type {number} */ share) => ratios[Math.round(share * (ratios.length - 1))];
    const fusedUs = (1e3 * times.map(([a]) => a).sort((a, b) => a - b)[rounds >> 1]) / count;
    out.push(/** @type {Timed} */ ({ name: pair.name, rows: pair.rows, context: pair.context, dispatches: [pair.fused.length, pair.apart.length], off, fusedUs, ratio: at(0.5), quartiles: [at(0.25), at(0.75)] }));
    fused.free();
    apart.free();
  }
  device.destroy();
  return out;
}

/** The launches of one side, over buffers of its own. */
class Side {
  /** @param {GPUDevice} device @param {Map<string, GPUComputePipeline>} pipelines @param {Pair} pair @param {Launch[]} launches @param {ArrayBuffer} data */
  constructor(device, pipelines, pair, launches, data) {
    this.device = device;
    this.outputs = pair.outputs;
    this.buffers = new Map(Object.entries(pair.buffers).map(([name, { bytes, input }]) => {
      const buffer = device.createBuffer({ size: Math.ceil(bytes / 4) * 4, usage: STORAGE | COPY_DST | COPY_SRC });
      if (input !== undefined) device.queue.writeBuffer(buffer, 0, data, input, buffer.size);
      return /** @type {const} */ ([name, buffer]);
    }));
    this.launches = launches.map(({ kernel, buffers, scalars, grid }) => {
      const pipeline = /** @type {GPUComputePipeline} */ (pipelines.get(kernel));
      const uniform = device.createBuffer({ size: 16, usage: UNIFORM | COPY_DST });
      device.queue.writeBuffer(uniform, 0, new Int32Array([...scalars, grid[0] - 1]));
      const bound = [...buffers.map((name) => /** @type {GPUBuffer} */ (this.buffers.get(name))), uniform];
      const entries = bound.map((buffer, binding) => ({ binding, resource: { buffer } }));
      return { pipeline, grid, group: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }) };
    });
  }

  /** @param {number} times @returns {Promise<number>} ms until the device is done */
  async run(times) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let i = 0; i < times; i++) {
      for (const { pipeline, grid, group } of this.launches) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
      }
    }
    pass.end();
    const commands = encoder.finish();
    const began = performance.now();
    this.device.queue.submit([commands]);
    await this.device.queue.onSubmittedWorkDone();
    return performance.now() - began;
  }

  /** @param {string} name @returns {Promise<number[]>} */
  async values(name) {
    const from = /** @type {GPUBuffer} */ (this.buffers.get(name));
    const staging = this.device.createBuffer({ size: from.size, usage: MAP_READ | COPY_DST });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(from, 0, staging, 0, from.size);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(1);
    const bytes = staging.getMappedRange().slice(0);
    staging.destroy();
    return this.outputs[name] === "float16" ? Array.from(new Uint16Array(bytes), half) : Array.from(new Float32Array(bytes));
  }

  free() {
    for (const buffer of this.buffers.values()) buffer.destroy();
  }
}

/** @param {Side} fused @param {Side} apart @returns {Promise<number>} the largest difference, of the largest value */
async function worst(fused, apart) {
  let off = 0;
  for (const name of Object.keys(fused.outputs)) {
    const [a, b] = [await fused.values(name), await apart.values(name)];
    const largest = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const difference = a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0) / largest;
    off = difference <= off ? off : difference; // NaN stays
  }
  return off;
}

/** @param {number} bits of a float16 @returns {number} */
function half(bits) {
  const exponent = (bits >> 10) & 31, size = exponent ? 2 ** (exponent - 15) * (1 + (bits & 1023) / 1024) : (2 ** -14 * (bits & 1023)) / 1024; // prettier-ignore
  return bits & 0x8000 ? -size : size;
}
