/**
 * @file Runs cases of gpu_cases.py on a WebGPU device, in a page or in Node, and compares what their kernels leave in
 * buffers with what numpy wrote.
 */

import { fromHalf } from "../../../web/engine/core/halves.js";

/**
 * @typedef {{bytes: number, input?: number}} CaseBuffer without `input` it holds poison before
 * @typedef {{kernel: string, buffers: string[], scalars: number[], grid: number[], access: string}} CaseLaunch
 * @typedef {{buffer: string, dtype: "float32" | "float16", count: number, want: number, tolerance: number}} CaseOutput
 * @typedef {{family: string, name: string, buffers: Record<string, CaseBuffer>, launches: CaseLaunch[], outputs: CaseOutput[], like: string | null}} Case
 * @typedef {{cases: number, elements: number, failures: string[]}} Report
 */

const POISON = 0xa5;
/** Failures told of one case. */
const TOLD = 3;
// Of GPUBufferUsage and GPUMapMode, which Node does not have.
const MAP_READ = 1, COPY_SRC = 4, COPY_DST = 8, UNIFORM = 64, STORAGE = 128; // prettier-ignore

export class GpuLab {
  /**
   * @param {GPUDevice} device
   * @param {Case[]} cases
   * @param {ArrayBuffer} data
   * @param {string} wgsl
   */
  constructor(device, cases, data, wgsl) {
    this.device = device;
    this.cases = cases;
    this.data = data;
    this.sources = new Map(wgsl.split(/^\/\/: /m).slice(1).map((text) => /** @type {[string, string]} */ ([text.slice(0, text.indexOf("\n")), text.slice(text.indexOf("\n") + 1)])));
    /** @type {Map<string, Promise<GPUComputePipeline>>} */
    this.pipelines = new Map();
    /** What cases left, by name and buffer. @type {Map<string, Uint8Array>} */
    this.left = new Map();
  }

  /**
   * @param {string} url of the cases without extension
   * @param {GPUAdapter | null} adapter
   * @param {Record<string, number>} [requiredLimits]
   * @returns {Promise<GpuLab>}
   */
  static async load(url, adapter, requiredLimits = {}) {
    if (!adapter) throw new Error("no WebGPU adapter");
    const [cases, data, wgsl, device] = await Promise.all([
      fetch(`${url}.json`).then((response) => response.json()),
      fetch(`${url}.bin`).then((response) => response.arrayBuffer()),
      fetch(`${url}.wgsl`).then((response) => response.text()),
      // Nothing beyond the default limits; some kernels want subgroups, which every software adapter here has.
      adapter.requestDevice({ requiredFeatures: adapter.features.has("subgroups") ? ["subgroups"] : [], requiredLimits }),
    ]);
    return new GpuLab(device, cases, data, wgsl);
  }

  /** @returns {string[]} */
  families() {
    return [...new Set(this.cases.map((one) => one.family))];
  }

  /** @param {string} family @returns {Promise<Report>} */
  async run(family) {
    /** @type {Report} */
    const report = { cases: 0, elements: 0, failures: [] };
    for (const one of this.cases.filter((each) => each.family === family)) {
      const wrong = await this.#check(one);
      report.failures.push(...wrong.slice(0, TOLD).map((line) => `${one.name}: ${line}`));
      report.cases++;
      report.elements += one.outputs.reduce((sum, { count }) => sum + count, 0);
    }
    return report;
  }

  /** Every kernel as a pipeline. @returns {Promise<string[]>} what a device refuses */
  async compileAll() {
    /** @type {string[]} */
    const refused = [];
    for (const name of this.sources.keys()) await this.#pipeline(name).catch((error) => refused.push(`${name}: ${error.message}`));
    return refused;
  }

