/** @file The same graph driven by hand, as onnxruntime-web's own users do: what the router's speed is compared with. */

/** @type {any} */
let ort;
/** @type {any} */
let session;
/** @type {number[]} */
let shape = [];

/** @param {{model: string, threads: number, layers: number, heads: number, dim: number}} options */
async function load({ model, threads, layers, heads, dim }) {
  ort = await import(/** @type {string} */ ("/web/vendor/onnxruntime/ort.wasm.js"));
  const at = new URL("/web/vendor/onnxruntime/", location.href).href;
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: `${at}ort-wasm-simd-threaded.js`, wasm: `${at}ort-wasm-simd-threaded.wasm` };
  const bytes = async (/** @type {string} */ url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
  const name = `${model.slice(model.lastIndexOf("/") + 1)}_data`;
  const externalData = [{ path: name, data: await bytes(`${model}_data`) }];
  session = await ort.InferenceSession.create(await bytes(model), { executionProviders: ["wasm"], graphOptimizationLevel: "all", externalData });
  shape = [layers, heads, dim];
}

/** @param {number[]} prompt @param {number} tokens @returns {Promise<number>} tokens a millisecond, behind the first */
async function generate(prompt, tokens) {
  const [layers, heads, dim] = shape;
  /** @type {Record<string, any>} */
  const past = {};
  for (let i = 0; i < layers; i++)
    for (const part of ["key", "value"]) past[`past_key_values.${i}.${part}`] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, dim]);
  const at = [];
  let input = prompt;
  for (let length = prompt.length; at.length < tokens; length++) {
    const output = await session.run({
      ...past,
      input_ids: new ort.Tensor("int64", BigInt64Array.from(input, BigInt), [1, input.length]),
      attention_mask: new ort.Tensor("int64", new BigInt64Array(length).fill(1n), [1, length]),
    });
    const { data } = output.logits;
    let best = 0;
    for (let i = 1; i < data.length; i++) if (data[i] > data[best]) best = i;
    at.push(performance.now());
    for (const name in past) past[name] = output[name.replace("past_key_values", "present")];
    input = [best];
  }
  return (tokens - 1) / (at[tokens - 1] - at[0]);
}

onmessage = async ({ data }) => postMessage(data.load ? await load(data.load) : await generate(data.ids, data.tokens));
