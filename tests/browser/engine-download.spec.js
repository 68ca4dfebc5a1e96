/** @file Downloads that go wrong: broken connections, hosts that ignore ranges, wrong bytes, missing files, cancelling. */

import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";

test.use({ together: true });

const SHARDS = [0, 1, 2, 3, 4].map((i) => `${ARTIFACT}/weights/0000${i}.bin`);
const [FIRST, SECOND] = SHARDS;

/** The next correct load must work and compute the right thing. @param {any} lab @param {any} model @param {object} [options] */
async function worksNow(lab, model, options = {}) {
  const { value, error } = await call(lab, "load", { base: ARTIFACT, ...options });
  expect(error).toBeUndefined();
  await call(lab, "reservePages", 8);
  const { value: result } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(result.logits).toEqual(model.logits([3, 1, 4]));
  return value;
}

for (const cache of [true, false]) {
  test(`a broken shard goes on from where it broke (storage: ${cache})`, async ({ lab, model, server }) => {
    server.fault(FIRST, { cutAfter: 150_000 }, { cutAfter: 100_000 });
    server.fault(SECOND, { endAfter: 70_001 });
    await worksNow(lab, model, { cache });
    // A broken connection takes with it what the browser had buffered and not handed on: at worst all of it, and then
    // there is nothing to resume. What did arrive is kept, so a resumed request never starts before an earlier one.
    const [first, ...later] = server.requests(FIRST).map(({ status, range }) => ({ status, from: Number(range?.slice(6, -1) ?? 0) }));
    expect(first).toEqual({ status: 200, from: 0 });
    expect(later).toHaveLength(2);
    expect(later.map(({ status }) => status)).toEqual(later.map(({ from }) => (from > 0 ? 206 : 200)));
    expect(later[1].from).toBeGreaterThanOrEqual(later[0].from);
    // An orderly early end loses nothing: the next request starts right after the last byte.
    expect(server.requests(SECOND)[1].range).toBe("bytes=70001-");
  });
}

test("a host that ignores ranges restarts the shard", async ({ lab, model, server }) => {
  server.fault(FIRST, { endAfter: 150_000 }, { ignoreRange: true });
  await worksNow(lab, model);
  expect(server.requests(FIRST).map((entry) => entry.status)).toEqual([200, 200]);
});

test("a host that answers another range than asked is not believed", async ({ lab, model, server }) => {
  server.fault(FIRST, { endAfter: 150_000 }, { shiftRange: 10 });
  await worksNow(lab, model);
  expect(server.requests(FIRST).map((entry) => [entry.status, entry.range])).toEqual([
    [200, null], [206, "bytes=150000-"], [200, null],
  ]);
});

test("server errors are retried, a bounded number of times", async ({ lab, model, server }) => {
  server.fault(FIRST, { status: 503 }, { status: 429 }, { status: 500 });
  await worksNow(lab, model);
  expect(server.requests(FIRST)).toHaveLength(4);

  server.clear();
  server.fault(FIRST, { status: 503, always: true });
  const { error } = await call(lab, "load", { base: ARTIFACT, cache: false });
  expect(error).toMatchObject({ code: "network", field: "weights.shards[0]" });
  expect(server.requests(FIRST)).toHaveLength(5);
  server.clear();
  await worksNow(lab, model, { cache: false });
});

test("a shard that is cut off again and again is a network error; nothing of it is trusted", async ({ lab, model, server, manifest }) => {
  server.fault(FIRST, { endAfter: 1000, always: true });
  const { error } = await call(lab, "load", { base: ARTIFACT });
  expect(error).toMatchObject({ code: "network", field: "weights.shards[0]" });
  expect(error.message).toContain("00000.bin");
  expect(Object.keys(await call(lab, "files"))).not.toContain(`${manifest.weights.shards[0].sha256}.json`);
  server.clear();
  const info = await worksNow(lab, model);
  // What had arrived is resumed; the other shards were kept or not, depending on when the failure ended them.
  expect(Number(server.requests(FIRST)[0].range?.slice(6, -1))).toBeGreaterThan(1000);
  expect(info.cached_bytes).toBeLessThan(info.weight_bytes);
});

