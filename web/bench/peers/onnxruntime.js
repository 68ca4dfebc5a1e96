// onnxruntime-web as its own users without transformers.js call it: one session, and a loop that hands each step's KV
// tensors to the next. Model files come from the Cache API after the first visit.
import { absolute, answer, now, wasmBytes } from "./worker.js";

/** @type {any} */
let ort;
/** @type {any} */
let session;
/** @type {number[]} */
let shape;

/** @param {string} path */
async function file(path) {
  const cache = await caches.open("peer");
  const known = await cache.match(path);
  if (known) return new Uint8Array(await known.arrayBuffer());
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  await cache.put(path, new Response(bytes)).catch(() => {}); // storage may be full: then the next visit fetches again
  return bytes;
}

/** @param {Float32Array} logits */
function greedy(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

answer({
  async load({ library, glue, wasm, model, threads, layers, kv_heads: kvHeads, head_dim: headSize }) {
    const start = performance.now();
    ort = await import(absolute(library));
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { mjs: absolute(glue), wasm: absolute(wasm) };
    const code = performance.now();
    const data = `${model}_data`;
    const [graph, weights] = await Promise.all([file(model), file(data)]);
    const fetched = performance.now();
    session = await ort.InferenceSession.create(graph, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
      externalData: [{ path: data.slice(data.lastIndexOf("/") + 1), data: weights }],
    });
    shape = [layers, kvHeads, headSize];
    return {
      threads: ort.env.wasm.numThreads,
      version: ort.env.versions.web,
      phases: { code: code - start, weights: fetched - code, session: performance.now() - fetched },
    };
  },

  async generate(prompt, tokens) {
    const [layers, kvHeads, headSize] = shape;
    /** @type {Record<string, any>} */
    const past = {};
    for (let i = 0; i < layers; i++)
      for (const part of ["key", "value"])
        past[`past_key_values.${i}.${part}`] = new ort.Tensor("float32", new Float32Array(0), [1, kvHeads, 0, headSize]);
    const ids = [];
    const at = [];
    let input = prompt;
    for (let length = prompt.length; ids.length < tokens; length++) {
      const output = await session.run({
        ...past,
        input_ids: new ort.Tensor("int64", BigInt64Array.from(input, BigInt), [1, input.length]),
        attention_mask: new ort.Tensor("int64", new BigInt64Array(length).fill(1n), [1, length]),
      });
      const next = greedy(output.logits.data);
      ids.push(next);
      at.push(now());
      for (const name in past) past[name] = output[name.replace("past_key_values", "present")];
      input = [next];
    }
    return { ids, at };
  },

  usage: async () => ({ wasm_bytes: wasmBytes() }),
});
