/**
 * @file What browser storage gives back is the file, or counts as absent: every fault in both stores, of shards, plan,
 * kernels and records. The answer is right at once, what was damaged is fetched again, and the next visit finds it whole.
 */

import { BYTES, damage, MORE, RECORDS } from "./support/damage.js";
import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";

test.use({ together: true });

/** @param {any} lab @param {any} model @param {object} [options] */
async function load(lab, model, options = {}) {
  const { value, error } = await call(lab, "load", { base: ARTIFACT, ...options });
  expect(error).toBeUndefined();
  await right(lab, model);
  return value;
}

/** @param {any} lab @param {any} model */
async function right(lab, model) {
  await call(lab, "reservePages", 8);
  const { value: result } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(result.logits).toEqual(model.logits([3, 1, 4]));
}

/** @param {any} server @returns {string[]} files of the model that were asked for */
const downloads = (server) => server.log.map((/** @type {any} */ entry) => entry.path).filter((/** @type {string} */ path) => /\.(bin|wasm)$|plan\.json/.test(path));

/**
 * The first, or with INPAGE_SLOW=1 all of them.
 * @template T
 * @param {readonly T[]} faults
 */
const some = (faults) => (process.env.INPAGE_SLOW ? faults : faults.slice(0, 1));

/** Each store and each kind of file once, or with INPAGE_SLOW=1 every pair. */
const ROLES = process.env.INPAGE_SLOW ? { opfs: ["shard", "plan", "kernels"], idb: ["shard", "plan", "kernels"] } : { opfs: ["shard", "plan"], idb: ["kernels"] };

for (const cache of /** @type {const} */ (["opfs", "idb"])) {
  for (const role of ROLES[cache]) {
    test(`a damaged ${role} in ${cache} is fetched again, and nothing of it is used`, async ({ lab, model, server, manifest }) => {
      const variant = manifest.variants.find((/** @type {any} */ each) => each.name === "wasm-simd");
      // The table, which every logit depends on, straddles the last two shards.
      const file = role === "shard" ? manifest.weights.shards[3] : variant[role];
      await load(lab, model, { cache });
      for (const fault of [...some(BYTES), ...some(MORE[cache])]) {
        await test.step(fault, async () => {
          await damage(lab, cache, file, fault);
          server.clear();
          await load(lab, model, { cache });
          expect(downloads(server)).toEqual([`${ARTIFACT}/${file.file}`]);
          server.clear();
          expect(await load(lab, model, { cache })).toMatchObject({ storage: cache, warnings: [], cached_bytes: manifest.weights.bytes });
          expect(downloads(server)).toEqual([]);
        });
      }
      for (const fault of some(RECORDS[cache])) {
        await test.step(`record: ${fault}`, async () => {
          await damage(lab, cache, file, fault, true);
          server.clear();
          const { warnings } = await load(lab, model, { cache });
          expect(warnings.map((/** @type {any} */ { code }) => code)).toEqual(fault === "sum" ? ["artifact_damaged"] : []);
          // A whole file without a good record is hashed where it lies; IndexedDB has none without one.
          if (cache === "opfs" && fault !== "sum") expect(downloads(server)).toEqual([]);
          server.clear();
          expect(await load(lab, model, { cache })).toMatchObject({ storage: cache, warnings: [], cached_bytes: manifest.weights.bytes });
          expect(downloads(server)).toEqual([]);
        });
      }
    });
  }
}

test("without WebCrypto (plain http) what is stored is checked all the same", async ({ playwright, launchOptions, server, origin, model, manifest }) => {
  const args = [...(launchOptions.args ?? []), "--host-resolver-rules=MAP plain.example 127.0.0.1"];
  const browser = await playwright.chromium.launch({ ...launchOptions, args });
  try {
    const page = await browser.newPage();
    await page.goto(`${origin.replace("127.0.0.1", "plain.example")}/tests/browser/support/page.html`);
    await page.waitForFunction(() => "lab" in globalThis);
    expect(await page.evaluate(() => "subtle" in crypto)).toBe(false);
    await load(page, model);
    const [plan] = manifest.variants.map((/** @type {any} */ variant) => variant.plan);
    for (const file of [manifest.weights.shards[3], plan]) await damage(page, "idb", file, "flip");
    server.clear();
    await load(page, model);
    expect(downloads(server)).toHaveLength(2);
  } finally {
    await browser.close();
  }
});
