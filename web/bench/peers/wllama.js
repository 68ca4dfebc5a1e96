// wllama: llama.cpp compiled to WebAssembly, on the CPU. It takes text and gives text; the bench knows the ids.

/** @type {any} */
let engine;

/** `pieces`: the answer's text as it came, each with its number of tokens.
 * @param {string} prompt @param {number} tokens @param {number} begin */
async function complete(prompt, tokens, begin) {
  const begun_ms = performance.now() - begin;
  /** @type {number[]} */
  const at_ms = [];
  /** @type {[string, number][]} */
  const pieces = [];
  let prompt_tokens = 0;
  await engine.createCompletion({
    prompt,
    max_tokens: tokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    timings_per_token: true,
    onData: (/** @type {any} */ chunk) => {
      const now = performance.now() - begin;
      const came = chunk.timings ? chunk.timings.predicted_n - at_ms.length : 0;
      for (let i = 0; i < came; i++) at_ms.push(now);
      if (came || chunk.choices[0].text) pieces.push([chunk.choices[0].text, came]);
      if (chunk.usage) prompt_tokens = chunk.usage.prompt_tokens;
    },
  });
  return { pieces, prompt_tokens, at_ms, begun_ms, done_ms: performance.now() - begin };
}

/** @type {import("./page.js").Peer} */
export const wllama = {
  async load({ library, wasm, model, threads, context, parallel }) {
    const start = performance.now();
    const { Wllama } = await import(new URL(library, location.href).href);
    engine = new Wllama({ default: new URL(wasm, location.href).href }, { suppressNativeLog: true });
    const code = performance.now();
    await engine.loadModelFromUrl(new URL(model, location.href).href, {
      n_gpu_layers: 0,
      n_threads: threads,
      n_ctx: context,
      n_parallel: parallel,
    });
    return {
      threads: engine.getNumThreads(),
      version: Wllama.getLibllamaVersion(),
      phases: { code: code - start, weights: performance.now() - code },
    };
  },
  generate: (prompt, tokens) => complete(prompt, tokens, performance.now()),
  async serve(prompts, tokens, clients) {
    const begin = performance.now();
    const answers = Array(prompts.length);
    let next = 0;
    const client = async () => {
      while (next < prompts.length) {
        const mine = next++;
        answers[mine] = await complete(prompts[mine], tokens, begin);
      }
    };
    await Promise.all(Array.from({ length: Math.min(clients, prompts.length) }, client));
    return answers;
  },
  usage: async () => ({ wasm_bytes: null }), // its memory is inside its own worker
};
