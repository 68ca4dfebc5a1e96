/**
 * @file The page that `inpage bench` measures inpage in: the public client, as any page uses it, and a clock. Tokens are
 * stamped when the page receives them; tokens of one piece share a stamp. bench/inpage_bench/ours/in_page.py calls
 * this.
 */

import { InPage } from "../client/inpage.js";

/**
 * @typedef {object} Timeline see bench/inpage_bench/driver.py
 * @property {number[]} ids
 * @property {number[]} at_ms
 * @property {number} begun_ms
 * @property {number} done_ms
 * @property {number} refused
 * @property {string | null} error
 */

/** @type {InPage | null} */
let inpage = null;

/**
 * @param {import("../client/inpage.js").StartOptions} options
 * @returns {Promise<{info: import("../client/inpage.js").Info, ready_ms: number, phases: Record<string, number>}>}
 */
async function load(options) {
  const begun = performance.now();
  /** @type {[string, number][]} */
  const starts = [];
  const onProgress = (/** @type {{phase: string}} */ { phase }) => {
    if (starts.at(-1)?.[0] !== phase) starts.push([phase, performance.now()]);
  };
  inpage = await InPage.start({ ...options, onProgress });
  const ready = performance.now();
  /** @type {Record<string, number>} */
  const phases = {};
  for (const [i, [phase, at]] of starts.entries()) phases[phase] = (phases[phase] ?? 0) + (starts[i + 1]?.[1] ?? ready) - at;
  return { info: inpage.info, ready_ms: ready - begun, phases };
}

/**
 * One request, from when it is made to its end. A full queue is asked again when another answer has ended.
 * @param {number[]} prompt
 * @param {number} maxTokens
 * @param {number} zero of the clock
 * @param {() => Promise<unknown>} turn settles when another answer ends
 * @returns {Promise<Timeline>}
 */
async function ask(prompt, maxTokens, zero, turn) {
  /** @type {Timeline} */
  const timeline = { ids: [], at_ms: [], begun_ms: performance.now() - zero, done_ms: 0, refused: 0, error: null };
  for (;;) {
    try {
      for await (const piece of started().complete(prompt, { max_tokens: maxTokens, temperature: 0 })) {
        const now = performance.now() - zero;
        for (const id of piece.token_ids) {
          timeline.ids.push(id);
          timeline.at_ms.push(now);
        }
      }
    } catch (error) {
      const { code, message } = /** @type {{code?: string, message?: string}} */ (error);
      if (code === "queue_full") {
        timeline.refused++;
        await turn();
        continue;
      }
      timeline.error = `${code ?? "error"}: ${message ?? String(error)}`;
    }
    timeline.done_ms = performance.now() - zero;
    return timeline;
  }
}

/**
 * @param {{prompt: number[], maxTokens: number}} request
 * @returns {Promise<Timeline>}
 */
function generate({ prompt, maxTokens }) {
  return ask(prompt, maxTokens, performance.now(), () => Promise.reject(new Error("a queue is full with one request")));
}

/**
 * @param {{prompts: number[][], maxTokens: number, clients: number}} requests
 * @returns {Promise<Timeline[]>} in the prompts' order
 */
async function serve({ prompts, maxTokens, clients }) {
  const zero = performance.now();
  /** @type {Timeline[]} */
  const timelines = [];
  /** @type {(() => void)[]} */
  let waiting = [];
  const turn = () => new Promise((resolve) => waiting.push(() => resolve(undefined)));
  let next = 0;
  const client = async () => {
    while (next < prompts.length) {
      const place = next++;
      timelines[place] = await ask(prompts[place], maxTokens, zero, turn);
      const woken = waiting;
      waiting = [];
      for (const wake of woken) wake();
    }
  };
  await Promise.all(Array.from({ length: Math.min(clients, prompts.length) }, client));
  return timelines;
}

/**
 * Vectors, from text. None that was kept.
 * @param {{texts: string[], together: boolean}} request
 * @returns {Promise<{at_ms: number[], vector: number[]}>} see bench/inpage_bench/driver.py
 */
async function embed({ texts, together }) {
  const zero = performance.now();
  const at = [];
  /** @type {Float32Array | undefined} */
  let first;
  for (const call of together ? [texts] : texts.map((text) => [text])) {
    const { vectors } = await started().embed(call, { truncate: true, cache: false });
    at.push(performance.now() - zero);
    first ??= vectors[0];
  }
  return { at_ms: at, vector: [.../** @type {Float32Array} */ (first)] };
}

/**
 * Ask nothing until the kernels that run here have been chosen for good, or for so long.
 * @param {number} seconds
 */
async function settle(seconds) {
  const until = performance.now() + seconds * 1e3;
  while (!(await started().refresh()).kernels_settled && performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function unload() {
  const loaded = inpage;
  inpage = null;
  await loaded?.unload();
}

/** @returns {InPage} */
function started() {
  if (!inpage) throw new Error("no model is loaded");
  return inpage;
}

Object.assign(globalThis, {
  bench: { load, settle, generate, serve, embed, unload, info: () => started().refresh(), counters: () => started().counters() },
});
