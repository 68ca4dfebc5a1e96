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
  /** @param {string} file */
  const shards = (file) => manifest(file).weights.shards.map((/** @type {any} */ shard) => shard.file).sort();
  const plan = (/** @type {any} */ { variants: [{ plan }] }, /** @type {string} */ folder) => manifest(`${folder}/${plan.file}`);
  const best = manifest("several/manifest.json");
  // What the best takes with room for one context, less a byte.
  const { arenas, page_tokens } = plan(best, "several");
  const page_bytes = plan(best, "several").buffers.find((/** @type {any} */ { kind }) => kind === "kv").page_bytes;
  const need = best.weights.bytes + arenas.reduce((/** @type {number} */ sum, /** @type {number} */ bytes) => sum + bytes, 0) + (256 / page_tokens) * page_bytes;

  const stepped = await ask("/models/several/", need, 256, need - 1);
  expect(stepped).toMatchObject({ level: "q4_1", shards: [...new Set([...shards("several/manifest.json"), ...shards("several/q4_1/manifest.json")])].sort() });
  expect(stepped.refused).toMatch(/^several needs \d.* smallest of its 2 levels \(q8_0 \d.*, q4_1 \d/);
  expect(stepped.before).toBeGreaterThan(0);
  expect(stepped.ids?.length).toBe(200);
  await page.evaluate(async () => (await import(new URL("/web/client/inpage.js", location.href).href)).InPage.storage.delete());

  const single = await ask("/models/single/", null);
  const small = await ask("/models/several/#q4_1", null);
  expect(small.ids).toEqual(single.ids);
  expect(small.shards).toEqual(shards("several/q4_1/manifest.json"));
  const whole = await ask("/models/several/", need);
  const own = (/** @type {string} */ file) => !small.shards.includes(file);
  expect(whole).toMatchObject({ level: "q8_0", lesser: "", shards: shards("several/manifest.json").filter(own) }); // the shared one is there
  expect(whole.shards.length).toBeLessThan(best.weights.shards.length);
  expect(whole.ids).not.toEqual(single.ids);
  const lesser = await ask("/models/several/", need - 1);
  expect(lesser).toMatchObject({ ids: single.ids, level: "q4_1", shards: [] });
  expect(lesser.lesser).toMatch(/^q4_1 in place of q8_0: that needs \d/);
  expect(lesser.report).toContain(`level: ${lesser.lesser}\n`);
  expect(lesser.report).toContain("at level q4_1, revision");
  expect(stepped.ids?.slice(0, stepped.before)).toEqual(whole.ids?.slice(0, stepped.before));
  const refused = await ask("/models/several/", 1000);
  expect(refused).toMatchObject({ code: "out_of_memory", field: "models.target_memory", shards: [] });
  expect(refused.message).toMatch(/smallest of its 2 levels \(q8_0 \d.*, q4_1 \d/);
  await server.stop();
});
