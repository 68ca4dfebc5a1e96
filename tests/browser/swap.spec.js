/**
 * @file KV pages of preempted requests in a file of the origin private file system: they come back bit for bit, what the
 * disk damaged is computed again, and no file outlives the router that made it.
 */

import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { newSwapFile } from "../../web/router/swap_file.js";
import { BASE, expect, MODEL, prompt, test, text } from "./support/router.js";
import { FaultServer } from "./support/server.js";

/** @typedef {import("@playwright/test").Page} Page */

/** Six pages of 16 tokens for conversations of 80, and no memory beside them. */
const KV = { memory_bytes: 6 * 256, prefix_bytes: 0, swap_bytes: 0 };
const CONVERSATIONS = [..."abcd"];

/** A tab with a router of its own. @param {import("@playwright/test").BrowserContext} context @param {string} origin @param {string} [model] @param {object} [kv] */
async function open(context, origin, model = MODEL, kv = KV) {
  const tab = await context.newPage();
  await tab.addInitScript(() => {
    const scope = /** @type {any} */ (globalThis);
    scope.routers = [];
    scope.Worker = class extends Worker {
      /** @param {string | URL} url @param {WorkerOptions} options */
      constructor(url, options) {
        super(url, options);
        if (String(url).includes("router/worker")) scope.routers.push(this);
      }
    };
  });
  await tab.goto(`${origin}/tests/browser/support/blank.html`);
  await tab.evaluate(async ([base, model, kv]) => {
    const { InPage } = await import(`${base}client/inpage.js`);
    const settings = { kv, scheduler: { timeout: null } };
    Object.assign(globalThis, { inpage: await InPage.start({ base, model, threads: 1, settings }) });
  }, /** @type {const} */ ([BASE, model, kv]));
  return tab;
}

/** All at once. `kill`: the router ends with the first piece of the last one. @param {Page} tab @param {boolean} [kill] @returns {Promise<string[]>} */
function ask(tab, kill = false) {
  return tab.evaluate(async ([contents, kill]) => {
    const { inpage, routers } = /** @type {any} */ (globalThis);
    const params = { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 } };
    return Promise.all(contents.map(async (content, i) => {
      let said = "";
      for await (const piece of inpage.chat(content, params)) {
        said += piece.text;
        if (kill && i === contents.length - 1) {
          kill = false;
          routers.at(-1).terminate();
        }
      }
      return said;
    }));
  }, /** @type {const} */ ([CONVERSATIONS, kill]));
}

/** @param {Page} tab @param {string} way @returns {Promise<number>} pages that went to the file, came back, or were damaged */
async function pages(tab, way) {
  const metrics = await tab.evaluate(() => /** @type {any} */ (globalThis).inpage.metrics());
  return Number(new RegExp(`^inpage_swapped_pages_total\\{.*tier="file",way="${way}"\\} (\\d+)$`, "m").exec(metrics)?.[1] ?? 0);
}

/** @param {Page} tab @returns {Promise<string[]>} */
function files(tab) {
  return tab.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-swap", { create: true });
    const names = [];
    for await (const name of /** @type {any} */ (folder).keys()) names.push(name);
    return names.sort();
  });
}

test("swapped pages come back from OPFS, damaged ones never; a killed router's file goes, a living tab's stays", async ({ context, origin, start: _, model }) => {
  const right = CONVERSATIONS.map((content) => text(model.greedy(prompt(content), 60)));

  const other = await open(context, origin);
  await other.workers().find((worker) => worker.url().endsWith("router/worker.js"))?.evaluate(() => {
    const { prototype } = /** @type {any} */ (globalThis).FileSystemSyncAccessHandle;
    const { read } = prototype;
    prototype.read = function (/** @type {Uint8Array} */ target, /** @type {object} */ how) {
      const count = read.call(this, target, how);
      target[count >> 1] ^= 1;
      return count;
    };
  });
  expect(await ask(other)).toEqual(right);
  expect(await pages(other, "loaded")).toBe(0);
  expect(await pages(other, "lost")).toBeGreaterThan(0);
  const [living] = await files(other);

  const tab = await open(context, origin);
  expect(await files(tab)).toEqual([living]);
  expect(await ask(tab)).toEqual(right);
  expect(await pages(tab, "loaded")).toBeGreaterThan(0);
  const killed = (await files(tab)).find((name) => name !== living);
  expect(killed).toBeDefined();
  expect(await ask(tab, true)).toEqual(right);
  expect(await files(tab)).not.toContain(killed);
  await tab.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  expect(await files(other)).toEqual([living]);
  expect(await ask(other)).toEqual(right);
  await other.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  expect(await files(other)).toEqual([]);
});

/** Twenty conversations of 400 tokens at once. @param {Page} tab @param {boolean} [kill] the router in their midst @returns {Promise<number[][]>} */
function converse(tab, kill = false) {
  return tab.evaluate(async (kill) => {
    const { inpage, routers } = /** @type {any} */ (globalThis);
    let said = 0;
    return Promise.all(Array.from({ length: 20 }, async (_, i) => {
      const asked = Array.from({ length: 24 }, (_, k) => 3 + ((i * 37 + k * 11) % 250));
      const ids = [];
      for await (const { token_ids } of inpage.complete(asked, { temperature: 0.8, seed: i, max_tokens: 376, logit_bias: { 0: -100, 2: -100 } })) {
        ids.push(...token_ids);
        said += token_ids.length;
        if (kill && said > 4000) {
          kill = false;
          routers.at(-1).terminate();
        }
      }
      return ids;
    }));
  }, kill);
}

