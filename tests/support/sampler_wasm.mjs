/**
 * @file Chooses tokens with sampler.wasm alone, in Node: rows of logits and inpage_sequence words from stdin, the words after
 * the choice as JSON. node sampler_wasm.mjs sampler.wasm < request.json
 */
import { readFileSync } from "node:fs";

const { vocab, rows, rounds } = JSON.parse(readFileSync(0, "utf8"));
const module = new WebAssembly.Module(readFileSync(process.argv[2]));
const memory = new WebAssembly.Memory({ initial: 256, maximum: 65536, shared: true });
const { exports } = new WebAssembly.Instance(module, { env: { memory } });
const words = new Int32Array(memory.buffer);
let free = exports.__heap_base.value;
const take = (/** @type {number} */ count) => {
  const at = Math.ceil(free / 256) * 256;
  free = at + 4 * count;
  return at;
};
const put = (/** @type {number[]} */ values, at = take(values.length)) => {
  words.set(values, at / 4);
  return at;
};
const logits = take(rows * vocab);
const table = put([take(4 * rows), logits]);
// One function of no launches; all inputs share a buffer that is never read.
const loaded = exports.inpage_load(table, 2, put([1, rows, 0]), 3, put([0, 0, 0, 0, 0, 1, vocab, rows, rows, rows, 1]));
if (loaded !== 0) throw new Error(`inpage_load: ${loaded}`);
const sequences = take(rounds[0].sequences.length);
const [bias, mask] = [take(4096), take(4096)];
const found = rounds.map((/** @type {any} */ round) => {
  put(round.logits, logits);
  put(round.sequences, sequences);
  put(round.bias, bias);
  put(round.mask, mask);
  const code = exports.inpage_sample(sequences, rows, bias, mask);
  if (code !== 0) throw new Error(`inpage_sample: ${code}`);
  return Array.from(words.subarray(sequences / 4, sequences / 4 + round.sequences.length));
});
console.log(JSON.stringify(found));
