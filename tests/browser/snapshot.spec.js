/**
 * @file The snapshot of Python's memory that comes with a site: what a first visit fetches, what a second, when it starts
 * Python without, and that two pages which were restored from one snapshot draw different numbers.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";

import { keptMemory, rememberPlainStart } from "./support/kept_python.js";
import { inPython, showPython } from "./support/python.js";
import { BASE, expect, MODEL, test } from "./support/router.js";

/** @typedef {import("@playwright/test").Page} Page */

/** How Python was started. @param {Page} page @returns {Promise<string>} */
const how = (page) => page.evaluate(async () => (await /** @type {any} */ (globalThis).inpage.explain()).split("\n").find((/** @type {string} */ line) => line.startsWith("Python: ")));

/** @param {string} whole */
const recordIn = (whole) => JSON.parse(readFileSync(path.join(whole, "python.json"), "utf-8"));

/** What was asked for, each with how often it was sent whole. @param {import("./support/server.js").FaultServer} server @returns {Record<string, number>} */
function sent(server) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const { path: name, status } of server.log) if (status === 200 || status === 206) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

test("a first visit fetches each file once and the snapshot with it, a second neither snapshot nor weights", async ({ page, start, server, whole, model }) => {
  const { file, bytes, sha256 } = recordIn(whole);
  // On a busy machine this server is a slow line: for the workers, twenty times as fast a one.
  server.prelude = "const now = performance.now.bind(performance); performance.now = () => now() / 20;";
  await showPython(page);
  const info = await start({ threads: 1 });
  expect(info.error).toBeUndefined();
  expect(await how(page)).toContain("restored from a snapshot");
  const first = sent(server);
  expect(first[BASE + file]).toBe(1);
  const { shards } = model.manifest.weights;
  for (const shard of shards) expect(first[MODEL + shard.file]).toBe(1);
  expect(Object.entries(first).filter(([name, count]) => count > 1 && !name.endsWith(".js"))).toEqual([]);
  // It holds all that an answer needs, so that nothing is renewed.
  expect(await inPython(page, "import sys; json.dumps([n in sys.modules for n in ('jinja2', 'inpage.json_schema')])", null)).toEqual([true, true]);
  await expect.poll(() => keptMemory(page)).toEqual({ [sha256]: bytes });

  server.log = [];
  await page.reload();
  expect((await start({ threads: 1 })).error).toBeUndefined();
  expect(await how(page)).toContain("restored from this browser's storage");
  const second = sent(server);
  for (const name of [BASE + file, `${BASE}python.json`, ...shards.map((/** @type {{file: string}} */ shard) => MODEL + shard.file)]) expect(second[name]).toBeUndefined();
});

test("weights come while Python starts, and count as fetched", async ({ page, start, server, model }) => {
  const names = model.manifest.weights.shards.map((/** @type {{file: string}} */ shard) => MODEL + shard.file);
  /** @type {(value?: unknown) => void} */
  let release = () => {};
  server.fault(`${BASE}inpage.zip`, { hold: new Promise((resolve) => (release = resolve)) });
  const started = start({ threads: 1 });
  // Python cannot start without its package.
  await expect.poll(() => names.filter((/** @type {string} */ name) => server.requests(name).length)).toEqual(names);
  release();
  expect((await started).error).toBeUndefined();
  for (const name of names) expect(server.requests(name).length).toBe(1);
  const events = await page.evaluate(() => /** @type {any} */ (globalThis).progress.filter((/** @type {any} */ { phase }) => phase === "weights"));
  expect(events.at(-1).loaded).toBe(events.at(-1).total);
  expect(events.filter((/** @type {any} */ { fromCache }) => fromCache)).toEqual([]);
});

test("pages that were restored from one snapshot draw different numbers", async ({ page, start }) => {
  await showPython(page);
  const draw = `
import gc, random, secrets, tempfile, uuid
found = [type(each).__name__ for each in gc.get_objects() if isinstance(each, random.Random) and not isinstance(each, random.SystemRandom)]
json.dumps({"instances": len(found), "hash": hash("one text"),
  "drawn": [random.random(), random.getrandbits(64), uuid.uuid4().hex, uuid.uuid1().hex, secrets.token_hex(), tempfile.mktemp()]})`;
  const drawn = [];
  for (let visit = 1; visit <= 2; visit++) {
    await page.reload();
    await start({ threads: 1 });
    expect(await how(page)).toContain("restored");
    const { instances, hash, drawn: numbers } = await inPython(page, draw, null);
    expect(instances).toBeLessThanOrEqual(1); // random's own, which is seeded again
    const id = await page.evaluate(async () => {
      const body = JSON.stringify({ messages: [{ role: "user", content: "a" }], max_tokens: 1 });
      const answer = await /** @type {any} */ (globalThis).inpage.fetch("http://inpage/v1/chat/completions", { method: "POST", body });
      return (await answer.json()).id;
    });
    drawn.push({ hash, numbers: [...numbers, id] });
  }
  const [one, two] = drawn;
  expect(one.hash).toBe(two.hash); // it is the same memory: docs/security.md
  expect(one.numbers.filter((/** @type {unknown} */ each) => two.numbers.includes(each))).toEqual([]);
});

