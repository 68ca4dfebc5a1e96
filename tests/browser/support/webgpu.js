/** @file Chromium with WebGPU: on a machine without a GPU, on the software adapter that it brings (SwiftShader). */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";

import config from "../../../playwright.config.js";

const { launchOptions } = /** @type {{launchOptions: import("@playwright/test").LaunchOptions}} */ (config.use);

/** For `test.use`. */
export const WITH_WEBGPU = {
  launchOptions: { ...launchOptions, args: [...(launchOptions.args ?? []), "--enable-unsafe-webgpu"] },
};

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
