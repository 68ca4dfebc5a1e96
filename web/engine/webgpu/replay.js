/**
 * @file The plan on the GPU: a pipeline for each kernel, a bind group for each launch, and all uniform blocks in one
 * buffer, made once. A step records the launches of one function into a compute pass.
 */

import { invalidArtifact } from "../format/errors.js";
import { COUNTERS } from "./counters.js";
import { USAGE } from "./device.js";
import { compile } from "./kernels.js";
import { BLOCK_BYTES, Uniforms } from "./uniforms.js";

/**
 * @typedef {import("./uniforms.js").Variables} Variables
 * @typedef {object} ReplayFunction
 * @property {string} name
 * @property {number} maxRows
 * @property {Uniforms} uniforms
 * @property {number} base of its uniform blocks
 * @property {(import("../format/plan.js").Launch & {block: number, group: GPUBindGroup | null})[]} launches
 */

export class Replay {
  #gpu;
  #plan;
  #buffers;
  #kernels;
  #uniforms;

  /**
   * Compile all kernels. Nothing is bound yet: that takes KV pages.
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers
   * @param {Map<string, string>} sources WGSL by kernel
   * @returns {Promise<Replay>}
   */
  static async create(gpu, plan, buffers, sources) {
    const kernels = plan.kernels.map(({ name, access }) => {
      const code = sources.get(name);
      if (code === undefined) throw invalidArtifact(`kernels.wgsl has no ${JSON.stringify(name)}`, "kernels");
      return { name, access, code };
    });
    return new Replay(gpu, plan, buffers, await compile(gpu, kernels));
  }

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers
   * @param {import("./kernels.js").Compiled[]} kernels
   */
  constructor(gpu, plan, buffers, kernels) {
    this.#gpu = gpu;
    this.#plan = plan;
    this.#buffers = buffers;
    this.#kernels = kernels;
    let base = 0;
    /** @type {ReplayFunction[]} */
    this.functions = plan.functions.map(({ name, maxRows, launches }) => {
      const uniforms = new Uniforms(launches);
      const fn = {
        name,
        maxRows,
        uniforms,
        base,
        launches: launches.map((launch, i) => ({ ...launch, block: base + uniforms.blocks[i] * BLOCK_BYTES, group: null })),
      };
      base += uniforms.bytes;
      return fn;
    });
    /** Bytes that `prepare` uploads at most. */
    this.uniformBytes = base;
    this.#uniforms = gpu.buffer("uniforms", base, USAGE.UNIFORM | USAGE.COPY_DST);
  }

  /** Bind every launch that is not bound yet, and anew those that touch KV, whose buffers were made anew. */
  bind() {
    const touchesKv = (/** @type {number} */ id) => this.#plan.buffers[id].kind === "kv";
    for (const fn of this.functions) {
      for (const launch of fn.launches) {
        if (launch.group && !launch.buffers.some(touchesKv)) continue;
        const bindings = launch.buffers.map((id) => this.#buffers.binding(id));
        bindings.push({ buffer: this.#uniforms, offset: launch.block, size: BLOCK_BYTES });
        const { layout } = this.#kernels[launch.kernel];
        launch.group = this.#gpu.bindGroup(`${fn.name}: ${this.#name(launch)}`, layout, bindings);
      }
    }
  }

  /**
   * The function for a step of so many rows.
   * @param {number} rows
   * @returns {ReplayFunction}
   */
  select(rows) {
    return /** @type {ReplayFunction} */ (this.functions.find(({ maxRows }) => rows <= maxRows));
  }

  /**
   * Upload the uniform blocks, where these variables are not those of the function's last step.
   * @param {ReplayFunction} fn
   * @param {Variables} variables
   * @param {import("./transfer.js").Uploads} uploads
   */
  prepare(fn, variables, uploads) {
    const words = fn.uniforms.set(variables);
    if (words) uploads.put(this.#uniforms, words, fn.base);
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {ReplayFunction} fn prepared
   */
  record(pass, fn) {
    fn.launches.forEach((launch, i) => this.#dispatch(pass, launch, fn.uniforms.grids[i]));
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {ReplayFunction} fn prepared
   * @param {number} launch of it
   */
  recordLaunch(pass, fn, launch) {
    this.#dispatch(pass, fn.launches[launch], fn.uniforms.grids[launch]);
  }

  /**
   * Run a function with a submit for each launch, so that an error names the one it belongs to.
   * @param {ReplayFunction} fn prepared and uploaded
   * @throws {import("../format/errors.js").EngineError} as Gpu.attempt
   */
  async runSeparately(fn) {
    for (const [i, launch] of fn.launches.entries()) {
      const where = `plan.functions[${this.functions.indexOf(fn)}].launches[${i}] (${this.#name(launch)} in ${fn.name})`;
      await this.#gpu.attempt(where, () => {
        const encoder = this.#gpu.device.createCommandEncoder({ label: where });
        const pass = this.#gpu.pass(encoder);
        this.recordLaunch(pass, fn, i);
        pass.end();
        this.#gpu.submit(encoder);
      });
      await this.#gpu.wait(this.#gpu.device.queue.onSubmittedWorkDone());
    }
  }

  /**
   * @param {GPUComputePassEncoder} pass
   * @param {ReplayFunction["launches"][0]} launch
   * @param {[number, number, number] | null} grid
   */
  #dispatch(pass, launch, grid) {
    if (!grid) return;
    const { counters } = this.#gpu;
    counters[COUNTERS.launches]++;
    counters[COUNTERS.dispatches]++;
    pass.setPipeline(this.#kernels[launch.kernel].pipeline);
    pass.setBindGroup(0, launch.group);
    pass.dispatchWorkgroups(...grid);
  }

  /** @param {{kernel: number}} launch */
  #name({ kernel }) {
    return this.#plan.kernels[kernel].name;
  }
}
