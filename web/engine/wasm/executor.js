/**
 * @file The WASM executor: instantiates kernels.wasm on a laid-out memory, hands it the buffer table and the program,
 * and carries batches in and results out. One call of an exported function is one step or one burst, synchronously on
 * the engine worker's thread; compute threads (thread.js) join in on the same memory.
 */

import {
  COUNTERS, E_BATCH, E_CANCELLED, SCORE_WORDS, SEQUENCE, SEQUENCE_WORDS, SHA256_STATE_BYTES,
} from "../format/abi.js";
import { find, timeKernels } from "../core/alternatives.js";
import { checkBatch, checkSequences, checkTables } from "../core/batch.js";
import { finishedOf, nextSlice, soon } from "../core/slices.js";
import { MAX_BURST } from "../format/batch_limits.js";
import { EngineError, invalidArtifact } from "../format/errors.js";
import { hex } from "../storage/sha256.js";
import { readPages, writePages } from "./kv_bytes.js";
import { createMemory, growTo, importedMemory, kvCapacity, layOut, limitMemory } from "./memory.js";
import { compile, instantiate } from "./module.js";
import { profile } from "./profile.js";
import { encodeIo, encodeProgram } from "./program.js";

/** Without shared memory nothing can interrupt a burst, so it ends by itself after this long. */
const SLICE_MS = 20;

/**
 * @typedef {{reset(): void, update(address: number, bytes: number): void, digest(): string}} Hasher
 */

export class Executor {
  /** Threads that decode, this one included. */
  threads = 1;
  /** Threads that read prompts: no fewer. */
  promptThreads = 1;
  /** @type {number} KV pages that are usable now */
  pages = 0;
  /** @type {EngineError | null} why nothing can be called any more */
  #dead = null;

  /**
   * Compile, place and instantiate. Weights are still empty, and `start` and `setThreads` are still to be called.
   * @param {object} options
   * @param {Uint8Array<ArrayBuffer>} options.kernels verified bytes of kernels.wasm
   * @param {import("../format/plan.js").Plan} options.plan
   * @param {number} options.weightBytes
   * @param {number} options.threads this one included
   * @param {number} options.kvPages wanted at most; fewer where memory is refused
   * @param {number} options.hashes shards hashed at once
   * @param {boolean} options.sliced no doorbell can be reached: bursts end after about 20 ms
   * @param {{initial: number, maximum: number}} options.memory bytes at the start, and at most
   * @returns {Promise<Executor>}
   */
  static async create({ kernels, plan, weightBytes, threads, kvPages, hashes, sliced, memory: wanted }) {
    const { initial, maximum } = limitMemory(importedMemory(kernels), wanted);
    const module = await compile(kernels);
    const program = encodeProgram(plan);
    const sizes = { threads, programWords: program.length, weightBytes, hashes };
    // The real heap base is known only from the instance; it never lies above the declared initial memory.
    const fixedBytes = layOut(plan, { ...sizes, heapBase: initial * 65536 }).kv;
    const memory = createMemory({ initial, maximum, fixedBytes, pageBytes: plan.pageBytes, kvPages });
    const exports = await instantiate(module, memory);
    const layout = layOut(plan, { ...sizes, heapBase: Number(exports.__heap_base.value) >>> 0 });
    growTo(memory, layout.kv);
    return new Executor(plan, module, memory, exports, layout, program, sliced);
  }

  /**
   * @param {import("../format/plan.js").Plan} plan
   * @param {WebAssembly.Module} module
   * @param {WebAssembly.Memory} memory
   * @param {import("../format/abi.js").KernelExports} exports
   * @param {import("./memory.js").Layout} layout
   * @param {Int32Array} program
   * @param {boolean} sliced
   */
  constructor(plan, module, memory, exports, layout, program, sliced) {
    this.plan = plan;
    this.module = module;
    this.memory = memory;
    this.layout = layout;
    this.maxPages = kvCapacity(memory, layout.kv, plan.pageBytes);
    this.fixedBytes = layout.kv;
    this.#exports = exports;
    this.#program = program;
    this.#sliced = sliced;
    // Views of everything below the KV pages: memory only grows, so they stay good.
    this.#words = new Int32Array(memory.buffer);
    this.#floats = new Float32Array(memory.buffer);
    this.bytes = new Uint8Array(memory.buffer);
    this.doorbell = exports.inpage_doorbell() >>> 0;
  }

  #exports;
  #program;
  #sliced;
  #words;
  #floats;

  /**
   * Hand the program over. From now on steps run, on one thread.
   */
  start() {
    const { plan, layout } = this;
    this.#words.set(layout.buffers.map((address) => address | 0), layout.table / 4);
    this.#words.set(this.#program, layout.program / 4);
    this.#words.set(encodeIo(plan), layout.io / 4);
    const { inpage_load } = this.#exports;
    this.#call("inpage_load", () =>
      inpage_load(layout.table, plan.buffers.length, layout.program, this.#program.length, layout.io),
    );
  }

