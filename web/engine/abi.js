/**
 * @file compile/inpage_compile/runtime/abi.h in JavaScript: word offsets of its structs and its constants. The executor
 * compares ABI_VERSION with what the loaded module says before it relies on any of them.
 */

export const ABI_VERSION = 3;
export const MAX_STOP = 8;
export const HISTORY = 256;

/** Variables of a plan, by index. */
export const VARIABLES = Object.freeze(["rows", "sequences", "logit_rows"]);
/** Kinds of a launch's scalar in the encoded program. */
export const SCALAR_CONSTANT = 0;
export const SCALAR_VARIABLE = 1;

/** inpage_sequence: offsets in 32-bit words. Floats are marked (f). */
export const SEQUENCE = Object.freeze({
  temperature: 0, // (f)
  top_k: 1,
  top_p: 2, // (f)
  min_p: 3, // (f)
  repetition_penalty: 4, // (f)
  presence_penalty: 5, // (f)
  frequency_penalty: 6, // (f)
  seed: 7, // two words
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

/** inpage_score_row: argmax, nll (f), margin (f). */
export const SCORE_WORDS = 3;
/** inpage_io, in this order. */
export const IO_BUFFERS = Object.freeze(["token_ids", "positions", "row_sequence", "block_tables", "logit_rows", "logits"]);
export const IO_WORDS = IO_BUFFERS.length + 5;
export const SHA256_STATE_BYTES = 112;

/** Words of inpage_counters, by name. */
export const COUNTERS = Object.freeze(["steps", "launches", "rows", "sampled", "sleeps", "asleep"]);

/** inpage_error. */
export const E_PROGRAM = -1;
export const E_BATCH = -2;
export const E_CANCELLED = -3;

/**
 * The functions and globals that kernels.wasm exports.
 * @typedef {object} KernelExports
 * @property {WebAssembly.Global} __heap_base
 * @property {WebAssembly.Global} __stack_pointer
 * @property {() => number} inpage_abi_version
 * @property {(buffers: number, n: number, program: number, words: number, io: number) => number} inpage_load
 * @property {(threads: number) => number} inpage_set_threads
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
