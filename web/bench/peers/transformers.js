// transformers.js: its own generate with a streamer, on its wasm backend. Its model hub is this page's server.
import { absolute, answer, now, wasmBytes } from "./worker.js";

/** @type {any} */
let library;
/** @type {any} */
let model;

answer({
  async load({ library: path, glue, wasm, id, dtype, threads, embeds }) {
    const start = performance.now();
    library = await import(absolute(path));
    const { env } = library;
    env.allowLocalModels = false;
    env.remoteHost = absolute("./");
    env.remotePathTemplate = "{model}/";
    const backend = env.backends.onnx.wasm;
    backend.wasmPaths = { mjs: absolute(glue), wasm: absolute(wasm) };
    backend.numThreads = threads;
    const code = performance.now();
    const how = { device: "wasm", dtype, use_external_data_format: true };
    model = await (embeds ? library.pipeline("feature-extraction", id, how) : library.AutoModelForCausalLM.from_pretrained(id, how));
    return { threads: backend.numThreads, version: env.version, phases: { code: code - start, weights: performance.now() - code } };
  },

  async generate(prompt, tokens) {
    /** @type {number[]} */
    const ids = [];
    /** @type {number[]} */
    const at = [];
    let heard = false; // the prompt comes first
    const streamer = {
      put(/** @type {bigint[][]} */ [row]) {
        const time = now();
        if (heard) for (const id of row) (ids.push(Number(id)), at.push(time));
        heard = true;
      },
      end() {},
    };
    await model.generate({
      inputs: new library.Tensor("int64", BigInt64Array.from(prompt, BigInt), [1, prompt.length]),
      max_new_tokens: tokens,
      do_sample: false,
      streamer,
    });
    return { ids, at };
  },

  async embed(texts, together) {
    /** @type {number[]} */
    const at = [];
    let vector;
    for (const call of together ? [texts] : texts.map((/** @type {string} */ text) => [text])) {
      const vectors = await model(call, { pooling: "mean", normalize: true });
      at.push(now());
      vector ??= Array.from(vectors.data.subarray(0, vectors.dims[1]));
    }
    return { at, vector };
  },

  usage: async () => ({ wasm_bytes: wasmBytes() }),
});
