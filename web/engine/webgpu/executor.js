/**
 * @file The WebGPU executor: carries batches in and results out. A step is one command encoder with one compute pass and
 * one submit; a burst is a submit a step, the sampled ids staying on the GPU, and one read-back for as many steps as fit
 * into a slice of time. Two slices are on their way at once, so that the GPU never waits for JavaScript.
 *
 * Nothing is created while decoding. What one step does to the next (KV pages, the fed-back ids) is ordered by the queue.
 */

import { checkBatch, checkTables } from "../core/batch.js";
import { Burst } from "../core/burst.js";
import { SEQUENCE_WORDS } from "../format/abi.js";
import { MAX_BURST } from "../format/batch_limits.js";
import { EngineError } from "../format/errors.js";
import { COUNTERS } from "./counters.js";
import { checkChoice, Inputs } from "./inputs.js";
import { readPages, writePages } from "./kv_bytes.js";
import { profile } from "./profile.js";
import { choicesOf, cleaned, scoresOf } from "./results.js";
import { RESULT_WORDS } from "./sampler.js";
import { timeKernels } from "./timing.js";
import { ReadBack } from "./transfer.js";

/** About how long a slice of a burst takes: what an interrupt has to wait for, twice. */
const SLICE_MS = 20;
/** Most steps of a slice, so that a device that is much faster than its clock tells does not get everything at once. */
const MAX_SLICE = 64;
const SLICES = 2;
/** KV grows by this factor at least, so that it is copied rarely. */
const GROWTH = 1.5;

/**
 * @typedef {import("../core/protocol.js").StepInput} StepInput
 * @typedef {import("./uniforms.js").Variables} Variables
 */

export class GpuExecutor {
  /** KV pages that are usable now. */
  pages = 0;
  /** Whether KV pages may hold what somebody will read. */
  #used = false;
  /** Sat when other kernels are chosen. @type {(() => Promise<void>) | null} */
  exam = null;
  /** Milliseconds of a step of a burst, as last measured. */
  #stepMs = Infinity;
  /** @type {ReadBack | null} made when logits are first wanted */
  #logits = null;
  #gpu;
  #plan;
  #buffers;
  #replay;
  #sampler;
  #inputs;
  #results;
  #tokens;
  #debug;
  #sliceMs;

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {import("./buffers.js").Buffers} buffers
   * @param {import("./replay.js").Replay} replay
   * @param {import("./sampler.js").Sampler} sampler
   * @param {{kvPages: number, debug?: boolean, sliceMs?: number}} options kvPages: wanted at most
   */
  constructor(gpu, plan, buffers, replay, sampler, { kvPages, debug = false, sliceMs = SLICE_MS }) {
    this.#gpu = gpu;
    this.#plan = plan;
    this.#buffers = buffers;
    this.#replay = replay;
    this.#sampler = sampler;
    this.#debug = debug;
    this.#sliceMs = sliceMs;
    this.maxPages = Math.min(kvPages, buffers.maxPages);
    this.#inputs = new Inputs(gpu, plan, buffers, sampler, replay.uniformBytes);
    const most = Math.max(plan.maxima.logit_rows, plan.maxima.sequences);
    this.#results = new ReadBack(gpu, "results", 4 * most * (RESULT_WORDS + 2));
    this.#tokens = new ReadBack(gpu, "tokens", 4 * most * MAX_SLICE, SLICES);
  }

  /**
   * Run every function and every kernel of the sampler once, on a page of KV, so that whatever the driver puts off until
   * first use is done, and what it refuses is known. An adapter that computes on the CPU only says what it refuses: its
   * first use costs nothing beside the rest.
   */
  async warm() {
    if (this.#plan.paged) await this.#buffers.growKv(1);
    this.#replay.bind();
    let rows = 1;
    for (const fn of this.#replay.functions) {
      const variables = /** @type {const} */ ([rows, 1, 1]);
      rows = fn.maxRows + 1;
      await this.#prepare(fn, variables);
      const encoder = this.#encoder("upload");
      this.#inputs.uploads.record(encoder);
      this.#send(encoder);
      try {
        await this.#gpu.attempt(fn.name, () => {
          const whole = this.#encoder(fn.name);
          const pass = this.#gpu.pass(whole);
          this.#replay.record(pass, fn);
          if (this.#plan.paged) {
            this.#sampler.recordResults(pass, 1);
            this.#sampler.recordChoice(pass, 1, { adjust: true, draw: true, topK: true, topP: true });
          }
          pass.end();
          if (this.#gpu.facts.software) whole.finish();
          else this.#gpu.submit(whole);
        });
      } catch (error) {
        await this.#replay.runSeparately(fn); // to say which launch it is
        throw error;
      }
    }
    await this.#gpu.done();
    this.resetCounters();
  }

