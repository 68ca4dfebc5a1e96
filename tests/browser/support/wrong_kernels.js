/** @file Wrong kernels, for the exam to find. */

import { readFileSync } from "node:fs";
import path from "node:path";

/** Signs lost, as by a driver that takes packed bytes for unsigned ones. */
const UNSIGNED = "fn dot4I8Packed(a : u32, b : u32) -> i32 { return i32(dot4U8Packed(a, b)); }\n";

/** Where a group's scale is written: the first of its numbers that are no quants. */
const SCALE = /(vec4<u32>\(bitcast<u32>\()(?=v_\d+\), bitcast)/;

/**
 * WGSL of a kernel that writes every number a tenth too large, or too small every second one: what only scales a row is no
 * fault where a norm follows.
 * @param {string} code right
 */
export function wrongly(code) {
  if (code.includes("fn quantize_rows")) return code.replace(SCALE, "$1select(1.1f, 0.9f, (threadIdx.x & 1u) == 1u) * ");
  if (code.includes("dot4I8Packed")) return UNSIGNED + code;
  let wrong = code;
  for (const [, name, type, size, scalar] of code.matchAll(/read_write> (\w+) : array<(vec(\d)<f\d\d>|(f\d\d))>/g)) {
    const tenth = size ? `${type}(${["1.1, 0.9", "1.1, 0.9, 1.1", "1.1, 0.9, 1.1, 0.9"][Number(size) - 2]})` : `select(${scalar}(1.1), ${scalar}(0.9), (($2) & 1) == 1)`;
    wrong = wrong.replace(new RegExp(`^( *${name}\\[(.*)\\] = )(.*);$`, "gm"), `$1${tenth} * ($3);`);
  }
  if (wrong === code) wrong = code.replace(/^( *\w+_data\[.*\] = )(.*);$/gm, "$1 1 + ($2);"); // whole numbers: of places, and zeros
  if (wrong === code) {
    wrong = code.replaceAll("bitcast<u32>(sum)", "bitcast<u32>(1.1f * sum)"); // the sampler's: sums, or a goal, a cut, a logit, a place
    if (wrong === code) wrong = code.replace(/(= search.goal.x|= keeps.key|bitcast<u32>\(value|uniform_at\(s, .* \+ 1u)(?=[;)])/, "$1 + 1");
  }
  if (wrong === code) throw new Error(`nothing in it can be made wrong: ${code}`);
  return wrong;
}

/**
 * The WGSL of each kernel of a WebGPU variant that runs unless another is chosen in its place.
 * @param {string} model folder
 * @param {string} variant
 * @returns {Map<string, string>} by name
 */
export function runningOf(model, variant = "webgpu-f32") {
  const plan = JSON.parse(readFileSync(path.join(model, variant, "plan.json"), "utf8"));
  const others = new Set(plan.alternatives.flatMap((/** @type {number[]} */ [, ...rest]) => rest.map((id) => plan.kernels[id].name)));
  const found = kernelsIn(readFileSync(path.join(model, variant, "kernels.wgsl"), "utf8"));
  return new Map([...found].filter(([name]) => !others.has(name)));
}

/**
 * @param {string} text of a file of WGSL
 * @returns {Map<string, string>} its kernels by name; without the sections that several of them share
 */
export function kernelsIn(text) {
  const parts = text.split(/^\/\/: /m).slice(1).map((part) => [part.slice(0, part.indexOf("\n")), part.slice(part.indexOf("\n") + 1)]);
  return new Map(/** @type {[string, string][]} */ (parts).filter(([, code]) => code.includes("@compute")));
}
