/** @file ONNX Runtime's WebGPU provider, on a software adapter: a few tokens, keys and values staying on the GPU. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";

import { ROOT } from "./support/real.js";
import { expect, test } from "./support/router.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

const WITNESS = JSON.parse(readFileSync(path.join(ROOT, "tests/reference/onnx/onnx.json"), "utf8"));

test.use(WITH_WEBGPU);
test.skip(!process.env.INPAGE_SLOW, "INPAGE_SLOW=1");

test("it answers as ONNX Runtime does elsewhere", async ({ page, server, start }) => {
  const script = "from inpage.cli import vendor; from support import onnx_folder; vendor.ensure_one('onnxruntime-web'); print(onnx_folder.onnx_artifact())";
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  const told = execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { env, encoding: "utf8" });
  server.mount("/onnx/", told.trim().split("\n").at(-1) ?? "");
  const [, prompt] = WITNESS.fp32;
  await start({ model: "/onnx/", backend: "onnx-webgpu" });
  const found = await page.evaluate(async (ids) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const tokens = [];
    for await (const piece of inpage.complete(ids, { temperature: 0, max_tokens: 8 })) tokens.push(...piece.token_ids);
    await inpage.unload();
    return tokens;
  }, prompt.ids);
  expect(found).toEqual(prompt.greedy.slice(0, 8));
  const { error } = await start({ model: "/onnx/#q4f16", backend: "onnx-webgpu" });
  expect(error).toMatchObject({ code: "unsupported", message: expect.stringContaining("shader-f16") }); // which no software adapter has
});
