/**
 * @file The one WebAssembly.Memory of an engine: what lies where, and how large it may become.
 *
 * From __heap_base upwards, 256-aligned: thread stacks, tables and scratch, inputs, outputs, arena, weights, KV pages.
 * KV lies last, so that reserving pages is a plain memory.grow and no address ever changes.
 */

import { IO_WORDS, SCORE_WORDS, SEQUENCE_WORDS, SHA256_STATE_BYTES } from "../format/abi.js";
import { maskWords, MAX_BIAS_PAIRS, MAX_BURST } from "../format/batch_limits.js";
import { EngineError, invalidArtifact } from "../format/errors.js";
import { ALIGN } from "../format/limits.js";

const WASM_PAGE = 65536;
const MAX_WASM_PAGES = 65536;
export const STACK_BYTES = 65536;
/** Fewest KV pages worth running with, where a browser refuses more memory. */
const FEWEST_KV_PAGES = 16;

/**
 * @typedef {object} Layout
 * @property {number[]} stackTops of threads 1, 2, …
 * @property {number} table buffer addresses
 * @property {number} program
 * @property {number} io
 * @property {number} hash sha256 states
 * @property {number} digest 32 bytes
 * @property {number} rehearsal two words, see rehearsal.js
 * @property {number} sequences inpage_sequence structs
 * @property {number} bias
 * @property {number} mask
 * @property {number} out tokens of a burst
 * @property {number} targets
 * @property {number} scores
 * @property {number[]} buffers absolute address of every plan buffer
 * @property {number} weights
 * @property {number} kv
 */

/**
 * @param {import("../format/plan.js").Plan} plan
 * @param {object} sizes
 * @param {number} sizes.heapBase
 * @param {number} sizes.threads
 * @param {number} sizes.programWords
 * @param {number} sizes.weightBytes
 * @param {number} sizes.hashes how many shards may be hashed at once
 * @returns {Layout}
 */
export function layOut(plan, { heapBase, threads, programWords, weightBytes, hashes }) {
  let end = heapBase;
  /** @param {number} bytes */
  const take = (bytes) => {
    const at = align(end);
    end = at + bytes;
    return at;
  };
  const { maxima } = plan;
  const stackTops = Array.from({ length: threads - 1 }, () => take(STACK_BYTES) + STACK_BYTES);
  const table = take(plan.buffers.length * 4);
  const program = take(programWords * 4);
  const io = take(IO_WORDS * 4);
  const hash = take(hashes * SHA256_STATE_BYTES);
  const digest = take(32);
  const rehearsal = take(8);
  const sequences = take(maxima.sequences * SEQUENCE_WORDS * 4);
  const bias = take(MAX_BIAS_PAIRS * 8);
  const mask = take(maxima.sequences * maskWords(plan.vocab) * 4);
  const out = take(MAX_BURST * maxima.sequences * 4);
  const targets = take(maxima.logit_rows * 4);
  const scores = take(maxima.logit_rows * SCORE_WORDS * 4);
  const own = plan.buffers.map((buffer) =>
    buffer.kind === "input" || buffer.kind === "output" ? take(buffer.bytes) : 0,
  );
  const arena = take(plan.arenaBytes);
  const weights = take(weightBytes);
  const kv = align(end);
  const bases = { input: 0, output: 0, arena, weight: weights, kv };
  const buffers = plan.buffers.map((buffer, i) => own[i] + bases[buffer.kind] + buffer.offset);
  return {
    stackTops, table, program, io, hash, digest, rehearsal, sequences, bias, mask, out, targets, scores, buffers,
    weights, kv,
  };
}

/** @param {number} at */
function align(at) {
  return Math.ceil(at / ALIGN) * ALIGN;
}

/**
 * A shared memory that can grow to hold `fixedBytes` and, if the browser lets it, `kvPages` pages; where it refuses,
 * half as many, and so on down to a useful least.
 * @param {object} want
 * @param {number} want.initial WebAssembly pages at the start, as the module declares
 * @param {number} want.maximum most WebAssembly pages the module accepts
 * @param {number} want.fixedBytes everything below the KV pages
 * @param {number} want.pageBytes
 * @param {number} want.kvPages
 * @returns {WebAssembly.Memory} its maximum is found again with `kvCapacity`
 */