/** @type {[string, (packed: Buffer, record: any) => {body?: Buffer, record?: object, status?: number, encoding?: string}, string][]} */
const SPOILED = [
  ["has a flipped bit", (packed) => ({ body: flipped(packed) }), "is not what the site's python.json says"],
  ["is cut off", (packed) => ({ body: packed.subarray(0, packed.length >> 1) }), "without a snapshot"],
  ["is missing", () => ({ status: 404 }), "HTTP 404"],
  ["is of another package", (packed, record) => other(packed, record), "is of another version"],
];

/** Of what is packed. @param {Buffer} packed */
function flipped(packed) {
  const memory = gunzipSync(packed);
  memory[memory.length >> 1] ^= 1;
  return gzipSync(memory, { level: 1 });
}

/** @param {Buffer} packed @param {any} record */
function other(packed, record) {
  const memory = gunzipSync(packed);
  memory.write("0".repeat(8), memory.length - 60);
  const body = gzipSync(memory, { level: 1 });
  return { body, record: { ...record, packed: body.length, sha256: createHash("sha256").update(memory).digest("hex") } };
}

for (const [what, spoil, why] of process.env.INPAGE_SLOW ? SPOILED : [SPOILED[0]]) {
  test(`Python starts without a snapshot that ${what}, and says so`, async ({ page, start, server, whole }) => {
    const record = recordIn(whole);
    const { body, status, record: said } = spoil(readFileSync(path.join(whole, record.file)), record);
    server.fault(BASE + record.file, { body, status, always: true });
    if (said) server.fault(`${BASE}python.json`, { body: Buffer.from(JSON.stringify(said)), always: true });
    expect((await start({ threads: 1 })).error).toBeUndefined();
    expect(await how(page)).toContain(why);
    // What it keeps then is its own.
    await expect.poll(async () => Object.keys(await keptMemory(page)).length).toBe(1);
    expect(Object.keys(await keptMemory(page))).not.toContain(record.sha256);
  });
}

test("a snapshot that a host sends decoded is taken, and one of another package takes its place in storage", async ({ page, start, server, whole }) => {
  const record = recordIn(whole);
  const packed = readFileSync(path.join(whole, record.file));
  server.fault(BASE + record.file, { body: packed, encoding: "gzip", always: true });
  await start({ threads: 1 });
  expect(await how(page)).toContain("restored from a snapshot");
  await expect.poll(async () => Object.keys(await keptMemory(page))).toEqual([record.sha256]);

  // Another version of the site: another package, which the memory that is kept is not good for, and no snapshot.
  const zip = readFileSync(path.join(whole, "inpage.zip"));
  server.fault(`${BASE}inpage.zip`, { body: commented(zip), always: true });
  await page.reload();
  await start({ threads: 1 });
  expect(await how(page)).toContain("is of another version");
  await expect.poll(async () => Object.keys(await keptMemory(page)).length).toBe(1);
  await expect.poll(async () => Object.keys(await keptMemory(page))).not.toContain(record.sha256);
});

/** The same archive with a comment behind it. @param {Buffer} zip */
function commented(zip) {
  const changed = Buffer.concat([zip, Buffer.from("x")]);
  changed.writeUInt16LE(1, zip.length - 2);
  return changed;
}

test("a snapshot is not begun where the line is too slow for it", async ({ page, start, server, whole }) => {
  await rememberPlainStart(page, 1);
  expect((await start({ threads: 1 })).error).toBeUndefined();
  expect(await how(page)).toMatch(/snapshot of [\d.]+ MB would take [\d.]+ s, a start without it takes 0\.0 s/);
  expect(server.requests(BASE + recordIn(whole).file)).toEqual([]);
});

// It waits as long as the start takes that it remembers.
(process.env.INPAGE_SLOW ? test : test.skip)("a snapshot that does not come is given up", async ({ page, start, server, whole }) => {
  /** @type {(value?: unknown) => void} */
  let release = () => {};
  server.fault(BASE + recordIn(whole).file, { hold: new Promise((resolve) => (release = resolve)) });
  await rememberPlainStart(page, 20_000);
  expect((await start({ threads: 1 })).error).toBeUndefined();
  expect(await how(page)).toContain("did not come within");
  release();
});
