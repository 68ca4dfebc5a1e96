/** @file An artifact with several precisions in the page: the best that fits the budget is loaded, and no other fetched. */

import { expect, test } from "@playwright/test";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { FaultServer } from "./support/server.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OUT = path.join(ROOT, "build/tests/levels");

/** @param {string} file @returns {any} */
function manifest(file) {
  return JSON.parse(readFileSync(path.join(OUT, file), "utf8"));
}

// The choice is native's too (tests/compile/test_levels.py); this compiles an artifact of its own.
(process.env.INPAGE_SLOW ? test : test.skip)("the budget chooses a level, and only its shards are fetched", async ({ page }) => {
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  execFileSync(path.join(ROOT, ".venv/bin/python"), [path.join(ROOT, "tests/browser/support/levels.py"), OUT], { stdio: "inherit", env });
  const mounts = { "/web/": path.join(ROOT, "web"), "/web/inpage.zip": path.join(OUT, "inpage.zip"), "/tests/": path.join(ROOT, "tests"), "/models/": OUT };
  const server = new FaultServer(mounts, { isolated: true });
  await page.goto(`${await server.start()}/tests/browser/support/blank.html`);
  /** @param {string} model @param {number | null} target_memory @param {number} least_context */
  const ask = async (model, target_memory, least_context = 256) => {
    server.clear();
    const asked = await page.evaluate(
      async ([model, settings]) => {
        const { InPage } = await import(new URL("/web/client/inpage.js", location.href).href);
        try {
          const inpage = await InPage.start({ base: "/web/", model, threads: 1, settings: { models: settings } });
          const ids = [];
          const params = { max_tokens: 24, temperature: 0, logit_bias: { 2: -100 } };
          for await (const piece of inpage.complete("hello world", params)) ids.push(...piece.token_ids);
          const [{ level, lesser }] = await inpage.loaded();
          const [report, told] = [await inpage.report(), await inpage.explain()];
          await inpage.unload();
          return { ids, level, lesser, report, told };
        } catch (error) {
          const { code, field, message } = /** @type {any} */ (error);
          return { code, field, message };
        }
      },
      /** @type {const} */ ([model, { target_memory, least_context }]),
    );
    const shards = server.log.map((entry) => entry.path.split("/weights/")).filter((parts) => parts.length === 2).map(([, name]) => `weights/${name}`);
    return { ...asked, shards: shards.sort() };
  };
  const best = manifest("several/manifest.json");
  /** What a level takes with room for one context. @param {any} level */
  const need = ({ weights, variants: [{ plan }] }) => {
    const { arenas, page_tokens, buffers } = manifest(`several/${plan.file}`);
    const { page_bytes } = buffers.find((/** @type {any} */ { kind }) => kind === "kv");
    return weights.bytes + arenas.reduce((/** @type {number} */ sum, /** @type {number} */ bytes) => sum + bytes, 0) + (256 / page_tokens) * page_bytes;
  };
  const levels = best.levels.map((/** @type {any} */ { manifest: other }) => (other ? manifest(`several/${other.file}`) : best));
  expect(levels.map((/** @type {any} */ { level }) => level)).toEqual(["q8_0", "q6_k", "q4_k_m", "q2_k"]);
  const single = await ask("/models/single/", null);
  const held = new Set();
  for (const [i, one] of [...levels.entries()].reverse()) {
    const asked = await ask("/models/several/", i ? need(levels[i - 1]) - 1 : need(one));
    const own = one.weights.shards.map((/** @type {any} */ { file }) => file).sort();
    expect(asked).toMatchObject({ level: one.level, shards: own.filter((/** @type {string} */ file) => !held.has(file)) });
    expect(asked.lesser).toMatch(i ? new RegExp(`^${one.level} in place of q8_0: that needs \\d`) : /^$/);
    if (i) expect(asked.report).toContain(`level: ${asked.lesser}\n`);
    expect(asked.report).toContain(`at level ${one.level}, revision`);
    if (i === levels.length - 1) expect(asked.ids).toEqual(single.ids);
    else expect(asked.ids).not.toEqual(single.ids);
    for (const file of own) held.add(file);
  }
  const named = await ask("/models/several/#q2_k", null);
  expect(named).toMatchObject({ ids: single.ids, shards: [] });
  const refused = await ask("/models/several/", 1000);
  expect(refused).toMatchObject({ code: "out_of_memory", field: "models.target_memory", shards: [] });
  expect(refused.message).toMatch(/smallest of its 4 levels \(q8_0 \d.*, q6_k \d.*, q4_k_m \d.*, q2_k \d/);
  await server.stop();
});
