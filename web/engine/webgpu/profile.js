/**
 * @file Where the time of a step goes on the GPU. Where it has a clock: a step as it always runs, in one compute pass, is the
 * true time; then the same step with a pass for each launch, many times over, which tells the kernels apart and adds what
 * a pass costs. Without a clock: the launches of one kernel by themselves, until the GPU says that they are done.
 *
 * What answers are made with has no query in it; only a device opened for profiling has the feature.
 */

import { checkProfile, median, undisturbed } from "../core/profile.js";
import { blankSequences, trial } from "../core/trial.js";
import { SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";
import { MAX_BURST } from "../format/batch_limits.js";
import { EngineError } from "../format/errors.js";
import { MAX_PASSES, PassClock, TIMESTAMPS } from "./clock.js";

/** Steps before the clock runs. */
const WARM_UP = 2;
/** Passes with nothing in them, or submits where there is no clock, to tell what one costs. */
const EMPTY = 64;
/** Launches in a submit, where there is no clock. */
const TOGETHER = 16;

/**
 * @typedef {object} Engine
 * @property {import("./device.js").Gpu} gpu
 * @property {import("../format/plan.js").Plan} plan
 * @property {import("./replay.js").Replay} replay
 * @property {import("./executor.js").GpuExecutor} executor
 */

/**
 * @param {Engine} engine
 * @param {import("../core/protocol.js").ProfileInput} input
 * @returns {Promise<import("../core/protocol.js").Profile>}
 */
export async function profile(engine, { rows, depth = 0, repeats = 20 }) {
  const { gpu, plan, replay, executor } = engine;
  checkProfile({ rows, depth, repeats }, plan.maxima);
  const fn = replay.select(rows);
  if (fn.launches.length > MAX_PASSES) {
    throw new EngineError("unsupported", `this engine does not tell apart more than ${MAX_PASSES} launches, and ${fn.name} has ${fn.launches.length}`);
  }
  const steps = Math.min(repeats, MAX_BURST, plan.maxima.context - depth - rows + 1);
  const first = executor.pages;
  const { input, sequences, pages } = trial(plan, rows, depth, first);
  const decodes = plan.paged && sequences === rows;
  const burst = decodes ? trial(plan, rows, depth + steps - 1, first) : null;
  const clock = gpu.device.features.has(TIMESTAMPS) ? new PassClock(gpu, MAX_PASSES) : null;
  try {
    await executor.reservePages(first + (burst?.pages ?? pages));
    for (let i = 0; i < WARM_UP; i++) await executor.step(input);
    await gpu.done();
    const times = await (clock ? byClock(engine, clock, fn, input, repeats) : byWall(engine, fn, input, repeats));
    const { rounds, means } = undisturbed(times.launches);
    return {
      rows,
      sequences,
      depth,
      threads: 1,
      clock: clock ? "gpu" : "wall",
      busy: clock && (await busyShare(engine, clock, burst ? decoding(burst.input, depth, steps) : null, input, steps)),
      step_us: median(times.steps),
      call_us: times.call,
      rounds,
      kernels: plan.kernels.map(({ name }) => name),
      launch_kernel: Int32Array.from(fn.launches, ({ kernel }) => kernel),
      launch_us: means,
      launch_workgroups: Int32Array.from(fn.uniforms.grids, (grid) => (grid ?? [0]).reduce((product, n) => product * n)),
    };
  } finally {
    executor.pages = first;
    gpu.clock = null;
    clock?.end();
  }
}

/** @typedef {{steps: Float64Array, launches: Float64Array[], call: number}} Times microseconds; launches: by round */

/**
 * @param {Engine} engine
 * @param {PassClock} clock
 * @param {import("./replay.js").ReplayFunction} fn
 * @param {import("../core/protocol.js").StepInput} input
 * @param {number} repeats
 * @returns {Promise<Times>}
 */
async function byClock({ gpu, replay, executor }, clock, fn, input, repeats) {
  gpu.clock = clock;
  const apart = (/** @type {number} */ passes, /** @type {(pass: GPUComputePassEncoder, i: number) => void} */ record) => {
    const encoder = gpu.device.createCommandEncoder({ label: "profile" });
    for (let i = 0; i < passes; i++) {
      const pass = gpu.pass(encoder);
      record(pass, i);
      pass.end();
    }
    gpu.submit(encoder);
  };
  const steps = await rounds(clock, 1, repeats, () => executor.step(input));
  const launches = await rounds(clock, fn.launches.length, repeats, () => apart(fn.launches.length, (pass, i) => replay.recordLaunch(pass, fn, i)));
  const [empty] = await rounds(clock, EMPTY, 1, () => apart(EMPTY, () => undefined));
  return { steps: Float64Array.from(steps, ([us]) => us), launches, call: empty.reduce((sum, us) => sum + us, 0) / EMPTY };
}

/**
 * @param {PassClock} clock
 * @param {number} passes of a round
 * @param {number} repeats
 * @param {() => unknown} submit a round
 * @returns {Promise<Float64Array[]>} microseconds of each pass, by round
 */
async function rounds(clock, passes, repeats, submit) {
  /** @type {Float64Array[]} */
  const found = [];
  const most = Math.floor(MAX_PASSES / passes);
  while (found.length < repeats) {
    const count = Math.min(most, repeats - found.length);
    for (let i = 0; i < count; i++) await submit();
    const times = await clock.read();
    for (let i = 0; i < count; i++) found.push(times.slice(i * passes, (i + 1) * passes));
  }
  return found;
}

/**
 * @param {Engine} engine
 * @param {import("./replay.js").ReplayFunction} fn
 * @param {import("../core/protocol.js").StepInput} input
 * @param {number} repeats
 * @returns {Promise<Times>}
 */
async function byWall({ gpu, replay, executor }, fn, input, repeats) {
  const wall = async (/** @type {() => unknown} */ submit) => {
    const began = performance.now();
    await submit();
    await gpu.done();
    return (performance.now() - began) * 1e3;
  };
  const together = (/** @type {number[]} */ launches) => {
    const encoder = gpu.device.createCommandEncoder({ label: "profile" });
    const pass = gpu.pass(encoder);
    for (const launch of launches) replay.recordLaunch(pass, fn, launch);
    pass.end();
    gpu.submit(encoder);
  };
  const nothing = [];
  for (let i = 0; i < EMPTY; i++) nothing.push(await wall(() => together([])));
  const idle = median(nothing);
  const steps = new Float64Array(repeats);
  for (let i = 0; i < repeats; i++) steps[i] = Math.max(0, (await wall(() => executor.step(input))) - idle);

  /** @type {Map<number, number[]>} by kernel */
  const own = new Map();
  fn.launches.forEach(({ kernel }, i) => own.set(kernel, [...(own.get(kernel) ?? []), i]));
  const launches = Array.from({ length: repeats }, () => new Float64Array(fn.launches.length));
  for (const ids of own.values()) {
    const batch = Array.from({ length: Math.ceil(TOGETHER / ids.length) }, () => ids).flat();
    for (const round of launches) {
      const each = Math.max(0, (await wall(() => together(batch))) - idle) / batch.length;
      for (const id of ids) round[id] = each;
    }
  }
  return { steps, launches, call: 0 };
}

/**
 * The share of the time in which the GPU computes while steps follow one another: a greedy burst where sequences decode,
 * else steps one behind the other.
 * @param {Engine} engine
 * @param {PassClock} clock
 * @param {import("../core/protocol.js").RunInput | null} burst
 * @param {import("../core/protocol.js").StepInput} input
 * @param {number} steps
 */
async function busyShare({ gpu, executor }, clock, burst, input, steps) {
  const goOn = async () => {
    if (burst) await executor.run(burst, () => false, () => undefined);
    else for (let i = 0; i < steps; i++) await executor.step(input);
    await gpu.done();
  };
  gpu.clock = null;
  await goOn();
  gpu.clock = clock;
  const began = performance.now();
  await goOn();
  const wall = performance.now() - began;
  const computed = (await clock.read()).reduce((sum, us) => sum + us, 0) / 1e3;
  return Math.min(1, computed / wall);
}

/**
 * @param {import("../core/protocol.js").StepInput} input of sequences that decode, with pages for all steps
 * @param {number} depth
 * @param {number} steps
 * @returns {import("../core/protocol.js").RunInput}
 */
function decoding({ tokenIds, blockTables }, depth, steps) {
  const sequences = blankSequences(tokenIds.length);
  tokenIds.forEach((token, i) => {
    const at = i * SEQUENCE_WORDS;
    sequences[at + SEQUENCE.token] = token;
    sequences[at + SEQUENCE.position] = depth;
    sequences[at + SEQUENCE.remaining] = steps;
    sequences[at + SEQUENCE.reserved] = depth + steps;
  });
  return { sequences, n: tokenIds.length, blockTables, maxSteps: steps };
}