  /**
   * Compute on so many threads from now on; the others sleep.
   * @param {number} threads that decode
   * @param {number} prompt that read prompts: no fewer, and at most what the executor was made for
   */
  setThreads(threads, prompt = threads) {
    this.#call("inpage_set_threads", () => this.#exports.inpage_set_threads(prompt));
    this.#call("inpage_set_decoders", () => this.#exports.inpage_set_decoders(threads));
    this.threads = threads;
    this.promptThreads = prompt;
  }

  /**
   * Make page indices 0..pages-1 usable.
   * @param {number} pages
   */
  reservePages(pages) {
    if (!Number.isInteger(pages) || pages < 0) throw new EngineError("invalid_request", "pages must be a count", "pages");
    if (pages > this.maxPages) {
      throw new EngineError("out_of_memory", `${pages} KV pages wanted, memory holds ${this.maxPages}`, "pages");
    }
    if (pages <= this.pages) return;
    growTo(this.memory, this.layout.kv + pages * this.plan.pageBytes);
    this.pages = pages;
  }

  /**
   * Do something with KV pages that belong to no sequence, and give them up again.
   * @template T
   * @param {number} count
   * @param {(first: number) => T} work gets the first one's index
   * @returns {T}
   */
  withPages(count, work) {
    const first = this.pages;
    this.reservePages(first + count);
    try {
      return work(first);
    } finally {
      this.pages = first;
    }
  }

  /** @param {Int32Array} pages */
  readPages(pages) {
    return readPages(this, pages);
  }

  /** @param {Int32Array} pages @param {Uint8Array} data */
  writePages(pages, data) {
    writePages(this, pages, data);
  }

  /**
   * One launch of the batch that was stepped last: see inpage_step_launch.
   * @param {number} rows
   * @param {number} sequences
   * @param {number} logitRows
   * @param {number} launch
   */
  stepLaunch(rows, sequences, logitRows, launch) {
    this.#call("inpage_step_launch", () => this.#exports.inpage_step_launch(rows, sequences, logitRows, launch));
  }

  /**
   * The first launches of a kernel, of the batch that was placed last: see inpage_step_kernel.
   * @param {number} rows
   * @param {number} sequences
   * @param {number} logitRows
   * @param {number} kernel
   * @param {number} most
   * @returns {number} how many there were
   */
  stepKernel(rows, sequences, logitRows, kernel, most) {
    return this.#call("inpage_step_kernel", () => this.#exports.inpage_step_kernel(rows, sequences, logitRows, kernel, most));
  }

  /**
   * Run these kernels from now on, in the place of those that do the same.
   * @param {string[]} names
   */
  chooseKernels(names) {
    for (const { id, others } of names.map((name) => find(this.plan, name))) {
      for (const other of others) this.#call("inpage_choose_kernel", () => this.#exports.inpage_choose_kernel(other, id));
    }
  }

  /** @param {import("../core/protocol.js").KernelTiming} input */
  timeKernels(input) {
    return timeKernels(this, input);
  }

  /** @param {import("../core/protocol.js").ProfileInput} input */
  profile(input) {
    return profile(this, input);
  }

  /**
   * One forward pass; what else is wanted (choice, score, logits) happens on its logits.
   * @param {import("../core/protocol.js").StepInput} input
   * @returns {import("../core/protocol.js").StepResult}
   */
  step(input) {
    const { plan, layout } = this;
    const { tokenIds, logitRows, targets, sample } = input;
    const sequences = checkBatch(input, plan, this.pages);
    this.place(input);
    const { inpage_step, inpage_sample, inpage_score } = this.#exports;
    this.#call("inpage_step", () => inpage_step(tokenIds.length, sequences, logitRows.length));

    /** @type {import("../core/protocol.js").StepResult} */
    const result = {};
    if (targets?.length) {
      this.#words.set(targets, layout.targets / 4);
      this.#call("inpage_score", () => inpage_score(layout.targets, targets.length, layout.scores));
      result.scores = this.#words.slice(layout.scores / 4, layout.scores / 4 + targets.length * SCORE_WORDS);
    }
    if (input.wantLogits) {
      const at = layout.buffers[plan.io.logits] / 4;
      result.logits = this.#floats.slice(at, at + logitRows.length * plan.width);
    }
    if (sample?.length) {
      const n = sample.length / SEQUENCE_WORDS;
      this.#putSequences(sample, input.bias, input.mask);
      this.#call("inpage_sample", () => inpage_sample(layout.sequences, n, layout.bias, layout.mask));
      result.sequences = this.#words.slice(layout.sequences / 4, layout.sequences / 4 + sample.length);
    }
    return result;
  }

