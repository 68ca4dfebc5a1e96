/** @file Readers of what a caller gives: options, parameters, prompts, bodies. */

import { gzipSync } from "node:zlib";

import { answer } from "../../../web/client/answer.js";
import { respond } from "../../../web/client/endpoint.js";
import { ids, idsOfEach, modelOptions, requestParams, serveOptions, startOptions } from "../../../web/client/options.js";
import { Turns } from "../../../web/client/turns.js";
import { keeping } from "../../../web/client/unfinished.js";
import { EngineError } from "../../../web/engine/format/errors.js";
import { plain, toJson } from "../../../web/engine/format/json.js";
import { createInPage } from "../../../web/npm/ai-sdk.js";
import { Fault } from "./harness.mjs";

const START = {
  model: "m", backend: "wasm", threads: 2, replicas: 1, pinned: false, base: "./", models: [{ model: "b", threads: 1 }], shared: true,
  settings: { scheduler: { queue_size: 3 }, kv: { system_prompts: ["a"] }, answers: { bundle: "x" } },
};
const SERVE = { worker: "sw.js", scope: "/", isolate: true, policy: "default-src 'self'", offline: false };
const MESSAGES = [
  { role: "system", content: "be brief" },
  { role: "user", content: [{ type: "text", text: "hi" }] },
  { role: "assistant", content: null, tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: '{"a": 1}' } }] },
];
const PARAMS = {
  temperature: 0.5, top_k: 5, seed: 3, logit_bias: { 1: 2 }, max_tokens: 4, stop: ["a", "b"], timeout: 3.5, tags: ["t"], keep: "chat", resume: [5, 6],
  schema: { type: "object", properties: { a: { type: "string" } } }, tools: [{ type: "function", function: { name: "f", parameters: {} } }], model: "m",
};

/** A router that answers everything at once, and knows what was sent to it. */
function router() {
  /** @type {string[]} */
  const posted = [];
  const link = {
    ended: null,
    call: (/** @type {object} */ message, /** @type {any} */ heard) => {
      posted.push(toJson(message));
      heard?.({ begun: { seed: 1, status: 200, headers: {}, body: "{}", resume: null } });
      heard?.({ piece: { text: "x", token_ids: [5] } });
      return { id: 1, answer: Promise.resolve({ finish_reason: "stop", usage: {} }) };
    },
    cancel: () => {},
  };
  return { posted, connect: async () => /** @type {any} */ (link), turns: new Turns() };
}

/** @param {{op: "chat" | "complete", prompt: any, params: any}} given */
async function request({ op, prompt, params }) {
  const { posted, connect, turns } = router();
  try {
    const { model, ...rest } = requestParams(params);
    const message = op === "chat" ? { op, messages: prompt, model } : { op, prompt: ids(prompt, "prompt"), model };
    for await (const piece of keeping(message, /** @type {any} */ (rest), (...asked) => answer(connect, turns, ...asked))) void piece;
  } catch (error) {
    if (posted.length) throw new Fault(`refused after it was posted: ${posted[0].slice(0, 200)}`);
    throw error;
  }
  for (const text of posted) if (JSON.stringify(JSON.parse(text)) !== text) throw new Fault(`it is not what JSON has: ${text.slice(0, 300)}`);
}

/** @param {import("./mutate.mjs").Mutator} m */
function makeRequest(m) {
  const op = m.choice(["chat", "complete"]);
  const prompt = op === "chat" ? MESSAGES : m.choice([/** @type {any} */ ("hello"), [5, 6, 7]]);
  const first = m.chance(0.5);
  return { op, prompt: first ? m.value(prompt, [MESSAGES]) : prompt, params: first ? PARAMS : m.value(PARAMS, [PARAMS]) };
}

const CHUNKS = [
  { id: "c", created: 5, model: "m", choices: [{ index: 0, delta: { role: "assistant", content: "" } }] },
  { id: "c", created: 5, model: "m", choices: [{ index: 0, delta: { content: "hi" }, finish_reason: null }] },
  { id: "c", created: 5, model: "m", choices: [{ index: 0, delta: { tool_calls: [{ index: 0, id: "1", type: "function", function: { name: "f", arguments: "" } }] } }] },
  { id: "c", created: 5, model: "m", choices: [{ index: 0, delta: { tool_calls: [{ index: 0, function: { arguments: '{"a": 1}' } }] } }] },
  { id: "c", created: 5, model: "m", choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] },
  { id: "c", created: 5, model: "m", choices: [], usage: { prompt_tokens: 5, completion_tokens: 2 } },
  { error: { message: "x", type: "server_error", param: null, code: null } },
];

