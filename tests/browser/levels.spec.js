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
  /** @param {string} model @param {number | null} target_memory @param {number} least_context @param {number} lower another budget, in mid-answer */
  const ask = async (model, target_memory, least_context = 256, lower = 0) => {
    server.clear();
    const asked = await page.evaluate(
      async ([model, settings, lower]) => {
        const { InPage } = await import(new URL("/web/client/inpage.js", location.href).href);
        try {
          const inpage = await InPage.start({ base: "/web/", model, threads: 1, settings: { models: settings } });
          const params = { max_tokens: lower ? 200 : 24, temperature: 0, logit_bias: { 2: -100 } };
          /** @type {Promise<string> | null} what a budget beneath the lowest level is refused with */
          let lowering = null;
          const lowered = async () => {
            await inpage.setTargetMemory(lower);
            return inpage.setTargetMemory(1000).then(String, (/** @type {any} */ error) => error.message);
          };
          // Sixteen at once take longer than the messages between.
          const answers = await Promise.all(Array.from({ length: lower ? 16 : 1 }, async () => {
            const ids = [];
            let before = 0; // tokens of the first level
            for await (const piece of inpage.complete("hello world", params)) {
              if (piece.failovers?.length) before = ids.length;
              ids.push(...piece.token_ids);
              if (lower) lowering ??= lowered();
            }
            return { ids, before };
          }));
          const { ids, before } = answers.find((one) => one.before) ?? answers[0];
          const refused = await lowering;
          const [{ level, lesser }] = await inpage.loaded();
          const [report, told] = [await inpage.report(), await inpage.explain()];
          await inpage.unload();
          return { ids, level, lesser, report, told, refused, before };
        } catch (error) {
          const { code, field, message } = /** @type {any} */ (error);
          return { code, field, message };
        }
      },
      /** @type {const} */ ([model, { target_memory, least_context }, lower]),
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
  const shardsOf = (/** @type {any} */ level) => level.weights.shards.map((/** @type {any} */ { file }) => file);
  const stepped = await ask("/models/several/", need(best), 256, need(best) - 1);
  expect(stepped).toMatchObject({ level: "q6_k", shards: [...new Set([...shardsOf(levels[0]), ...shardsOf(levels[1])])].sort() });
  expect(stepped.refused).toMatch(/^several needs \d.* smallest of its 4 levels \(q8_0 \d.*, q2_k \d/);
  expect(stepped.before).toBeGreaterThan(0);
  expect(stepped.ids?.length).toBe(200);
  await page.evaluate(async () => (await import(new URL("/web/client/inpage.js", location.href).href)).InPage.storage.delete());

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
    if (i === 0) expect(stepped.ids?.slice(0, Math.min(stepped.before, 24))).toEqual(asked.ids?.slice(0, stepped.before));
    for (const file of own) held.add(file);
  }
  const named = await ask("/models/several/#q2_k", null);
  expect(named).toMatchObject({ ids: single.ids, shards: [] });
  const refused = await ask("/models/several/", 1000);
  expect(refused).toMatchObject({ code: "out_of_memory", field: "models.target_memory", shards: [] });
  expect(refused.message).toMatch(/smallest of its 4 levels \(q8_0 \d.*, q6_k \d.*, q4_k_m \d.*, q2_k \d/);
  await server.stop();
});
