/** @file Chromium with WebGPU: on a machine without a GPU, on the software adapter that it brings (SwiftShader). */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";

import config from "../../../playwright.config.js";
import { ARTIFACT, call, test as base } from "./fixtures.js";
import { ROOT } from "./real.js";
import { FaultServer } from "./server.js";

export { expect } from "@playwright/test";

const { launchOptions } = /** @type {{launchOptions: import("@playwright/test").LaunchOptions}} */ (config.use);

/** For `test.use`. */
export const WITH_WEBGPU = {
  launchOptions: { ...launchOptions, args: [...(launchOptions.args ?? []), "--enable-unsafe-webgpu"] },
};

/**
 * Load the synthetic model's WebGPU variant.
 * @param {import("@playwright/test").Page} lab
 * @param {object} [options]
 * @param {number} [pages] of KV to reserve
 */
export async function loaded(lab, options = {}, pages = 32) {
  const { value, error } = await call(lab, "load", { base: ARTIFACT, variant: "webgpu-f32", ...options });
  base.expect(error).toBeUndefined();
  await call(lab, "reservePages", pages);
  return value;
}

/**
 * A page with the model loaded, for all tests of a file.
 * @param {import("@playwright/test").Browser} browser
 * @param {string} artifact folder
 * @param {object} options
 */
async function open(browser, artifact, options) {
  const support = "/tests/browser/support/";
  const mounts = { "/web/": path.join(ROOT, "web"), [support]: path.join(ROOT, support), [`${ARTIFACT}/`]: artifact };
  const server = new FaultServer(mounts, { isolated: true });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${await server.start()}${support}page.html`);
  await page.waitForFunction(() => "lab" in globalThis);
  await loaded(page, options);
  const close = async () => {
    await context.close();
    await server.stop();
  };
  return { page, close };
}

/** @typedef {{browser: import("@playwright/test").Browser, artifact: string}} Needs */
/** @typedef {(page: import("@playwright/test").Page) => Promise<void>} Use */
/** @typedef {{atOnce: import("@playwright/test").Page, sliced: import("@playwright/test").Page}} Shared */

/**
 * `atOnce`: a burst is one slice however slow the machine, once one was run; `sliced`: every step is one.
 */
export const test = base.extend(
  /** @type {import("@playwright/test").Fixtures<{}, Shared, {}, Needs>} */ ({
    atOnce: [
      /** @param {Needs} needs @param {Use} use */
      async ({ browser, artifact }, use) => {
        const { page, close } = await open(browser, artifact, { sliceMs: 1e9 });
        await use(page);
        await close();
      },
      { scope: "worker" },
    ],
    sliced: [
      /** @param {Needs} needs @param {Use} use */
      async ({ browser, artifact }, use) => {
        const { page, close } = await open(browser, artifact, { sliceMs: 0 });
        await use(page);
        await close();
      },
      { scope: "worker" },
    ],
  }),
);

/**
 * A WebGPU plan of the synthetic model that was changed, and a manifest that agrees with it.
 * @param {string} artifact folder
 * @param {(plan: any) => void} change
 */
export function changedPlan(artifact, change) {
  const plan = JSON.parse(readFileSync(path.join(artifact, "webgpu-f32/plan.json"), "utf8"));
  const manifest = JSON.parse(readFileSync(path.join(artifact, "manifest-webgpu.json"), "utf8"));
  change(plan);
  const body = Buffer.from(JSON.stringify(plan));
  const variant = manifest.variants.find((/** @type {any} */ each) => each.name === "webgpu-f32");
  Object.assign(variant.plan, { bytes: body.length, sha256: createHash("sha256").update(body).digest("hex") });
  return { plan: body, manifest };
}

/**
 * Let engines that load from a server have kernels that choose tokens and do nothing: the software adapter compiles the
 * right ones for five seconds a load.
 * @param {FaultServer} server
 * @param {string[]} [but] these
 */
export function withoutChoices(server, but = []) {
  for (const file of ["engine/webgpu/sampling.wgsl", "engine/webgpu/choosing.wgsl"]) {
    const code = readFileSync(path.join(ROOT, "web", file), "utf8");
    const body = code.replace(/^(@compute .*\nfn (\w+).*\n)[^]*?(?=^\}$)/gm, (whole, head, name) => (but.includes(name) ? whole : head));
    server.fault(`/web/${file}`, { body: Buffer.from(body), always: true });
  }
}

/**
 * The most that JavaScript held, array buffers included, in any worker of a page while something was done, as sampled.
 * @param {import("@playwright/test").Page} page
 * @param {() => Promise<unknown>} act
 */
export async function heapPeak(page, act) {
  const session = await page.context().newCDPSession(page);
  /** @type {Set<string>} */
  const workers = new Set();
  const peak = { bytes: 0, samples: 0 };
  session.on("Target.attachedToTarget", ({ sessionId }) => workers.add(sessionId));
  session.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { usedSize = 0, backingStorageSize = 0 } = JSON.parse(message).result ?? {};
    peak.bytes = Math.max(peak.bytes, usedSize + backingStorageSize);
    if (usedSize > 0) peak.samples++;
  });
  await session.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  let id = 0;
  const ask = () => {
    for (const sessionId of workers) {
      const message = JSON.stringify({ id: ++id, method: "Runtime.getHeapUsage" });
      session.send("Target.sendMessageToTarget", { sessionId, message }).catch(() => workers.delete(sessionId));
    }
  };
  const timer = setInterval(ask, 25);
  try {
    await act();
  } finally {
    clearInterval(timer);
    await session.detach();
  }
  return peak;
}