/** A stream of server-sent events, one of them damaged. @param {import("./mutate.mjs").Mutator} m */
function makeStream(m) {
  const events = Array.from({ length: m.choice([1, 3, 6]) }, () => JSON.stringify(m.choice(CHUNKS)));
  events[m.draw(events.length)] = m.json(m.choice(CHUNKS), CHUNKS);
  const text = `${events.map((event) => `data: ${event}\n\n`).join("")}data: [DONE]\n\n`;
  return m.chance(0.2) ? m.text(text) : text;
}

/** @param {string} text */
async function streamed(text) {
  const inpage = { fetch: async () => new Response(text, { headers: { "content-type": "text/event-stream" } }) };
  const { stream } = await createInPage(inpage)("m").doStream({ prompt: [{ role: "user", content: [{ type: "text", text: "hi" }] }] });
  for await (const part of stream) JSON.stringify(part);
}

const BODY = JSON.stringify({ model: "m", messages: MESSAGES, stream: true });

/** @param {import("./mutate.mjs").Mutator} m */
function makeBody(m) {
  const encoding = m.choice([null, "gzip", "gzip", "br", "", "identity", m.text("gzip").replace(/[^\x21-\x7e]/g, "") || null]);
  const plainBytes = new TextEncoder().encode(m.text(BODY));
  const body = m.chance(0.5) ? m.bytes(plainBytes) : plainBytes;
  const zipped = encoding === "gzip" ? Uint8Array.from(gzipSync(body)) : body;
  const path = m.chance(0.2) ? m.text("/v1/chat/completions") : "/v1/chat/completions";
  return { path, encoding, body: m.chance(0.3) && zipped.length < 9999 ? m.bytes(zipped) : zipped };
}

/** @param {ReturnType<typeof makeBody>} given */
async function endpoint({ path, encoding, body }) {
  const { connect, turns } = router();
  let input;
  try {
    input = new Request(new URL(path, "http://inpage/"), { method: "POST", body, headers: encoding === null ? {} : { "content-encoding": encoding } });
  } catch {
    return; // no request that a page could make
  }
  const response = await respond(connect, turns, input);
  const answered = await response.json();
  if (response.ok) return;
  const { error } = answered;
  if (response.status >= 500) throw new Fault(`untyped: ${JSON.stringify(error)}`);
  throw new EngineError("invalid_request", error.message, error.param); // for the harness to check
}

/** @type {import("./harness.mjs").Reader[]} */
export const READERS = [
  { name: "js-start", make: (m) => m.value(START, [START]), run: (options) => JSON.stringify(startOptions(options)), wild: true },
  { name: "js-add", make: (m) => m.value({ model: "m", threads: 2 }, [START]), run: (options) => modelOptions(options), wild: true },
  { name: "js-serve", make: (m) => m.value(SERVE), run: serveOptions, wild: true, share: 0.5 },
  { name: "js-request", make: makeRequest, run: request, wild: true, share: 2 },
  { name: "js-prompts", make: (m) => m.value(["hello", [5, 6], MESSAGES], [MESSAGES]), run: (prompts) => toJson({ op: "prefetch", prompts: idsOfEach(prompts, "prompts") }), wild: true },
  {
    name: "js-message",
    make: (m) => ({ op: "score", ids: m.value([1, 2, [3]], [MESSAGES]), window: m.atom(), params: m.value(PARAMS) }),
    run: (message) => {
      const copy = plain(message);
      if (JSON.stringify(copy) !== toJson(copy)) throw new Fault("a copy is not plain");
    },
    wild: true,
  },
  { name: "js-stream", make: makeStream, run: streamed, share: 0.5 },
  { name: "js-endpoint", make: makeBody, run: endpoint, share: 0.5 },
];