test("a wrong byte is fetched once more; if it stays, nothing is kept", async ({ lab, model, server, manifest }) => {
  server.fault(SECOND, { flip: 1234 });
  await worksNow(lab, model);
  expect(server.requests(SECOND)).toHaveLength(2);

  const other = await test.step("in a fresh profile", () => lab.context().browser()?.newContext());
  const page = await /** @type {import("@playwright/test").BrowserContext} */ (other).newPage();
  await page.goto(lab.url());
  await page.waitForFunction(() => "lab" in globalThis);
  server.clear();
  server.fault(SECOND, { flip: 400_000, always: true });
  const { error } = await call(page, "load", { base: ARTIFACT });
  expect(error).toMatchObject({ code: "artifact_invalid", field: "weights.shards[1]" });
  expect(error.message).toContain("sha256");
  const { sha256 } = manifest.weights.shards[1];
  expect(Object.keys(await call(page, "files")).filter((name) => name.startsWith(sha256))).toEqual([]);
  server.clear();
  await worksNow(page, model);
  await other?.close();
});

test("a missing shard is artifact_invalid at once", async ({ lab, model, server }) => {
  server.fault(SECOND, { status: 404, always: true });
  const { error } = await call(lab, "load", { base: ARTIFACT });
  expect(error).toMatchObject({ code: "artifact_invalid", field: "weights.shards[1]" });
  expect(error.message).toContain("404");
  expect(server.requests(SECOND)).toHaveLength(1);
  server.clear();
  await worksNow(lab, model);
});

test("a longer or shorter file than the manifest says is artifact_invalid", async ({ lab, model, server, manifest }) => {
  server.fault(FIRST, { append: 10 });
  expect((await call(lab, "load", { base: ARTIFACT, cache: false })).error).toMatchObject({
    code: "artifact_invalid", field: "weights.shards[0]",
  });
  const short = structuredClone(manifest);
  const last = short.weights.shards[4];
  last.bytes += 256;
  short.weights.bytes += 256;
  expect((await call(lab, "load", { base: ARTIFACT, cache: false, manifest: short })).error).toMatchObject({
    code: "artifact_invalid", field: "weights.shards[4]",
  });
  await worksNow(lab, model);
});

test("a silent connection counts as broken", async ({ lab, model, server }) => {
  let release = () => {};
  server.fault(FIRST, { hold: new Promise((resolve) => (release = () => resolve(null))) });
  await worksNow(lab, model, { network: { doubtMs: 100, backoffMs: 1 } });
  expect(server.requests(FIRST)).toHaveLength(2);
  release();
});

test("never more connections than allowed, and progress in bytes up to the end", async ({ lab, server, manifest }) => {
  let release = () => {};
  const hold = new Promise((resolve) => (release = () => resolve(null)));
  for (const shard of SHARDS) server.fault(shard, { hold });
  const loading = call(lab, "load", { base: ARTIFACT, network: { connections: 2 } });
  await expect.poll(() => server.log.filter((entry) => entry.path.endsWith(".bin")).length).toBe(2);
  release();
  expect((await loading).error).toBeUndefined();
  expect(server.log.filter((entry) => entry.path.endsWith(".bin"))).toHaveLength(5);
  const events = await call(lab, "events");
  const total = manifest.weights.bytes;
  expect(events[0].phase).toBe("kernels");
  expect(events.at(-1)).toEqual({ phase: "ready", loaded: total, total, fromCache: false, shard: null });
  const loaded = events.filter((/** @type {any} */ event) => event.phase === "weights").map((/** @type {any} */ event) => event.loaded);
  expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  expect(loaded.at(-1)).toBe(total);
});

test("a load can be cancelled, and the next one works", async ({ lab, model, server }) => {
  let release = () => {};
  server.fault(FIRST, { hold: new Promise((resolve) => (release = () => resolve(null))) });
  const loading = call(lab, "load", { base: ARTIFACT });
  await expect.poll(() => server.requests(FIRST).length).toBe(1);
  await call(lab, "cancel");
  expect((await loading).error.code).toBe("cancelled");
  release();
  await worksNow(lab, model);
});
