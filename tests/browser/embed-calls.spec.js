/**
 * @file Calls for vectors as the client makes them, in Node: they end by their signal whatever the router does, and unpack
 * what it answers. And WordPiece by npm's library, which is what tokenizes in the page, against PyPI's.
 */

import { execFileSync } from "node:child_process";
import path from "node:path";

import { expect, test } from "@playwright/test";

import { embed, rerank } from "../../web/client/embedding.js";
import { RemoteLink } from "../../web/client/remote.js";
import { Supervisor } from "../../web/client/supervisor.js";
import { Turn, Turns } from "../../web/client/turns.js";
import { checkBatch } from "../../web/engine/core/batch.js";

const ROOT = path.resolve(import.meta.dirname, "../..");

/** `Supervisor.ask` with turns of its own. @param {() => Promise<any>} connect */
function asking(connect) {
  const turns = new Turns();
  const owner = { ended: null, turns, connect };
  /** @type {(...asked: any[]) => Promise<any>} */
  const ask = (...asked) => Supervisor.prototype.ask.apply(/** @type {any} */ (owner), /** @type {any} */ (asked));
  return { turns, ask };
}

/** The code that it rejects with. @param {Promise<any>} call */
const code = (call) => call.then(() => "", (/** @type {any} */ error) => error.code);

test("a call ends by its signal at once, whatever it waits for, and another has its turn", async () => {
  const nothing = { hello: () => {}, heard: () => {}, died: () => {}, silent: () => {} };
  const remote = new RemoteLink("a-host-that-never-comes", nothing);
  /** @type {number[]} */
  const cancelled = [];
  /** @type {(message: any) => void} */
  let tell = () => {};
  const silent = {
    ended: null,
    cancel: (/** @type {number} */ id) => cancelled.push(id),
    call: (/** @type {unknown} */ _, /** @type {any} */ heard) => ((tell = heard), { id: 5, answer: new Promise(() => {}) }),
  };
  /** @type {Record<string, () => Promise<any>>} */
  const routers = {
    "another tab's": async () => remote,
    "its own": async () => silent,
    "none yet": () => new Promise(() => {}),
  };
  for (const [name, connect] of Object.entries(routers)) {
    const { turns, ask } = asking(connect);
    const end = new AbortController();
    /** @type {number[]} */
    const told = [];
    const call = code(embed(ask, ["a"], { signal: end.signal, onProgress: (done) => told.push(done) }));
    await new Promise((resolve) => setTimeout(resolve)); // until it waits
    tell({ progress: { done: 1, total: 2 } });
    end.abort();
    tell({ progress: { done: 2, total: 2 } });
    expect(await call, name).toBe("cancelled");
    if (name === "its own") expect([cancelled, told]).toEqual([[5], [1]]);
    const accused = Object.assign(new Turn(), { suspicion: 2 }); // runs when nothing else does
    await turns.enter(accused);
  }

  // While it waits for its turn.
  const { turns, ask } = asking(routers["none yet"]);
  const first = Object.assign(new Turn(), { suspicion: 2 });
  await turns.enter(first);
  const end = new AbortController();
  const call = code(rerank(ask, "a", ["b"], { signal: end.signal }));
  await Promise.resolve();
  end.abort();
  expect(await call).toBe("cancelled");
  remote.end(/** @type {any} */ (new Error("over")));
});

test("vectors are unpacked byte by byte, and onProgress must be a function", async () => {
  const numbers = Float32Array.from({ length: 4000 }, (_, i) => i / 3);
  const vectors = Buffer.from(numbers.buffer).toString("base64");
  const answered = async () => ({ vectors, width: 400, prompt_tokens: 7 });
  const iterate = String.prototype[Symbol.iterator];
  let iterated = 0;
  String.prototype[Symbol.iterator] = function () {
    iterated += this.length;
    return iterate.call(this);
  };
  const found = await embed(answered, ["a"]).finally(() => (String.prototype[Symbol.iterator] = iterate));
  expect(found.vectors.map((vector) => [...vector])).toEqual(Array.from({ length: 10 }, (_, i) => [...numbers.slice(400 * i, 400 * (i + 1))]));
  expect(iterated).toBeLessThan(numbers.byteLength); // a string for each byte takes 30 times as long
  for (const call of [embed(answered, ["a"], /** @type {any} */ ({ onProgress: 5 })), rerank(answered, "a", ["a"], /** @type {any} */ ({ onProgress: 5 }))]) {
    const refused = await call.catch((/** @type {any} */ error) => error);
    expect([refused.code, refused.field]).toEqual(["invalid_request", "onProgress"]);
  }
});

test("a step of an encoder takes sequences side by side, none longer than the context", () => {
  const maxima = { rows: 16, sequences: 4, logit_rows: 4, context: 8 };
  const plan = /** @type {any} */ ({ maxima, vocab: 10, paged: false, blocksPerSequence: 3, blockTables: [] });
  /** @param {number[][]} tables @param {number[]} owners @param {number[]} positions */
  const step = (tables, owners, positions) => {
    const input = {
      tokenIds: new Int32Array(owners.length), positions: Int32Array.from(positions), rowSequence: Int32Array.from(owners),
      blockTables: Int32Array.from(tables.flat()), logitRows: new Int32Array(0),
    };
    try {
      return checkBatch(/** @type {any} */ (input), plan, 0);
    } catch (error) {
      return /** @type {any} */ (error).field;
    }
  };
  expect(step([[0, 2, 2], [2, 1, 1]], [0, 0, 1], [0, 1, 0])).toBe(2);
  // Rows of one that is longer than the context, though the step's own rows have positions within it.
  expect(step([[0, 12, 12], [8, 4, 4]], [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3])).toBe("blockTables");
  expect(step([[0, 3, 3], [2, 1, 1]], [0, 0, 1], [0, 1, 0])).toBe("blockTables"); // the last row is both's
});

test("WordPiece cuts Greek and ideographs for compatibility as PyPI's library does", async () => {
  const script = `
import json
from tokenizers import Tokenizer
from inpage_compile.tokenizers.wordpiece import read_wordpiece
from support.tiny_bert import SPECIAL, tokenizer
letters = "abοδσς丽丸."
whole = tokenizer()
whole["model"]["vocab"] = {t: i for i, t in enumerate(dict.fromkeys([*SPECIAL, *letters, *("##" + c for c in letters)]))}
texts = ["ΟΔΟΣ", "ΟΔΟΣ ΣΟΣ.", "οδος", "a\\U0002f800b", "\\U0002f801\\U0002f800", "a\\u4e3db"]
ids = [e.ids for e in Tokenizer.from_str(json.dumps(whole)).encode_batch(texts, add_special_tokens=False)]
ours, _ = read_wordpiece(whole, {}, 100)
same = [e.ids for e in Tokenizer.from_str(json.dumps(ours.json)).encode_batch(texts, add_special_tokens=False)]
print(json.dumps({"texts": texts, "ids": ids, "same": same, "json": ours.json}))`;
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  const { texts, ids, same, json } = JSON.parse(execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { env, encoding: "utf8" }));
  const { Tokenizer } = /** @type {any} */ (await import("@huggingface/tokenizers"));
  const page = new Tokenizer(json, {});
  expect(ids.flat()).not.toContain(1); // no word is unknown
  expect(same).toEqual(ids);
  expect(texts.map((/** @type {string} */ text) => page.encode(text, { add_special_tokens: false }).ids)).toEqual(ids);
});
