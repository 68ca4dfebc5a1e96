/**
 * @file What the chat page sees of a model in tests of the page alone: the public client's face over a script. Storage and
 * unfinished answers are the real ones. A question says what the answer is: "say …" is repeated, "hold …" as well, and then
 * stands until `script.release()`; "die" ends the engine. `script` may have others for each. A token is a word.
 */

import { EngineError } from "../../../web/engine/format/errors.js";
import { keeping, resuming, unfinished } from "../../../web/client/unfinished.js";
import { storage } from "../../../web/client/storage.js";

/** @typedef {{role: string, content: string}} Message */
/** @typedef {{answers?: Record<string, string>, holds?: string, dies?: string, context?: number, fails?: number, waits?: boolean, info?: object, update?: boolean}} Script */

const scope = /** @type {any} */ (globalThis);
/** Set by a test before the page runs. @type {Script & {asked: any[], starts: any[], release: () => void, go: () => void, held?: boolean}} */
const script = (scope.script = { asked: [], starts: [], release: () => {}, go: () => {}, ...scope.script });

/** Models that this page has loaded and not unloaded: the router of a tab is one. */
let loaded = 0;

const CANDIDATES = [
  { variant: "wasm-relaxed", backend: "wasm", running: true, can_run: true, reason: "", decode_tps: 31.4, prefill_tps: 180, fault: "" },
  { variant: "wasm-simd", backend: "wasm", running: false, can_run: true, reason: "", decode_tps: 20.1, prefill_tps: 120, fault: "" },
  { variant: "webgpu-f16", backend: "webgpu", running: false, can_run: false, reason: "needs shader-f16, which this device does not have", decode_tps: null, prefill_tps: null, fault: "" },
];

export class InPage {
  static storage = storage;
  static report = async () => "a report";
  static register = async (/** @type {{onUpdate?: () => void}} */ { onUpdate }) => void (script.update && onUpdate?.());
  static update = async () => false;

  /** @param {any} options */
  static async start(options) {
    script.starts.push({ model: options.model, backend: options.backend, threads: options.threads });
    if (loaded) throw new EngineError("error", "the model of before is not unloaded");
    options.onProgress?.({ phase: "weights", loaded: 40e6, total: 97e6 });
    if (script.waits) await new Promise((resolve) => (script.go = () => resolve(null)));
    if (options.signal?.aborted) throw new EngineError("cancelled", "the start was given up");
    if (script.fails) {
      script.fails--;
      throw new EngineError("network", "weights/00000.bin: HTTP 503");
    }
    return new InPage(options);
  }

  /** @param {any} options */
  constructor({ model }) {
    loaded++;
    this.info = {
      model, name: model === "small" ? "Small-135M" : `Other (${model})`, revision: "r", license: "Apache-2.0", backend: "wasm", variant: "wasm-relaxed", threads: 2,
      why: "wasm-relaxed: measured 31.4 tokens a second here", sentence: "WASM, 2 threads: 31.4 tokens a second", candidates: CANDIDATES, load_ms: 1234,
      context: script.context ?? 8192, vocab: 64, max_sequences: 8, weight_bytes: 97e6, arena_bytes: 12e6, kv_bytes: 90e6,
      kv_pages: { used: 0, kept: 0, reserved: 0, limit: 1 }, requests: { active: 0, waiting: 0 }, replicas: 1, warnings: [], ...script.info,
    };
  }

  /** @param {Message[]} messages */
  async countTokens(messages) {
    return counted(messages);
  }

  /** @param {Message[]} messages @param {any} params */
  chat(messages, params) {
    script.asked.push({ messages, params: { ...params, signal: undefined } });
    return keeping({ op: "chat", messages }, params, (message, rest) => this.#answer(/** @type {any} */ (message).messages, rest));
  }

  /** @param {string} id @param {any} how */
  resume(id, how) {
    return resuming(id, how, (message, rest) => this.#answer(/** @type {any} */ (message).messages, rest));
  }

  unfinished = unfinished;

  /** @param {Message[]} messages @param {any} params @returns {AsyncGenerator<any, void, void>} */
  async *#answer(messages, { max_tokens = 1024, signal, resume = [], seed = 7 }) {
    const prompt = counted(messages);
    if (prompt + max_tokens > this.info.context) throw new EngineError("invalid_request", `max_tokens ${max_tokens} does not fit`, "max_tokens");
    const { content } = messages[messages.length - 1];
    const question = /^(say|hold) /.test(content) ? content : (content.split("\n\n").at(-1) ?? "");
    if (question === (script.dies ?? "die")) throw new EngineError("device_lost", "the worker is gone");
    const text = script.answers?.[question] ?? (/^(say|hold) /.test(question) ? question.slice(question.indexOf(" ") + 1) : `You said: ${question}`);
    const words = text.match(/\s*\S+|\s+$/g) ?? [];
    const ids = [...resume];
    let held = question.startsWith("hold ") || question === script.holds;
    for (const word of words.slice(resume.length, max_tokens)) {
      if (held && ids.length >= Math.ceil(words.length / 2)) {
        await new Promise((resolve) => {
          script.release = () => resolve(null);
          script.held = true;
          signal?.addEventListener("abort", () => resolve(null), { once: true });
        });
        held = false;
      }
      if (signal?.aborted) break;
      ids.push(ids.length + 3);
      yield { text: word, token_ids: [ids.length + 2] };
      await new Promise((resolve) => setTimeout(resolve));
    }
    const finish_reason = signal?.aborted ? "cancelled" : ids.length < words.length ? "length" : "stop";
    const usage = { prompt_tokens: prompt, completion_tokens: ids.length, total_tokens: prompt + ids.length, prompt_tokens_details: { cached_tokens: 2 } };
    const completion = { ...usage, prompt_ids: [], token_ids: ids, text, finish_reason, seed, load_ms: 1, ttft_ms: 12, prefill_tps: 100, decode_tps: 31.4, threads: 2, backend: "wasm", variant: this.info.variant, why: "", usage, failovers: [], cached_tokens: 2, source: "engine", logprobs: [], ended: question.includes("circles") ? "repeats" : "" };
    yield { text: "", token_ids: [], finish_reason, usage, timing: { load_ms: 1, ttft_ms: 12, prefill_tps: 100, decode_tps: 31.4 }, completion };
  }

  async serve() {
    return true;
  }
  async report() {
    return "a report";
  }
  async refresh() {
    return this.info;
  }
  async unload() {
    await new Promise((resolve) => setTimeout(resolve));
    loaded--;
  }
}

/** @param {Message[]} messages */
function counted(messages) {
  return messages.reduce((sum, { content }) => sum + 4 + content.split(/\s+/).length, 0);
}