  /** @param {string} name @returns {Promise<GPUComputePipeline>} */
  #pipeline(name) {
    let made = this.pipelines.get(name);
    if (!made) {
      const module = this.device.createShaderModule({ code: /** @type {string} */ (this.sources.get(name)), label: name });
      made = this.device.createComputePipelineAsync({ label: name, layout: "auto", compute: { module, entryPoint: name } });
      this.pipelines.set(name, made);
    }
    return made;
  }

  /** @param {Case} one @returns {Promise<string[]>} */
  async #check(one) {
    const { device } = this;
    device.pushErrorScope("validation");
    const buffers = new Map(Object.entries(one.buffers).map(([name, { bytes, input }]) => {
      const buffer = device.createBuffer({ size: Math.ceil(bytes / 4) * 4, usage: STORAGE | COPY_DST | COPY_SRC });
      const held = new Uint8Array(buffer.size).fill(POISON);
      if (input !== undefined) held.set(new Uint8Array(this.data, input, bytes));
      device.queue.writeBuffer(buffer, 0, held);
      return /** @type {const} */ ([name, buffer]);
    }));
    for (const launch of one.launches) await this.#launch(launch, buffers);
    /** @type {string[]} */
    const wrong = [];
    for (const output of one.outputs) {
      const bytes = await this.#read(/** @type {GPUBuffer} */ (buffers.get(output.buffer)));
      this.left.set(`${one.name}/${output.buffer}`, bytes);
      wrong.push(...this.#compare(output, bytes));
      const like = one.like && this.left.get(`${one.like}/${output.buffer}`);
      if (one.like && !like) wrong.push(`no case ${one.like}`);
      const length = output.count * widthOf(output); // behind it a word's rest has poison
      if (like && bytes.subarray(0, length).some((byte, i) => byte !== like[i])) wrong.push(`${output.buffer} differs from ${one.like}`);
    }
    for (const buffer of buffers.values()) buffer.destroy();
    const error = await device.popErrorScope();
    return error ? [error.message, ...wrong] : wrong;
  }

  /** @param {CaseLaunch} launch @param {Map<string, GPUBuffer>} buffers */
  async #launch({ kernel, buffers: names, scalars, grid }, buffers) {
    const { device } = this;
    const pipeline = await this.#pipeline(kernel);
    const words = new Int32Array([...scalars, grid[0] - 1]);
    const uniform = device.createBuffer({ size: 16 * Math.ceil(words.length / 4), usage: UNIFORM | COPY_DST });
    device.queue.writeBuffer(uniform, 0, words);
    const bound = [...names.map((name) => /** @type {GPUBuffer} */ (buffers.get(name))), uniform];
    const entries = bound.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  /** @param {GPUBuffer} buffer @returns {Promise<Uint8Array>} */
  async #read(buffer) {
    const staging = this.device.createBuffer({ size: buffer.size, usage: MAP_READ | COPY_DST });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(1);
    const bytes = new Uint8Array(staging.getMappedRange().slice(0));
    staging.destroy();
    return bytes;
  }

  /** @param {CaseOutput} output @param {Uint8Array} bytes @returns {string[]} */
  #compare(output, bytes) {
    const { buffer, count, want: at, tolerance } = output;
    const want = new Float64Array(this.data, at, count);
    const room = new Float64Array(this.data, tolerance, count);
    const width = widthOf(output);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    /** @type {string[]} */
    const wrong = [];
    for (let i = 0; i < count; i++) {
      const poison = bytes.subarray(i * width, (i + 1) * width).every((byte) => byte === POISON);
      const got = width === 4 ? view.getFloat32(4 * i, true) : fromHalf(view.getUint16(2 * i, true));
      if (Number.isNaN(want[i]) ? !poison : !(Math.abs(got - want[i]) <= room[i])) {
        wrong.push(`${buffer}[${i}] is ${poison ? "not written" : got}, wanted ${want[i]} ± ${room[i]}`);
      }
    }
    return wrong.length > TOLD ? [`${wrong.length} of ${count} elements are wrong`, ...wrong] : wrong;
  }
}

/** @param {CaseOutput} output @returns {number} bytes of an element */
function widthOf({ dtype }) {
  return dtype === "float16" ? 2 : 4;
}
