/**
 * @file What JavaScript can hold and JSON cannot, in what a caller gives: an error that names the field, before anything is
 * posted. It needs no page: the client's own code, with a router that keeps what is posted.
 */

import { expect, test } from "@playwright/test";

import { answer } from "../../web/client/answer.js";
import { ids, idsOfEach, requestParams, serveOptions, startOptions } from "../../web/client/options.js";
import { Turns } from "../../web/client/turns.js";
import { keeping } from "../../web/client/unfinished.js";
import { toJson } from "../../web/engine/format/json.js";

const broken = () => {
  throw new TypeError("broken");
};

/** @returns {any} */
function cyclic() {
  /** @type {any} */
  const value = {};
  value.self = [value, value];
  return value;
}

function revoked() {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

/** @type {Record<string, () => unknown>} */
const BAD = {
  "a BigInt": () => 3n,
  "a Symbol": () => Symbol("x"),
  "a function": () => broken,
  NaN: () => NaN,
  Infinity: () => -Infinity,
  "a cycle": cyclic,
  "a Date": () => new Date(0),
  "a Map": () => new Map([[5, 1]]),
  "a Set": () => new Set([5]),
  "a typed array": () => Float32Array.of(1),
  "a DataView": () => new DataView(new ArrayBuffer(4)),
  "an ArrayBuffer": () => new ArrayBuffer(4),
  "a list of 4 billion holes": () => new Array(4e9),
  "a getter that throws": () => Object.defineProperty({}, "x", { enumerable: true, get: broken }),
  "an item that throws": () => Object.defineProperty([1], "0", { get: broken }),
  "toJSON that throws": () => ({ toJSON: broken }),
  "toJSON that gives a BigInt": () => ({ toJSON: () => 3n }),
  "a Proxy that throws": () => new Proxy({}, { ownKeys: broken }),
  "a Proxy of any length": () => new Proxy([], { get: (_, name) => (name === "length" ? 2 ** 50 : 1) }),
  "a revoked Proxy": revoked,
  "a promise": () => Promise.resolve(1),
  "a boxed text": () => new String("x"),
};

/** A router that answers with one token, and keeps what is posted to it. */
function router() {
  /** @type {any[]} */
  const posted = [];
  const link = {
    ended: null,
    cancel: () => {},
    call: (/** @type {object} */ message, /** @type {any} */ heard) => {
      posted.push(JSON.parse(toJson(message)));
      heard({ piece: { text: "x", token_ids: [5] } });
      return { id: 1, answer: Promise.resolve({ finish_reason: "stop" }) };
    },
  };
  /** As InPage.chat. @param {any} messages @param {any} [params] */
  const chat = async (messages, params) => {
    const { model, ...rest } = requestParams(params);
    /** @type {(...asked: any[]) => any} */
    const ask = (message, all) => answer(async () => /** @type {any} */ (link), new Turns(), message, all);
    for await (const piece of keeping({ op: "chat", messages, model }, rest, ask)) void piece;
  };
  return { posted, chat };
}

/** @param {() => unknown} action @returns {Promise<unknown>} what it throws, as [code, field], or null */
async function told(action) {
  try {
    await action();
  } catch (error) {
    const { code, field, message } = /** @type {any} */ (error);
    return message.startsWith(field) && message.length < 200 ? [code, field] : error;
  }
  return null;
}

for (const [name, make] of Object.entries(BAD)) {
  test(`${name} is refused by the field's name, and nothing is posted`, async () => {
    const { posted, chat } = router();
    /** @type {[string, () => unknown][]} */
    const calls = [
      ["temperature", () => chat("x", { temperature: make() })],
      ["logit_bias", () => chat("x", { logit_bias: { 5: make() } })],
      ["stop", () => chat("x", { stop: ["a", make()] })],
      ["schema", () => chat("x", { keep: "it", schema: { type: "object", properties: { a: make() } } })],
      ["messages", () => chat([{ role: "user", content: make() }])],
      ["messages", () => chat([make(), { role: "user", content: "x" }], { keep: "it" })],
      ["settings", () => startOptions({ model: "m", settings: { scheduler: { queue_size: make() } } })],
      ["threads", () => startOptions({ model: "m", threads: make() })],
      ["models[1].model", () => startOptions({ model: "m", models: [{ model: "n" }, { model: make() }] })],
      ["signal", () => chat("x", { signal: make() })],
      ["isolate", () => serveOptions({ isolate: make() })],
      ["nonsense", () => startOptions({ model: "m", nonsense: make() })],
    ];
    for (const [field, call] of calls) expect([field, await told(call)]).toEqual([field, ["invalid_request", field]]);
    expect(posted).toEqual([]);
  });
}

test("objects that cannot be read are refused whole", async () => {
  const { posted, chat } = router();
  const getter = Object.defineProperty({}, "max_tokens", { enumerable: true, get: broken });
  expect(await told(() => chat("x", getter))).toEqual(["invalid_request", "max_tokens"]);
  for (const params of [3n, Symbol("x"), broken, [], revoked(), new Proxy({}, { ownKeys: broken }), null, "x"]) {
    expect(await told(() => chat("x", params))).toEqual(["invalid_request", "params"]);
    expect(await told(() => startOptions(params))).toEqual(["invalid_request", "options"]);
  }
  expect(await told(() => startOptions({ model: "m", models: new Array(4e9) }))).toEqual(["invalid_request", "models"]);
  expect(await told(() => startOptions(Object.defineProperty({}, "model", { enumerable: true, get: broken })))).toEqual(["invalid_request", "model"]);
  expect(await told(() => idsOfEach(new Array(4e9), "prompts"))).toEqual(["invalid_request", "prompts"]);
  expect(await told(() => ids(new Uint8Array(2 ** 21), "prompt"))).toEqual(["invalid_request", "prompt"]);
  const paths = Array.from({ length: 60 }).reduce((value) => [value, value], /** @type {any} */ (1)); // 2 ** 60 of them
  expect(await told(() => chat(paths))).toEqual(["invalid_request", "messages"]);
  expect(posted).toEqual([]);
});

test("what JSON can hold goes as it is, read once: later changes, and other answers of a Proxy, change nothing", async () => {
  const { posted, chat } = router();
  let reads = 0;
  const once = { role: "user", get content() {
    return `read ${++reads}`;
  } };
  const reactive = new Proxy([new Proxy({ role: "system", content: "be brief" }, {}), once], {}); // as Vue's are
  await chat(reactive, { resume: Uint32Array.of(5, 6), stop: undefined, seed: 3, model: "m", schema: { toJSON: () => ({ type: "string" }) } });
  expect(posted).toEqual([
    {
      op: "chat", model: "m", messages: [{ role: "system", content: "be brief" }, { role: "user", content: "read 1" }],
      params: { resume: [5, 6], seed: 3, schema: { type: "string" } },
    },
  ]);
  expect(startOptions({ model: "m", base: new URL("http://a/b/"), models: [{ model: "n" }], settings: { kv: { system_prompts: ["x"] } } })).toEqual({
    model: "m", base: "http://a/b/", models: [{ model: "n" }], settings: { kv: { system_prompts: ["x"] } },
  });
});
