/**
 * @file The plan on the GPU: a pipeline for each kernel, a bind group for each launch, and all uniform blocks in one
 * buffer, made once. A step records the launches of one function into a compute pass.
 */

import { find } from "../core/alternatives.js";
import { EngineError, invalidArtifact } from "../format/errors.js";
import { COUNTERS } from "./counters.js";
import { USAGE } from "./device.js";
import { compile } from "./kernels.js";
import { BLOCK_BYTES, Uniforms } from "./uniforms.js";

/**
 * @typedef {import("./uniforms.js").Variables} Variables
 * @typedef {{id: number, at: number}} Standing a kernel, and its place in the list of those that do the same
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
  #sources;
  /** By number; those that only stand in for another are compiled when they are chosen. @type {import("./kernels.js").Compiled[]} */
  #kernels = [];
  /** What runs in the place of a launch's kernel. @type {Map<number, Standing>} */
  #chosen = new Map();
  #uniforms;
  /** Kernels that this device cannot run or did not compile, and can do without. @type {Set<number>} */
  #refused;

  /**
   * Compile the kernels. Nothing is bound yet: that takes KV pages.
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers
   * @param {Map<string, string>} sources WGSL by kernel
   * @param {{chosen: string[], all: boolean, not?: Set<number>}} kernels that run in the place of others; `all`: compile those
   *   that might, too, which need not succeed, see `alternatives`; `not`: those that this device cannot run
   * @returns {Promise<Replay>}
   */
  static async create(gpu, plan, buffers, sources, { chosen, all, not = new Set() }) {
    for (const { name } of plan.kernels) {
      if (!sources.has(name)) throw invalidArtifact(`kernels.wgsl has no ${JSON.stringify(name)}`, "kernels");
    }
    const replay = new Replay(gpu, plan, buffers, sources, not);
    const others = all ? plan.alternatives.flatMap(([, ...rest]) => rest).filter((id) => !not.has(id)) : [];
    const [running, ...standing] = await Promise.allSettled([replay.choose(chosen), ...others.map((id) => replay.#compile([id]))]);
    if (running.status === "rejected") throw running.reason;
    replay.#refused = new Set([...not, ...others.filter((_, i) => standing[i].status === "rejected")]);
    return replay;
  }

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers
   * @param {Map<string, string>} sources
   * @param {Set<number>} refused
   */
  constructor(gpu, plan, buffers, sources, refused) {
    this.#gpu = gpu;
    this.#plan = plan;
    this.#buffers = buffers;
    this.#sources = sources;
    this.#refused = refused;
    /** @type {ReplayFunction[]} */
    this.functions = [];
    const all = plan.functions.map(({ launches }) => launches.flatMap((launch) => [launch.grid, ...launch.others].map((grid) => ({ ...launch, grid }))));
    /** Bytes that `prepare` uploads at most, whatever is chosen. */
    this.uniformBytes = all.reduce((bytes, launches) => bytes + new Uniforms(launches).bytes, 0);
    this.#uniforms = gpu.buffer("uniforms", this.uniformBytes, USAGE.UNIFORM | USAGE.COPY_DST);
  }

  /**
   * Let these kernels run from now on, each in the place of those that do the same. All has to be bound anew.
   * @param {string[]} names
   * @throws {EngineError} invalid_request for a name that is none of `alternatives`; as `compile`
   */
  async choose(names) {
    const plan = this.#plan;
    const chosen = new Map(this.#chosen);
    for (const name of names) {
      const { id, at, first } = this.#find(name);
      chosen.set(first, { id, at });
    }
    const others = new Set(plan.alternatives.flatMap(([, ...rest]) => rest));
    const running = plan.kernels.flatMap((_, id) => (others.has(id) ? [] : [chosen.get(id)?.id ?? id]));
    await this.#compile(running);
    this.#chosen = chosen;
    let base = 0;
    this.functions = plan.functions.map(({ name, maxRows, launches }) => {
      const fn = laidOut(name, maxRows, launches.map((launch) => standing(launch, chosen.get(launch.kernel))), base);
      base += fn.uniforms.bytes;
      return fn;
    });
  }

  /** @param {string} name */
  #find(name) {
    const found = find(this.#plan, name);
    if (this.#refused.has(found.id)) throw new EngineError("invalid_request", `this device cannot run ${name}`, "kernels");
    return found;
  }

  /** @param {number[]} ids of kernels: those that are not compiled yet */
  async #compile(ids) {
    const missing = ids.filter((id) => !this.#kernels[id]);
    const kernels = missing.map((id) => {
      const { name, access } = this.#plan.kernels[id];
      return { name, access, code: /** @type {string} */ (this.#sources.get(name)) };
    });
    const made = await compile(this.#gpu, kernels);
    missing.forEach((id, i) => (this.#kernels[id] = made[i]));
  }

  /** Names of the kernels that run, of each list of alternatives. @returns {string[]} */
  get running() {
    return this.#plan.alternatives.map(([first]) => this.#plan.kernels[this.#chosen.get(first)?.id ?? first].name);
  }

  /** Of each list the kernels that this device can run. @returns {string[][]} */
  get alternatives() {
    return this.#plan.alternatives.map((ids) => ids.filter((id) => !this.#refused.has(id)).map((id) => this.#plan.kernels[id].name));
  }

  /**
   * A function of the plan's first launch of a list's kernels, to be timed with this one of them. Its uniform blocks lie in
   * those of others: `choose` lays them out anew.
   * @param {string} name
   * @returns {Promise<{fn: ReplayFunction, least: number} | null>} `least`: rows with which that function runs at all
   * @throws {EngineError} as `choose`
   */
  async alone(name) {
    const { functions } = this.#plan;
    const { id, at, first } = this.#find(name);
    const which = functions.findIndex(({ launches }) => launches.some(({ kernel }) => kernel === first));
    if (which < 0) return null;
    await this.#compile([id]);
    const launches = functions[which].launches.filter(({ kernel }) => kernel === first).slice(0, 1);
    const fn = laidOut(name, functions[which].maxRows, launches.map((launch) => standing(launch, { id, at })), 0);
    this.#bind(fn);
    return { fn, least: (functions[which - 1]?.maxRows ?? 0) + 1 };
  }

  /**
   * Record one launch again and again.
   * @param {GPUComputePassEncoder} pass
   * @param {ReplayFunction} fn prepared
   * @param {number} times
   */
  repeat(pass, fn, times) {
    for (let i = 0; i < times; i++) this.#dispatch(pass, fn.launches[0], fn.uniforms.grids[0]);
  }

  /** Bind every launch that is not bound yet, and anew those that touch KV, whose buffers were made anew. */
  bind() {
    for (const fn of this.functions) this.#bind(fn);
  }

  /** @param {ReplayFunction} fn */
  #bind(fn) {
    const touchesKv = (/** @type {number} */ id) => this.#plan.buffers[id].kind === "kv";
    for (const launch of fn.launches) {
      if (launch.group && !launch.buffers.some(touchesKv)) continue;
      const bindings = launch.buffers.map((id) => this.#buffers.binding(id));
      bindings.push({ buffer: this.#uniforms, offset: launch.block, size: BLOCK_BYTES });
      const { layout } = this.#kernels[launch.kernel];
      launch.group = this.#gpu.bindGroup(`${fn.name}: ${this.#name(launch)}`, layout, bindings);
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
   * @throws {EngineError} as Gpu.attempt
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
      await this.#gpu.done();
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

/**
 * The launch with another kernel in its place, on that one's grid.
 * @param {import("../format/plan.js").Launch} launch
 * @param {Standing} [other]
 * @returns {import("../format/plan.js").Launch}
 */
function standing(launch, other) {
  if (!other) return launch;
  return { ...launch, kernel: other.id, grid: [launch.grid, ...launch.others][other.at] };
}

/**
 * Launches with their uniform blocks. Nothing is bound yet.
 * @param {string} name
 * @param {number} maxRows
 * @param {import("../format/plan.js").Launch[]} launches
 * @param {number} base of the blocks
 * @returns {ReplayFunction}
 */
function laidOut(name, maxRows, launches, base) {
  const uniforms = new Uniforms(launches);
  const placed = launches.map((launch, i) => ({ ...launch, block: base + uniforms.blocks[i] * BLOCK_BYTES, group: null }));
  return { name, maxRows, uniforms, base, launches: placed };
}
