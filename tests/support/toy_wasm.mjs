/**
 * @file Runs the toy model's kernels.wasm in Node: instances on one shared memory, compute threads as worker threads.
 * Reads a request from stdin (program, feeds as inpage_sequence words, …) and prints what a burst gave as JSON.
 * node toy_wasm.mjs kernels.wasm < request.json
 */
import { readFileSync } from "node:fs";
import { Worker, isMainThread, workerData } from "node:worker_threads";

if (isMainThread) main();
else {
  const { module, memory, id, stack } = workerData;
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  exports.__stack_pointer.value = stack;
  exports.inpage_thread(id);
}

function main() {
  const request = JSON.parse(readFileSync(0, "utf8"));
  const module = new WebAssembly.Module(readFileSync(process.argv[2]));
  const memory = new WebAssembly.Memory({ initial: 512, maximum: 65536, shared: true });
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  let free = exports.__heap_base.value;
  const take = (/** @type {number} */ bytes) => {
    const at = Math.ceil(free / 256) * 256;
    free = at + bytes;
    return at;
  };
  const words = new Int32Array(memory.buffer);
  const put = (/** @type {number[]} */ values) => {
    const at = take(values.length * 4);
    words.set(values, at / 4);
    return at;
  };
  const stacks = take(65536 * (request.threads + 1));
  const table = put(request.buffers.map((/** @type {number} */ bytes) => take(bytes)));
  for (const [id, values] of Object.entries(request.filled)) words.set(values, words[table / 4 + Number(id)] / 4);
  const program = put(request.program);
  exports.__stack_pointer.value = stacks + 65536;
  const loaded = exports.inpage_load(table, request.buffers.length, program, request.program.length, put(request.io));
  exports.inpage_set_threads(request.threads);
  const workers = [];
  for (let id = 1; id < request.threads; id++) {
    const stack = stacks + 65536 * (id + 1);
    workers.push(new Worker(new URL(import.meta.url), { workerData: { module, memory, id, stack } }));
  }
  const sequences = put(request.sequences);
  const out = take(4 * request.n * request.steps);
  // The event loop must turn once for the workers to start.
  setTimeout(() => {
    const steps = exports.inpage_run(sequences, request.n, request.steps, 0, 0, out);
    // One more instance on the same memory must not set its data back.
    new WebAssembly.Instance(module, { env: { memory } });
    const counters = Array.from(words.subarray(exports.inpage_counters() / 4, exports.inpage_counters() / 4 + 4));
    const tokens = Array.from(words.subarray(out / 4, out / 4 + steps * request.n));
    console.log(JSON.stringify({ loaded, steps, tokens, counters }));
    process.exit(0);
  }, 0);
}