  /**
   * Decode a burst. Ends early when all sequences finished and when the doorbell rang; where none can be reached, after
   * about 20 ms, or as soon as `interrupted` says so if it is listened to.
   * @param {import("../core/protocol.js").RunInput} input
   * @param {() => boolean} interrupted
   * @param {(slice: import("../core/protocol.js").Slice) => void} tell
   * @returns {Promise<import("../core/protocol.js").RunResult>}
   */
  async run(input, interrupted, tell) {
    const { layout } = this;
    const { n, blockTables, tellMs = 0 } = input;
    checkTables(input, this.plan, this.pages);
    const maxSteps = Math.min(input.maxSteps, MAX_BURST);
    this.#put("block_tables", blockTables);
    this.#putSequences(input.sequences, input.bias, input.mask);
    const { inpage_run } = this.#exports;
    /** @param {number} most @param {number} done */
    const burst = (most, done) =>
      this.#call("inpage_run", () =>
        inpage_run(layout.sequences, n, most, layout.bias, layout.mask, layout.out + done * n * 4),
      );
    const first = layout.sequences / 4;
    const out = (/** @type {number} */ from, /** @type {number} */ to) => this.#words.slice(layout.out / 4 + from * n, layout.out / 4 + to * n);
    const sliceMs = this.#sliced ? SLICE_MS : Infinity;
    let [steps, told, slice, since] = [0, 0, 1, performance.now()];
    for (let began = since; ; began = performance.now()) {
      const most = Math.min(tellMs || this.#sliced ? slice : maxSteps, maxSteps - steps);
      const done = burst(most, steps);
      steps += done;
      if (done < most || steps === maxSteps || this.#allFinished(n)) break;
      const now = performance.now();
      slice = nextSlice(slice, now - began, Math.min(tellMs || Infinity, sliceMs / 2));
      if (this.#sliced && !tellMs && now - since >= SLICE_MS) break;
      if (tellMs && (!this.#sliced || steps <= 3 || now - since >= tellMs)) {
        tell({ steps: steps - told, out: out(told, steps), finished: finishedOf(this.#words, first, n) });
        [told, since] = [steps, now];
      }
      if (this.#sliced && tellMs) await soon();
      if (interrupted()) break;
    }
    return { steps, out: out(0, steps), sequences: this.#words.slice(first, first + n * SEQUENCE_WORDS) };
  }

  /** All that the engine holds: weights, KV pages, arena and everything else in one. */
  memoryBytes() {
    return this.memory.buffer.byteLength;
  }

  /** What the runtime counted. @returns {Uint32Array} a word for each of COUNTERS */
  counters() {
    const at = this.#exports.inpage_counters() >>> 0;
    return new Uint32Array(this.memory.buffer, at, COUNTERS.length).slice();
  }

  /**
   * A SHA-256 over bytes where they lie in memory.
   * @param {number} slot 0..hashes-1, one at a time each
   * @returns {Hasher}
   */
  hasher(slot) {
    const { inpage_sha256_init, inpage_sha256_update, inpage_sha256_final } = this.#exports;
    const state = this.layout.hash + slot * SHA256_STATE_BYTES;
    const out = this.layout.digest;
    return {
      reset: () => inpage_sha256_init(state),
      update: (address, bytes) => inpage_sha256_update(state, address, bytes),
      digest: () => {
        inpage_sha256_final(state, out);
        return hex(this.bytes.slice(out, out + 32));
      },
    };
  }

  /** @param {number} n */
  #allFinished(n) {
    for (let i = 0; i < n; i++) {
      const at = this.layout.sequences / 4 + i * SEQUENCE_WORDS;
      if (this.#words[at + SEQUENCE.finished] === 0 && this.#words[at + SEQUENCE.remaining] > 0) return false;
    }
    return true;
  }

  /**
   * Write a checked batch to the input buffers.
   * @param {import("../core/protocol.js").StepInput} input
   */
  place({ tokenIds, positions, rowSequence, blockTables, logitRows }) {
    this.#put("token_ids", tokenIds);
    this.#put("positions", positions);
    this.#put("row_sequence", rowSequence);
    this.#put("block_tables", blockTables);
    this.#put("logit_rows", logitRows);
  }

  /**
   * @param {string} name of an io buffer
   * @param {Int32Array} words
   */
  #put(name, words) {
    this.#words.set(words, this.layout.buffers[this.plan.io[name]] / 4);
  }

  /**
   * @param {Int32Array} sequences
   * @param {Int32Array | undefined} bias
   * @param {Uint32Array | undefined} mask
   */
  #putSequences(sequences, bias, mask) {
    checkSequences(sequences, this.plan, bias?.length ?? 0, mask?.length ?? 0);
    this.#words.set(sequences, this.layout.sequences / 4);
    if (bias) this.#words.set(bias, this.layout.bias / 4);
    if (mask) this.#words.set(mask, this.layout.mask / 4);
  }

  /**
   * Call into the module; its error codes and traps become typed errors. After a trap nothing in memory can be relied
   * on (other threads may be stuck in a barrier), so the engine is lost.
   * @param {string} name
   * @param {() => number} call
   * @returns {number}
   */
  #call(name, call) {
    if (this.#dead) throw this.#dead;
    let code;
    try {
      code = call();
    } catch (error) {
      this.#dead = new EngineError("device_lost", `${name} trapped: ${String(error)}`, null, error);
      throw this.#dead;
    }
    if (code >= 0) return code;
    if (code === E_CANCELLED) throw new EngineError("cancelled", `${name} was cancelled`);
    if (code === E_BATCH) throw new EngineError("invalid_request", `${name} refused the batch`);
    throw invalidArtifact(`${name} refused the plan (${code})`, "plan");
  }
}
