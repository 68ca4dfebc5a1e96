/**
 * @file Answers held to a grammar on WebGPU, on the software adapter: the likeliest token that may come, also after the
 * device was lost; logprobs are those of the model's logits, and one beside it is what it is alone. Penalties as well.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { expect, greedy, test } from "./support/failing.js";
import { expectPenalties } from "./support/penalties.js";
import { ids, MODEL, prompt, text } from "./support/router.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

test.use(WITH_WEBGPU);

test("the likeliest that may come, device lost or not; one beside it does not change", async ({ page, start, killer, ask, server, artifact, whole, model }) => {
  server.fault(`${MODEL}manifest.json`, { body: readFileSync(path.join(whole, "manifest-webgpu.json")), always: true });
  expect((await start({ backend: "webgpu" })).variant).toBe("webgpu-f32");
  const held = { regex: "[a-f]{6}[0-9]{2}", logprobs: 3, logit_bias: {} };
  /** @type {number[]} */
  const expected = [];
  for (let i = 0; i < 8; i++) {
    const logits = model.logits([...prompt("hello"), ...expected]);
    expected.push(ids(i < 6 ? "abcdef" : "0123456789").reduce((best, id) => (logits[id] > logits[best] ? id : best)));
  }
  const [answer, beside] = await Promise.all([ask("chat", "hello", held), ask("chat", "a b c", { max_tokens: 20 })]);
  expect(answer.text).toBe(text(expected));
  expect(answer.ids).toEqual([...expected, 2]);
  expect(answer.completion.finish_reason).toBe("stop");
  expect(beside.ids).toEqual(greedy(model, "a b c", 20));

  expect(answer.completion.logprobs).toHaveLength(9);
  for (const [i, { token, logprob, top }] of answer.completion.logprobs.entries()) {
    const logits = Array.from(model.logits([...prompt("hello"), ...answer.ids.slice(0, i)]));
    const sum = Math.log(logits.reduce((total, each) => total + Math.exp(each), 0));
    expect(logprob).toBeCloseTo(logits[token] - sum, 4);
    const best = logits.map((_, id) => id).sort((a, b) => logits[b] - logits[a]).slice(0, 3);
    expect(top).toEqual(best.map((id) => [id, expect.closeTo(logits[id] - sum, 4)]));
  }

  await expectPenalties(page, artifact);
  await killer.engines([{ device: 1 }]); // under the burst that follows the prompt
  const after = await ask("chat", "hello", held);
  expect(after).not.toHaveProperty("code");
  expect(after.failovers).toHaveLength(1);
  expect(after.ids).toEqual(answer.ids);
});