export function createMemory({ initial, maximum: limit, fixedBytes, pageBytes, kvPages }) {
  const room = pageBytes ? Math.floor((limit * WASM_PAGE - fixedBytes) / pageBytes) : limit * WASM_PAGE - fixedBytes;
  const fewest = Math.min(kvPages, FEWEST_KV_PAGES);
  if (room < fewest) {
    const most = limit * WASM_PAGE;
    throw new EngineError("out_of_memory", `needs ${fixedBytes} bytes and KV pages; the memory may have ${most}`);
  }
  let pages = Math.min(kvPages, room);
  for (;;) {
    const maximum = Math.max(initial, wasmPages(fixedBytes + pages * pageBytes));
    try {
      const memory = new WebAssembly.Memory({ initial, maximum, shared: true });
      capacities.set(memory, maximum * WASM_PAGE);
      return memory;
    } catch (error) {
      if (pages <= fewest) {
        const bytes = maximum * WASM_PAGE;
        throw new EngineError("out_of_memory", `the browser refuses a memory of ${bytes} bytes`, null, error);
      }
      pages = Math.max(fewest, pages >> 1);
    }
  }
}

/**
 * What a module declares, narrowed to what was asked for.
 * @param {{initial: number, maximum: number}} declared WebAssembly pages
 * @param {{initial: number, maximum: number}} wanted bytes
 * @returns {{initial: number, maximum: number}} WebAssembly pages
 */
export function limitMemory({ initial, maximum }, wanted) {
  const most = Math.max(initial, Math.min(maximum, Math.floor(wanted.maximum / WASM_PAGE)));
  return { initial: Math.min(most, Math.max(initial, wasmPages(wanted.initial))), maximum: most };
}

/** Most bytes each memory may grow to; WebAssembly.Memory itself does not tell. @type {WeakMap<WebAssembly.Memory, number>} */
const capacities = new WeakMap();

/**
 * How many KV pages the memory can hold at most.
 * @param {WebAssembly.Memory} memory
 * @param {number} kv where they start
 * @param {number} pageBytes
 */
export function kvCapacity(memory, kv, pageBytes) {
  return pageBytes ? Math.floor((/** @type {number} */ (capacities.get(memory)) - kv) / pageBytes) : 0;
}

/**
 * Grow to at least `bytes`. Never shrinks.
 * @param {WebAssembly.Memory} memory
 * @param {number} bytes
 */
export function growTo(memory, bytes) {
  const more = wasmPages(bytes) - memory.buffer.byteLength / WASM_PAGE;
  if (more <= 0) return;
  try {
    memory.grow(more);
  } catch (error) {
    throw new EngineError("out_of_memory", `the browser refuses to grow memory to ${bytes} bytes`, null, error);
  }
}

/** @param {number} bytes */
function wasmPages(bytes) {
  return Math.ceil(bytes / WASM_PAGE);
}

/**
 * The limits of the memory that a module imports as env.memory (the JS API does not tell them).
 * @param {Uint8Array} module
 * @returns {{initial: number, maximum: number}} in WebAssembly pages
 */
export function importedMemory(module) {
  let at = 8;
  const leb = () => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      if (at >= module.length) break;
      const byte = module[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw invalidArtifact("is cut off or malformed", "kernels.wasm");
  };
  const limits = () => {
    const flags = leb();
    const initial = leb();
    return { initial, maximum: flags & 1 ? leb() : MAX_WASM_PAGES };
  };
  while (at < module.length) {
    const section = module[at++];
    const size = leb();
    if (section !== 2) {
      at += size;
      continue;
    }
    for (let left = leb(); left > 0; left--) {
      for (let name = 0; name < 2; name++) {
        const length = leb();
        at += length;
      }
      const kind = module[at++];
      if (kind === 2) return limits();
      if (kind === 0) leb();
      else if (kind === 3) at += 2;
      else if (kind === 1) {
        at++;
        limits();
      } else break;
    }
    break;
  }
  throw invalidArtifact("imports no memory", "kernels.wasm");
}