/** @param {Page} tab @param {string} way @returns {Promise<number>} times that a conversation made room */
async function preempted(tab, way) {
  const metrics = await tab.evaluate(() => /** @type {any} */ (globalThis).inpage.metrics());
  return Number(new RegExp(`^inpage_preemptions_total\\{.*way="${way}"\\} (\\d+)$`, "m").exec(metrics)?.[1] ?? 0);
}

// It compiles a model of its own: the synthetic one's context is 128 tokens.
(process.env.INPAGE_SLOW ? test : test.skip)("twenty conversations of 400 tokens on 64 pages go on bit for bit, over a kill, and are computed again where storage is slow", async ({ context }) => {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const out = path.join(root, "build/tests/long");
  const script = path.join(root, "tests/browser/support/long_context.py");
  execFileSync(path.join(root, ".venv/bin/python"), [script, out], { stdio: "inherit", env: { ...process.env, PYTHONPATH: path.join(root, "tests") } });
  const mounts = { "/web/": path.join(root, "web"), "/web/inpage.zip": path.join(out, "inpage.zip"), "/tests/": path.join(root, "tests"), "/models/": out };
  const server = new FaultServer(mounts, { isolated: true });
  const origin = await server.start();
  const kv = { memory_bytes: 64 * 4096, prefix_bytes: 0, swap_bytes: 8 * 4096 };

  const roomy = await open(context, origin, "/models/long/", {});
  const right = await converse(roomy);
  expect(right.map((ids) => ids.length)).toEqual(right.map(() => 376));
  expect(await preempted(roomy, "dropped")).toBe(0);
  await roomy.close();

  const tab = await open(context, origin, "/models/long/", kv);
  expect(await converse(tab)).toEqual(right);
  const told = { saved: await pages(tab, "saved"), loaded: await pages(tab, "loaded"), dropped: await preempted(tab, "dropped") };
  expect(told.loaded).toBeGreaterThan(0);
  expect(await pages(tab, "lost")).toBe(0);
  expect(await converse(tab, true)).toEqual(right);
  await tab.close();

  const slow = await open(context, origin, "/models/long/", { ...kv, swap_bytes: 0 });
  await slow.workers().find((worker) => worker.url().endsWith("router/worker.js"))?.evaluate(() => {
    const { prototype } = /** @type {any} */ (globalThis).FileSystemSyncAccessHandle;
    const { write } = prototype;
    prototype.write = function (/** @type {Uint8Array} */ bytes, /** @type {object} */ how) {
      for (const end = performance.now() + 200; performance.now() < end; );
      return write.call(this, bytes, how);
    };
  });
  expect(await converse(slow)).toEqual(right);
  const [swapped, dropped] = [await preempted(slow, "swapped"), await preempted(slow, "dropped")];
  console.log(`OPFS: ${JSON.stringify(told)}; with 200 ms a page, ${swapped} swapped and ${dropped} computed again`);
  expect(swapped).toBeGreaterThan(0); // that was how it was measured
  expect(swapped).toBeLessThan(dropped / 4);
  await slow.close();
  await server.stop();
});

test("storage that falls silent refuses pages within its limit, and what opens late is closed and removed", async () => {
  const { navigator, setTimeout, clearTimeout } = globalThis;
  const locks = { request: async (/** @type {string} */ _, /** @type {object} */ __, /** @type {(lock: object) => unknown} */ held) => held({}) };
  /** @type {string[]} */
  const ends = [];
  let open = (/** @type {object} */ _) => {};
  const handle = { createSyncAccessHandle: () => new Promise((resolve) => (open = resolve)) };
  const folder = { getFileHandle: async () => handle, removeEntry: async () => void ends.push("removed"), async *values() {} };
  const storage = { getDirectory: async () => ({ getDirectoryHandle: async () => folder }) };
  Object.defineProperty(globalThis, "navigator", { value: { locks, storage }, configurable: true });
  /** @type {Map<number, () => void>} */
  const limits = new Map(); // the latest is of what is waited for
  let id = 0;
  Object.assign(globalThis, { setTimeout: (/** @type {() => void} */ end) => (limits.set(++id, end), id), clearTimeout: (/** @type {number} */ timer) => limits.delete(timer) });
  try {
    const put = newSwapFile().put([0], new Uint8Array(4), 4).catch((/** @type {any} */ error) => error.code);
    await new Promise((resolve) => setImmediate(resolve));
    for (const end of limits.values()) end();
    expect(await put).toBe("storage_full");
    expect(ends).toEqual([]);
    open({ close: () => ends.push("closed") });
    await new Promise((resolve) => setImmediate(resolve));
    expect(ends).toEqual(["closed", "removed"]);
    locks.request = async () => Promise.reject(new DOMException("denied", "SecurityError"));
    expect(await newSwapFile().put([0], new Uint8Array(4), 4).catch((/** @type {any} */ error) => error.code)).toBe("storage_full");
  } finally {
    Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
    Object.assign(globalThis, { setTimeout, clearTimeout });
  }
});
