/**
 * @file Is each fusion of a decoding step worth it? Times the product's kernels against the same work in a dispatch for
 * each part (gpu_fusion.py), in Chromium on the adapter that it has, or with `node` on a Vulkan adapter through Dawn.
 * Not part of `make test`; exits with 1 where the two do not leave the same:
 *
 *     node tests/support/gpu_fusion.mjs chromium
 *     npm install --no-save webgpu && node tests/support/gpu_fusion.mjs node
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { timeFusion } from "../browser/support/gpu_fusion.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, "build/tests/fusion");
const [where, rounds = "15", only = ""] = process.argv.slice(2);
const MUCH = { rounds: Number(rounds), ms: 20, only };
/** The largest difference, of the largest value, that the order of roundings may make. */
const SAME = 1e-5;

async function inNode() {
  const { create, globals } = await import("webgpu");
  const gpu = create(["backend=vulkan"]);
  Object.assign(globalThis, globals, { gpu }); // collected while devices live, it takes the process with it
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("no Vulkan adapter: install mesa-vulkan-drivers");
  console.log(adapter.info.description);
  const [pairs, data, wgsl] = ["json", "bin", "wgsl"].map((end) => readFileSync(path.join(OUT, `fusion.${end}`)));
  return timeFusion(adapter, JSON.parse(String(pairs)), new Uint8Array(data).buffer, String(wgsl), MUCH);
}

async function inChromium() {
  const { chromium } = await import("@playwright/test");
  const { WITH_WEBGPU } = await import("../browser/support/webgpu.js");
  const { FaultServer } = await import("../browser/support/server.js");
  const server = new FaultServer({ "/tests/": path.join(ROOT, "tests"), "/fusion/": OUT }, { isolated: true });
  const browser = await chromium.launch({ headless: true, ...WITH_WEBGPU.launchOptions });
  try {
    const page = await browser.newPage();
    await page.goto(`${await server.start()}/tests/browser/support/blank.html`);
    return await page.evaluate(async (much) => {
      const { timeFusion } = await import(String("/tests/browser/support/gpu_fusion.js"));
      const adapter = await navigator.gpu.requestAdapter();
      const [pairs, data, wgsl] = await Promise.all(["json", "bin", "wgsl"].map((end) => fetch(`/fusion/fusion.${end}`)));
      return timeFusion(adapter, await pairs.json(), await data.arrayBuffer(), await wgsl.text(), much);
    }, MUCH);
  } finally {
    await browser.close();
    await server.stop();
  }
}

const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
execFileSync(path.join(ROOT, ".venv/bin/python"), [path.join(ROOT, "tests/browser/support/gpu_fusion.py"), OUT], { stdio: "inherit", env });
/** @type {import("../browser/support/gpu_fusion.js").Timed[]} */
const timed = await (where === "node" ? inNode() : inChromium());
console.log("rows  context  dispatches  apart/fused (quartiles)  µs fused  differ");
for (const { name, rows, context, dispatches, off, fusedUs, ratio, quartiles } of timed) {
  const cells = [String(rows).padStart(4), String(context).padStart(8), dispatches.join(" / ").padStart(11)];
  cells.push(`${ratio.toFixed(3)} (${quartiles.map((each) => each.toFixed(3)).join("–")})`.padStart(24), fusedUs.toFixed(1).padStart(9));
  console.log(`${cells.join(" ")}  ${off.toExponential(1)}  ${name}`);
}
process.exit(timed.every(({ off }) => off <= SAME) ? 0 : 1);
