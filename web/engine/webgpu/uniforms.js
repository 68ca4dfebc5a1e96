/**
 * @file The uniform blocks of all launches in one GPU buffer, 256 bytes apart. Launches with equal scalars and grids share
 * a block. A function's blocks are written again only when the variables (rows, sequences, logit rows) change: not within
 * a burst. Immediates (`var<immediate>`) would have to be set for each launch of each step, and spare no bind group.
 */

import { SCALAR_CONSTANT } from "../format/abi.js";

/** WebGPU's default minUniformBufferOffsetAlignment. */
export const BLOCK_BYTES = 256;
const BLOCK_WORDS = BLOCK_BYTES / 4;
/** WebGPU's default maxComputeWorkgroupsPerDimension. */
const MAX_WORKGROUPS = 65535;

/**
 * @typedef {import("../format/plan.js").Extent} Extent
 * @typedef {import("../format/plan.js").Launch} Launch
 * @typedef {readonly [rows: number, sequences: number, logitRows: number]} Variables
 */

/**
 * @param {Extent} extent
 * @param {Variables} variables
 * @returns {number}
 */
export function evaluate(extent, variables) {
  if (typeof extent === "number") return extent;
  if ("variable" in extent) return variables[extent.variable];
  const [a, b] = [evaluate(extent.a, variables), evaluate(extent.b, variables)];
  if (extent.operator === "*") return a * b;
  return extent.operator === "+" ? a + b : Math.ceil(a / b);
}

/**
 * The grid to dispatch: a kernel numbers its workgroups `z * gridDim.x + x`, so a long x is folded into z.
 * @param {readonly [number, number, number]} grid
 * @returns {[number, number, number]}
 */
export function fold([x, y, z]) {
  while (x > MAX_WORKGROUPS) {
    x = Math.ceil(x / 2);
    z *= 2;
  }
  return [x, y, z];
}

/** The blocks of one function. */
export class Uniforms {
  /** Block of each launch. @type {number[]} */
  blocks = [];
  /** Grids by launch, for the variables set last; null: nothing to dispatch. @type {([number, number, number] | null)[]} */
  grids = [];
  /** @type {Launch[]} a launch of each block */
  #kinds = [];
  /** @type {Variables | null} */
  #variables = null;
  #launches;
  #words;

  /** @param {readonly Launch[]} launches */
  constructor(launches) {
    this.#launches = launches;
    /** @type {Map<string, number>} */
    const known = new Map();
    for (const launch of launches) {
      const key = JSON.stringify([launch.scalars, launch.grid[0]]);
      let block = known.get(key);
      if (block === undefined) {
        block = this.#kinds.push(launch) - 1;
        known.set(key, block);
      }
      this.blocks.push(block);
    }
    this.#words = new Int32Array(this.#kinds.length * BLOCK_WORDS);
  }

  /** Bytes of all blocks. */
  get bytes() {
    return this.#words.byteLength;
  }

  /**
   * @param {Variables} variables of the next step
   * @returns {Int32Array | null} what must be written to the GPU; null: it lies there already
   */
  set(variables) {
    if (this.#variables?.every((value, i) => value === variables[i])) return null;
    this.#variables = variables;
    this.#kinds.forEach(({ scalars, grid }, block) => {
      const values = scalars.map(([kind, value]) => (kind === SCALAR_CONSTANT ? value : variables[value]));
      this.#words.set([...values, evaluate(grid[0], variables) - 1], block * BLOCK_WORDS);
    });
    this.grids = this.#launches.map(({ grid: [x, y, z] }) => {
      const grid = fold([evaluate(x, variables), evaluate(y, variables), evaluate(z, variables)]);
      return grid.includes(0) ? null : grid;
    });
    return this.#words;
  }
}
