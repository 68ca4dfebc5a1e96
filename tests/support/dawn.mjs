/** @file The engine on a Vulkan adapter in Node, through Dawn (npm's webgpu): what Chromium's adapters on a test machine lack. */

import { readFileSync } from "node:fs";
import path from "node:path";
import { create, globals } from "webgpu";

import { loadEngine } from "../../web/engine/load.js";
import { FaultServer } from "../browser/support/server.js";

const PAGES = 64;

/**
 * The globals that the engine looks for, and a server of a model's folder. Ends the process with 2 where there is no adapter.
 * @param {string} model an artifact's folder
 */
export async function dawn(model) {
  const gpu = create(["backend=vulkan", "enable-dawn-features=allow_unsafe_apis"]);
  const server = new FaultServer({ "/model/": path.resolve(model) }, { isolated: false });
  const origin = await server.start();
  Object.assign(globalThis, globals, { gpu, location: { href: `${origin}/` } }); // collected while devices live, it takes the process with it
  Object.defineProperty(globalThis, "navigator", { value: { gpu, hardwareConcurrency: 1, userAgent: "Node" }, configurable: true });
  // The sampler's WGSL lies beside its module, which Node does not fetch.
  const { fetch } = globalThis;
  globalThis.fetch = (url, ...more) => (String(url).startsWith("file:") ? Promise.resolve(new Response(readFileSync(new URL(url)))) : fetch(url, ...more));
  const adapter = await gpu.requestAdapter();
  if (!adapter) {
    console.error("no Vulkan adapter: install mesa-vulkan-drivers 24 or newer");
    process.exit(2);
  }
  console.log(`${adapter.info.description}; shader-f16 ${adapter.features.has("shader-f16")}`);
  const close = async () => {
    globalThis.fetch = fetch;
    await server.stop();
  };
  return { base: `${origin}/model`, close };
}

/** @param {string} model an artifact's folder @param {string} variant @param {object} [options] of the load */
export async function dawnEngine(model, variant, options) {
  const { base, close } = await dawn(model);
  const manifest = JSON.parse(readFileSync(path.join(model, "manifest.json"), "utf8"));
  const { executor, info } = await loadEngine(
    { base, manifest, variant, cache: false, contextPages: PAGES, ...options }, () => new MessageChannel().port1, new AbortController().signal, () => undefined,
  );
  await executor.reservePages(PAGES);
  const blockTables = Int32Array.from({ length: info.blocks_per_sequence }, (_, i) => (i < PAGES ? i : -1));

  /** Rows of the first sequence. @param {number[]} ids @param {number} from @param {object} more what is wanted of the rows from `from` on */
  const feed = (ids, from, more) =>
    executor.step({ tokenIds: Int32Array.from(ids), positions: Int32Array.from(ids, (_, i) => i + from), rowSequence: new Int32Array(ids.length), blockTables, ...more });
  return { info, manifest, feed, close };
}
