// A peer under test, as the bench calls it: `peer.load`, then `generate` or `serve`, and `usage`.
// wllama runs workers of its own and is called from the page, as its users do; the two that compute in the thread that
// calls them get a module worker each.

/**
 * A prompt is ids, for wllama text. An answer's times are in ms since the call: when each token was received, and when
 * the end was known. wllama says its text in pieces, each with its number of tokens, in place of `ids`.
 * @typedef {{ ids?: number[], pieces?: [string, number][], prompt_tokens?: number, at_ms: number[], begun_ms: number,
 *   done_ms: number }} Answer
 * @typedef {{ threads: number, version: string, phases: Record<string, number> }} Loaded
 * @typedef {object} Peer
 * @property {(options: Record<string, any>) => Promise<Loaded>} load
 * @property {(prompt: any, tokens: number) => Promise<Answer>} generate
 * @property {((prompts: any[], tokens: number, clients: number) => Promise<Answer[]>)=} serve
 * @property {((texts: string[], together: boolean) => Promise<{ at_ms: number[], vector: number[] }>)=} embed
 * @property {() => Promise<{ wasm_bytes: number | null }>} usage
 */

/** @param {string} script @returns {Peer} */
function inWorker(script) {
  const worker = new Worker(script, { type: "module" });
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: any) => void }>} */
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data: { id, value, error } }) => {
    const call = waiting.get(id);
    waiting.delete(id);
    if (error) call?.reject(error);
    else call?.resolve(value);
  };
  worker.onerror = (event) => {
    const error = { code: "peer_failed", message: event.message || `${script} could not be loaded` };
    for (const call of waiting.values()) call.reject(error);
    waiting.clear();
  };
  /** @param {string} name @param {any[]} args @returns {Promise<any>} */
  const call = (name, ...args) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject });
      worker.postMessage({ id: last, name, args });
    });
  return {
    load: (options) => call("load", options),
    generate: async (ids, tokens) => {
      const begin = performance.timeOrigin + performance.now();
      /** @type {{ ids: number[], at: number[] }} */
      const { ids: made, at } = await call("generate", ids, tokens);
      const at_ms = at.map((time) => time - begin); // the worker's clock reads on the same absolute scale
      return { ids: made, at_ms, begun_ms: 0, done_ms: performance.timeOrigin + performance.now() - begin };
    },
    embed: async (texts, together) => {
      const begin = performance.timeOrigin + performance.now();
      const { at, vector } = await call("embed", texts, together);
      return { at_ms: at.map((/** @type {number} */ time) => time - begin), vector };
    },
    usage: () => call("usage"),
  };
}

/** @type {Record<string, () => Promise<Peer> | Peer>} */
const peers = {
  wllama: async () => (await import("./wllama.js")).wllama,
  "onnxruntime-web": () => inWorker("onnxruntime.js"),
  "transformers.js": () => inWorker("transformers.js"),
};

/** @type {Peer | undefined} */
let loaded;

export const peer = {
  /** @param {string} name @param {Record<string, any>} options */
  async load(name, options) {
    loaded = await peers[name]();
    return loaded.load(options);
  },
  /** @param {any} prompt @param {number} tokens */
  generate: (prompt, tokens) => /** @type {Peer} */ (loaded).generate(prompt, tokens),
  /** @param {any[]} prompts @param {number} tokens @param {number} clients */
  serve: (prompts, tokens, clients) => loaded?.serve?.(prompts, tokens, clients),
  /** @param {string[]} texts @param {boolean} together */
  embed: (texts, together) => loaded?.embed?.(texts, together),
  usage: () => /** @type {Peer} */ (loaded).usage(),
};
Object.assign(globalThis, { peer });
