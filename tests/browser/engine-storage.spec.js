/** @file Browser storage: OPFS and IndexedDB, what is trusted, resuming, a full disk, two tabs at once. */

import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";

test.use({ together: true });

const FIRST = `${ARTIFACT}/weights/00000.bin`;

/** @param {any} lab @param {any} model @param {object} [options] */
async function load(lab, model, options = {}) {
  const { value, error } = await call(lab, "load", { base: ARTIFACT, ...options });
  expect(error).toBeUndefined();
  await call(lab, "reservePages", 8);
  const { value: result } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(result.logits).toEqual(model.logits([3, 1, 4]));
  return value;
}

/** @param {any} server */
const downloads = (server) => server.log.filter((/** @type {any} */ entry) => /\.(bin|wasm)$|plan\.json/.test(entry.path));

for (const cache of /** @type {const} */ (["opfs", "idb"])) {
  test(`the second load comes from ${cache} alone`, async ({ lab, model, server, manifest }) => {
    const cold = await load(lab, model, { cache });
    expect(cold).toMatchObject({ storage: cache, cached_bytes: 0, warnings: [] });
    expect(downloads(server)).toHaveLength(7);
    server.clear();
    await lab.reload();
    await lab.waitForFunction(() => "lab" in globalThis);
    const warm = await load(lab, model, { cache });
    expect(warm).toMatchObject({ storage: cache, cached_bytes: manifest.weights.bytes });
    expect(downloads(server)).toEqual([]);
    expect((await call(lab, "events")).at(-1).fromCache).toBe(true);
  });
}

test("storage can be left alone", async ({ lab, model }) => {
  expect(await load(lab, model, { cache: false })).toMatchObject({ storage: null });
  expect(await call(lab, "files")).toEqual({});
});

test("a partial file is hashed again before it is resumed", async ({ lab, model, server, manifest }) => {
  const { sha256 } = manifest.weights.shards[0];
  server.fault(FIRST, { endAfter: 200_000 }, { status: 404 });
  const network = { attempts: 1 };
  expect((await call(lab, "load", { base: ARTIFACT, network })).error.code).toBe("network");
  expect(await call(lab, "files")).toMatchObject({ [`${sha256}.bin`]: 200_000 });

  server.clear();
  await load(lab, model);
  expect(server.requests(FIRST).map((/** @type {any} */ entry) => entry.range)).toEqual(["bytes=200000-"]);
});

test("a partial file with wrong bytes is replaced whole", async ({ lab, model, server, manifest }) => {
  const { sha256, bytes } = manifest.weights.shards[0];
  server.fault(FIRST, { endAfter: 200_000 });
  await call(lab, "load", { base: ARTIFACT, network: { attempts: 1 } });
  await call(lab, "tamper", `${sha256}.bin`, { start: "not what was written" });
  server.clear();
  await load(lab, model);
  expect(server.requests(FIRST).map((/** @type {any} */ entry) => entry.range)).toEqual(["bytes=200000-", null]);
  expect(await call(lab, "files")).toMatchObject({ [`${sha256}.bin`]: bytes });
});

test("without its record, or shorter than it says, a file is not trusted", async ({ lab, model, server, manifest }) => {
  await load(lab, model);
  const [first, second] = manifest.weights.shards;
  await call(lab, "tamper", `${first.sha256}.json`, { length: 10 });
  await call(lab, "tamper", `${second.sha256}.bin`, { length: 100_000 });
  server.clear();
  await load(lab, model);
  // The whole file without a record needs no download: it is hashed again where it lies.
  expect(downloads(server).map((/** @type {any} */ entry) => [entry.path, entry.range])).toEqual([
    [`${ARTIFACT}/weights/00001.bin`, "bytes=100000-"],
  ]);
  server.clear();
  expect(await load(lab, model)).toMatchObject({ cached_bytes: manifest.weights.bytes });
});

test("a full disk is a warning, and the model runs from memory", async ({ lab, model, server, origin }) => {
  const devtools = await lab.context().newCDPSession(lab);
  await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 500_000 });
  const info = await load(lab, model);
  expect(info.warnings.map((/** @type {any} */ warning) => warning.code)).toEqual(["storage_full"]);
  const files = await call(lab, "files");
  for (const name of Object.keys(files)) {
    if (name.endsWith(".bin")) expect(Object.keys(files)).toContain(name.replace(".bin", ".json"));
  }

  await devtools.send("Storage.overrideQuotaForOrigin", { origin });
  expect(await load(lab, model)).toMatchObject({ warnings: [] });
  server.clear();
  expect(await load(lab, model)).toMatchObject({ warnings: [] });
  expect(downloads(server)).toEqual([]);
});

test("two tabs that load at once share one download", async ({ openLab, model, server, manifest }) => {
  const tabs = [await openLab(), await openLab()];
  const infos = await Promise.all(tabs.map((tab) => load(tab, model)));
  for (const info of infos) expect(info.warnings).toEqual([]);
  expect(downloads(server).filter((/** @type {any} */ entry) => entry.path.endsWith(".bin"))).toHaveLength(5);
  server.clear();
  expect(await load(tabs[0], model)).toMatchObject({ cached_bytes: manifest.weights.bytes });
  expect(downloads(server)).toEqual([]);
});

test("a tab that closes in mid-download hands over to the one that waits", async ({ openLab, model, server }) => {
  const tabs = [await openLab(), await openLab()];
  server.fault(FIRST, { hold: new Promise(() => {}) });
  const first = call(tabs[0], "load", { base: ARTIFACT }).catch(() => undefined);
  await expect.poll(() => server.requests(FIRST).length).toBe(1);
  const second = load(tabs[1], model);
  await tabs[0].close();
  await first;
  expect(await second).toMatchObject({ warnings: [] });
});
