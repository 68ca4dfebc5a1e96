/**
 * @file SmolLM2 as a graph (its dequantized weights in float32) beside our own engine, from one artifact: INPAGE_SLOW=1, and
 * INPAGE_ONNX names the folder that `python -m inpage_bench.peers.onnx_model MODEL.gguf fp32 FOLDER` wrote. Both say what
 * PyTorch does where that is sure; how fast the graph decodes through the router, and driven by hand, is reported as an annotation.
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { expect, test } from "./support/router.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDER = process.env.INPAGE_ONNX ?? "";
const REFERENCE = JSON.parse(readFileSync(path.join(ROOT, "tests/reference/smollm2-135m-instruct.json"), "utf8"));
const MARGIN = 0.5;
const PAIRS = 10;
const TOKENS = 24;

test.skip(!process.env.INPAGE_SLOW || !FOLDER, "INPAGE_SLOW=1 and INPAGE_ONNX");
test.setTimeout(1_800_000);

/** @returns {string} the artifact's folder */
function compiled() {
  const out = path.join(ROOT, "build/tests/smollm2-both");
  const command = ["compile", "smollm2-135m-instruct", "--variants", "wasm-relaxed", "--onnx", FOLDER, "--out", out];
  execFileSync(path.join(ROOT, ".venv/bin/inpage"), command, { stdio: "inherit" });
  execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", "from inpage.cli import vendor; vendor.ensure_one('onnxruntime-web')"]);
  return out;
}

test("the graph and our engine say what PyTorch says, and the router costs the graph next to nothing", async ({ page, server, start }, info) => {
  server.mount("/both/", compiled());
  server.mount("/graph/", path.join(FOLDER, "onnx"));
  const { ids, greedy_f32: greedy, margin } = REFERENCE.prompts.p32;
  for (const variant of ["wasm-relaxed", "onnx-wasm"]) {
    await start({ model: "/both/", backend: variant, threads: 2 });
    const said = await page.evaluate(
      async ([ids, greedy]) => {
        const { inpage } = /** @type {any} */ (globalThis);
        const found = [];
        // Each choice stands behind what PyTorch wrote: one token at a time.
        for (let i = 0; i < greedy.length; i += 4) {
          for await (const piece of inpage.complete([...ids, ...greedy.slice(0, i)], { temperature: 0, max_tokens: 1 })) found.push([i, ...piece.token_ids]);
        }
        return found.filter((each) => each.length > 1);
      },
      /** @type {const} */ ([ids, greedy]),
    );
    const sure = said.filter(([i]) => margin[i] >= MARGIN);
    expect(sure.length).toBeGreaterThan(20);
    expect(sure.map(([i, token]) => [i, token])).toEqual(sure.map(([i]) => [i, greedy[i]]));
    if (variant === "wasm-relaxed") await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  }
  const rates = await page.evaluate(
    async ([ids, pairs, tokens]) => {
      const { inpage } = /** @type {any} */ (globalThis);
      const hand = new Worker("/tests/browser/support/onnx_hand.js", { type: "module" });
      const told = (/** @type {unknown} */ message) =>
        new Promise((resolve) => {
          hand.onmessage = ({ data }) => resolve(data);
          hand.postMessage(message);
        });
      await told({ load: { model: "/graph/model.onnx", threads: 2, layers: 30, heads: 3, dim: 64 } });
      const ours = async () => {
        const at = [];
        for await (const piece of inpage.complete(ids, { temperature: 0, max_tokens: tokens })) at.push(...piece.token_ids.map(() => performance.now()));
        return (at.length - 1) / (at[at.length - 1] - at[0]);
      };
      const theirs = () => told({ ids, tokens });
      await ours();
      await theirs();
      const found = [];
      for (let i = 0; i < pairs; i++) found.push(i % 2 ? [await theirs(), await ours()].reverse() : [await ours(), await theirs()]);
      return found;
    },
    /** @type {const} */ ([ids, PAIRS, TOKENS]),
  );
  const ratios = rates.map(([ours, theirs]) => ours / theirs).sort((a, b) => a - b);
  const description = `median ratio ${ratios[PAIRS / 2].toFixed(3)} of ${PAIRS} pairs (${ratios[0].toFixed(3)} to ${ratios[PAIRS - 1].toFixed(3)}); tokens/s ${rates.map(([a, b]) => `${(1000 * a).toFixed(1)}/${(1000 * b).toFixed(1)}`).join(" ")}`;
  info.annotations.push({ type: "decode, router to hand", description });
  console.log(description);
});
