/**
 * @file The binary interface of kernels.wasm (abi.h in JavaScript): constants, structs, functions.
 * The executor compares ABI_VERSION with what the loaded module says before it relies on any of them.
 * Made by format/generate.py from format/abi.toml; change that.
 */

export const ABI_VERSION = 4;
/** Stop token ids a sequence. */
export const MAX_STOP = 8;
/** Most recent tokens that penalties look at. */
export const HISTORY = 256;
/** Biased token ids a sequence. */
export const MAX_BIAS = 1024;
/** The caller's included. */
export const MAX_THREADS = 16;
/** Of one program. */
export const MAX_FUNCTIONS = 16;
/** Of all functions together. */
export const MAX_LAUNCHES = 8192;
/** Buffers of all launches together. */
export const MAX_BINDINGS = 32768;
/** Scalars of all launches together. */
export const MAX_SCALARS = 16384;
/** Scalars of one launch. */
export const LAUNCH_SCALARS = 16;
/** Owned by the caller. */
export const SHA256_STATE_BYTES = 112;
/** Added to the kernel of a serial launch. */
export const SERIAL = 65536;
/** Kind of a launch's scalar: its value. */
export const SCALAR_CONSTANT = 0;
/** Kind of a launch's scalar: the index of a variable. */
export const SCALAR_VARIABLE = 1;
export const OK = 0;
export const E_PROGRAM = -1;
export const E_BATCH = -2;
export const E_CANCELLED = -3;

/** What a step may use of a plan's maxima, by index. */
export const VARIABLES = Object.freeze(["rows", "sequences", "logit_rows"]);

/** Words of inpage_counters: counts since load, and at last how often a thread slept and how many sleep now. */
export const COUNTERS = Object.freeze(["steps", "launches", "rows", "sampled", "sleeps", "asleep"]);

/** inpage_io: offsets in 32-bit words. Floats are marked (f). */
export const IO = Object.freeze({
  token_ids: 0,
  positions: 1,
  row_sequence: 2,
  block_tables: 3,
  logit_rows: 4,
  logits: 5,
  vocab: 6,
  max_rows: 7,
  max_sequences: 8,
  max_logit_rows: 9,
  blocks_per_sequence: 10,
});
export const IO_WORDS = 11;

/** inpage_sequence: offsets in 32-bit words. Floats are marked (f). */
export const SEQUENCE = Object.freeze({
  temperature: 0, // (f)
  top_k: 1,
  top_p: 2, // (f)
  min_p: 3, // (f)
  repetition_penalty: 4, // (f)
  presence_penalty: 5, // (f)
  frequency_penalty: 6, // (f)
  seed: 7, // 2 words
  token: 9,
  position: 10,
  remaining: 11,
  finished: 12,
  reserved: 13,
  n_stop: 14,
  stop: 15, // MAX_STOP words
  n_bias: 23,
  bias: 24,
  mask: 25,
  n_history: 26,
  history: 27, // HISTORY words
  chosen: 283,
  logprob: 284, // (f)
  margin: 285, // (f)
});
export const SEQUENCE_WORDS = 286;

/** inpage_score_row: offsets in 32-bit words. Floats are marked (f). */
export const SCORE = Object.freeze({
  argmax: 0,
  nll: 1, // (f)
  margin: 2, // (f)
});
export const SCORE_WORDS = 3;

/**
 * What kernels.wasm exports.
 * @typedef {object} KernelExports
 * @property {WebAssembly.Global} __heap_base
 * @property {WebAssembly.Global} __stack_pointer
 * @property {() => number} inpage_abi_version
 * @property {(buffers: number, nBuffers: number, program: number, nWords: number, io: number) => number} inpage_load
 * @property {(threads: number) => number} inpage_set_threads
 * @property {(threads: number) => number} inpage_set_decoders
 * @property {(id: number) => void} inpage_thread
 * @property {(spins: number) => number} inpage_spin
 * @property {(atBarrier: number, idle: number) => number} inpage_set_spins
 * @property {(rows: number, sequences: number, logitRows: number) => number} inpage_step
 * @property {(rows: number, sequences: number, logitRows: number, launch: number) => number} inpage_step_launch
 * @property {(rows: number, sequences: number, logitRows: number, kernel: number, most: number) => number} inpage_step_kernel
 * @property {(now: number, then: number) => number} inpage_choose_kernel
 * @property {(id: number, rows: number, sequences: number, logitRows: number, stop: number) => number} inpage_rehearse
 * @property {(sequences: number, n: number, bias: number, mask: number) => number} inpage_sample
 * @property {(sequences: number, n: number, maxSteps: number, bias: number, mask: number, out: number) => number} inpage_run
 * @property {(targets: number, n: number, out: number) => number} inpage_score
 * @property {() => number} inpage_doorbell
 * @property {() => number} inpage_counters
 * @property {(state: number) => void} inpage_sha256_init
 * @property {(state: number, data: number, n: number) => void} inpage_sha256_update
 * @property {(state: number, out: number) => void} inpage_sha256_final
 */

/** Functions that must be there, so that a wrong module is refused by name and not by a crash. */
export const EXPORTED_FUNCTIONS = Object.freeze([
  "inpage_abi_version",
  "inpage_load",
  "inpage_set_threads",
  "inpage_set_decoders",
  "inpage_thread",
  "inpage_spin",
  "inpage_set_spins",
  "inpage_step",
  "inpage_step_launch",
  "inpage_step_kernel",
  "inpage_choose_kernel",
  "inpage_rehearse",
  "inpage_sample",
  "inpage_run",
  "inpage_score",
  "inpage_doorbell",
  "inpage_counters",
  "inpage_sha256_init",
  "inpage_sha256_update",
  "inpage_sha256_final",
]);