  /**
   * @param {string[]} names see EngineClient
   * @throws {EngineError} invalid_request, also for those that would have to sit the exam, which writes to KV pages, after the
   *   first step; unsupported where with these the GPU fails it: those before run on
   */
  async chooseKernels(names) {
    const before = this.#replay.running; // which passed the exam, now or on an earlier visit
    await this.#letRun(names);
    if (!this.exam || this.#replay.running.every((name, i) => name === before[i])) return;
    try {
      if (this.#used) throw new EngineError("invalid_request", "kernels that sit an exam are chosen before the first step", "kernels");
      await this.exam();
    } catch (error) {
      await this.#letRun(before);
      throw error;
    }
  }

  /** @param {string[]} names of kernels that run from now on */
  async #letRun(names) {
    await this.#replay.choose(names);
    this.#replay.bind();
  }

  /**
   * Before the first step only: the kernels write to KV pages.
   * @param {import("../core/protocol.js").KernelTiming} input
   */
  async timeKernels(input) {
    if (this.#used) return new Float64Array(input.kernels.length).fill(NaN);
    const submit = (/** @type {(encoder: GPUCommandEncoder) => void} */ record) => {
      const encoder = this.#encoder("timing");
      record(encoder);
      this.#send(encoder);
    };
    const times = await timeKernels({
      plan: this.#plan,
      replay: this.#replay,
      upload: async (fn, variables) => {
        await this.#prepare(fn, variables);
        submit((encoder) => this.#inputs.uploads.record(encoder));
      },
      run: async (record) => {
        submit((encoder) => {
          const pass = this.#gpu.pass(encoder);
          record(pass);
          pass.end();
        });
        await this.#gpu.done();
      },
    }, input);
    this.resetCounters();
    return times;
  }

  /** What the exam took and left: memory, counts, and pages that nobody reads. */
  forgetExam() {
    this.freeLogits();
    this.resetCounters();
    this.#used = false;
  }

  /** All but the bytes that are held. */
  resetCounters() {
    this.#gpu.counters.fill(0, 0, COUNTERS.buffer_bytes);
  }

  /**
   * Make KV page indices 0..pages-1 usable.
   * @param {number} pages
   */
  async reservePages(pages) {
    this.#gpu.check();
    if (!Number.isInteger(pages) || pages < 0) throw new EngineError("invalid_request", "pages must be a count", "pages");
    if (pages > this.maxPages) {
      throw new EngineError("out_of_memory", `${pages} KV pages wanted, the GPU holds ${this.maxPages}`, "pages");
    }
    if (pages > this.#buffers.kvPages) {
      const roomy = Math.min(this.maxPages, Math.ceil(this.#buffers.kvPages * GROWTH));
      try {
        await this.#buffers.growKv(Math.max(pages, roomy));
      } catch (error) {
        if (roomy <= pages || !(error instanceof EngineError) || error.code !== "out_of_memory") throw error;
        await this.#buffers.growKv(pages);
      }
      this.#replay.bind();
    }
    this.pages = Math.max(this.pages, pages);
  }

  /** @param {Int32Array} pages */
  readPages(pages) {
    return readPages(this.#gpu, this.#buffers.layers, pages, this.pages);
  }

  /** @param {Int32Array} pages @param {Uint8Array<ArrayBuffer>} data */
  writePages(pages, data) {
    writePages(this.#gpu, this.#buffers.layers, pages, data, this.pages);
  }

  /**
   * One forward pass; what else is wanted (choice, score, logits) happens on its logits. Waits for the GPU only where
   * something is to be read back.
   * @param {StepInput} input
   * @returns {Promise<import("../core/protocol.js").StepResult>}
   */
  step(input) {
    return this.#gpu.wait(this.#step(input));
  }

  /** @param {StepInput} input @returns {Promise<import("../core/protocol.js").StepResult>} */
  async #step(input) {
    const { logitRows, targets, wantLogits } = input;
    const sequences = checkBatch(input, this.#plan, this.pages);
    const sample = input.sample?.length ? input.sample : null;
    const needs = sample && checkChoice(sample, input, this.#plan);
    const variables = /** @type {const} */ ([input.tokenIds.length, sequences, logitRows.length]);
    const fn = this.#replay.select(variables[0]);
    await this.#prepare(fn, variables);
    this.#inputs.put(input);
    const n = sample ? sample.length / SEQUENCE_WORDS : 0;
    if (sample) this.#inputs.putChoice(sample, input, Int32Array.from({ length: n }, (_, i) => i), false);

    // The sampler changes logits in place, so those that are wanted as they were are copied before it.
    const copiesLogits = wantLogits === true || needs?.adjust === true;
    const reported = Math.max(n, targets?.length ?? 0);
    const encoder = await this.#forward(fn, variables, (pass) => {
      if (reported) this.#sampler.recordResults(pass, reported);
      if (needs && !copiesLogits) this.#sampler.recordChoice(pass, n, needs);
    });
    const logits = copiesLogits ? this.#copyLogits(encoder, logitRows.length) : null;
    if (needs && copiesLogits) {
      const pass = this.#gpu.pass(encoder);
      this.#sampler.recordChoice(pass, n, needs);
      pass.end();
    }
    const report = reported ? this.#copyReport(encoder, reported, n) : null;
    this.#send(encoder);

    /** @type {import("../core/protocol.js").StepResult} */
    const result = {};
    const [words, values] = await Promise.all([
      report ? this.#results.read(report) : new Int32Array(0),
      logits ? /** @type {ReadBack} */ (this.#logits).read(logits) : new Int32Array(0),
    ]);
    if (targets?.length) result.scores = scoresOf(words, targets);
    if (wantLogits) result.logits = new Float32Array(values.buffer);
    if (sample) {
      const tokens = words.subarray(reported * RESULT_WORDS);
      const { vocab } = this.#plan;
      const bits = (/** @type {number} */ row, /** @type {number} */ token) =>
        needs?.adjust ? values[row * vocab + token] : tokens[n + row];
      result.sequences = choicesOf(sample, words, tokens, (row, token) => cleaned(bits(row, token)));
    }
    return result;
  }

  /**
   * Decode a burst. Ends early when all sequences finished, or when it was interrupted: then after the slices that are on
   * their way.
   * @param {import("../core/protocol.js").RunInput} input
   * @param {() => boolean} interrupted
   * @param {(slice: import("../core/protocol.js").Slice) => void} tell
   * @returns {Promise<import("../core/protocol.js").RunResult>}
   */
  run(input, interrupted, tell) {
    return this.#gpu.wait(this.#run(input, interrupted, tell));
  }

  /**
   * @param {import("../core/protocol.js").RunInput} input
   * @param {() => boolean} interrupted
   * @param {(slice: import("../core/protocol.js").Slice) => void} tell
   * @returns {Promise<import("../core/protocol.js").RunResult>}
   */
  async #run(input, interrupted, tell) {
    const { n, blockTables } = input;
    checkTables(input, this.#plan, this.pages);
    const needs = checkChoice(input.sequences, input, this.#plan);
    const burst = new Burst(input.sequences, n);
    const rows = burst.rows.length;
    const maxSteps = Math.min(input.maxSteps, MAX_BURST, burst.longest);
    if (maxSteps === 0) return burst.result();
    const variables = /** @type {const} */ ([rows, n, rows]);
    const fn = this.#replay.select(rows);
    await this.#prepare(fn, variables);
    const rowSequence = Int32Array.from(burst.rows);
    this.#inputs.put({ ...burst.first(), rowSequence, blockTables, logitRows: rowSequence.map((_, row) => row) });
    this.#inputs.putChoice(burst.sequences, input, rowSequence, true);

    /** @type {{steps: number, recorded: ReturnType<ReadBack["record"]>}[]} */
    const underWay = [];
    let sent = 0;
    let since = performance.now();
    for (;;) {
      while (sent < maxSteps && underWay.length < SLICES && !burst.finished && (sent === 0 || !interrupted())) {
        const steps = Math.min(maxSteps - sent, this.#sliceSteps());
        underWay.push({ steps, recorded: await this.#sendSlice(fn, variables, needs, sent, steps) });
        sent += steps;
      }
      const slice = underWay.shift();
      if (!slice) return burst.result();
      burst.take(await this.#tokens.read(slice.recorded));
      if (input.tellMs && underWay.length && !burst.finished) tell(burst.slice());
      const now = performance.now();
      this.#stepMs = (now - since) / slice.steps;
      since = now;
    }
  }

  /**
   * @param {import("../core/protocol.js").ProfileInput} input
   * @returns {Promise<import("../core/protocol.js").Profile>}
   */
  profile(input) {
    if (this.#debug) throw new EngineError("invalid_request", "debug mode has a pass for each launch, and no profile", "debug");
    return this.#gpu.wait(profile({ gpu: this.#gpu, plan: this.#plan, replay: this.#replay, executor: this }, input));
  }

  /** Give back what logits are read through, until they are wanted again. */
  freeLogits() {
    this.#logits?.end();
    this.#logits = null;
  }

  /** All buffers on the device: weights, KV pages, arenas and the small ones. */
  memoryBytes() {
    return this.#gpu.counters[COUNTERS.buffer_bytes];
  }

  /** @returns {Float64Array} by COUNTERS */
  counters() {
    return this.#gpu.counters.slice();
  }

  /** Destroy the device under everything that is under way. */
  fail() {
    this.#gpu.destroy();
  }

  /**
   * Begin the uploads of a step or a burst, with the uniform blocks where they change.
   * @param {import("./replay.js").ReplayFunction} fn
   * @param {Variables} variables
   */
  async #prepare(fn, variables) {
    await this.#inputs.uploads.begin();
    this.#replay.prepare(fn, variables, this.#inputs.uploads);
  }

  #sliceSteps() {
    return Math.max(1, Math.min(MAX_SLICE, Math.floor(this.#sliceMs / this.#stepMs) || 1));
  }

  /**
   * @param {import("./replay.js").ReplayFunction} fn
   * @param {Variables} variables
   * @param {import("./sampler.js").Needs} needs
   * @param {number} before steps of this burst sent before
   * @param {number} steps
   */
  async #sendSlice(fn, variables, needs, before, steps) {
    const rows = variables[0];
    const choose = (/** @type {GPUComputePassEncoder} */ pass) => this.#sampler.recordChoice(pass, rows, needs);
    for (let i = 1; i < steps; i++) this.#send(await this.#forward(fn, variables, choose));
    const last = await this.#forward(fn, variables, choose);
    const range = { source: this.#sampler.buffers.tokens, offset: before * rows * 4, bytes: steps * rows * 4 };
    const recorded = this.#tokens.record(last, [range]);
    this.#send(last);
    return recorded;
  }

  /**
   * An encoder with what was put for upload, and the pass of one step.
   * @param {import("./replay.js").ReplayFunction} fn prepared
   * @param {Variables} variables that it was prepared for
   * @param {(pass: GPUComputePassEncoder) => void} more what else belongs into the pass
   */
  async #forward(fn, variables, more) {
    const { counters } = this.#gpu;
    this.#used = true;
    counters[COUNTERS.steps]++;
    counters[COUNTERS.rows] += variables[0];
    let encoder = this.#encoder(fn.name);
    this.#inputs.uploads.record(encoder);
    if (this.#debug) {
      this.#send(encoder);
      await this.#replay.runSeparately(fn);
      encoder = this.#encoder(fn.name);
    }
    const pass = this.#gpu.pass(encoder);
    if (!this.#debug) this.#replay.record(pass, fn);
    more(pass);
    pass.end();
    return encoder;
  }

  /** @param {string} label */
  #encoder(label) {
    this.#gpu.check();
    return this.#gpu.device.createCommandEncoder({ label });
  }

  /** @param {GPUCommandEncoder} encoder */
  #send(encoder) {
    this.#gpu.submit(encoder);
    this.#inputs.uploads.submitted();
  }

  /**
   * @param {GPUCommandEncoder} encoder
   * @param {number} rows
   */
  #copyLogits(encoder, rows) {
    const { width, maxima } = this.#plan;
    this.#logits ??= new ReadBack(this.#gpu, "logits", maxima.logit_rows * width * 4);
    return this.#logits.record(encoder, [{ source: this.#buffers.io("logits"), offset: 0, bytes: rows * width * 4 }]);
  }

  /**
   * @param {GPUCommandEncoder} encoder
   * @param {number} rows with results
   * @param {number} chosen rows with a choice
   */
  #copyReport(encoder, rows, chosen) {
    const { results, tokens } = this.#sampler.buffers;
    const ranges = [{ source: results, offset: 0, bytes: rows * RESULT_WORDS * 4 }];
    if (chosen) ranges.push({ source: tokens, offset: 0, bytes: 2 * chosen * 4 });
    return this.#results.record(encoder, ranges);
  }
}


