/**
 * @file Networks and servers at their worst: a refusal to go on from the middle of a file is not final, bytes and hash
 * decide and not headers, and a hundred cuts at random bytes cost no visit more than its patience.
 */


import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";
import { FaultServer } from "./support/server.js";

test.use({ together: true });

const SLOW = Boolean(process.env.INPAGE_SLOW);
const SHARDS = [0, 1, 2, 3, 4].map((i) => `${ARTIFACT}/weights/0000${i}.bin`);
const [FIRST] = SHARDS;

/** @param {any} lab @param {any} model @param {object} [options] */
async function load(lab, model, options = {}) {
  const { value, error } = await call(lab, "load", { base: ARTIFACT, ...options });
  expect(error).toBeUndefined();
  await call(lab, "reservePages", 8);
  const { value: result } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(result.logits).toEqual(model.logits([3, 1, 4]));
  return value;
}

/** A visit that leaves the first half of a shard in storage. @param {any} lab @param {any} server */
async function leavePartial(lab, server) {
  server.fault(FIRST, { endAfter: 200_000 });
  expect((await call(lab, "load", { base: ARTIFACT, network: { attempts: 1 } })).error.code).toBe("network");
  server.clear();
}

/** @param {any} server @returns {(string | null)[]} */
const ranges = (server) => server.requests(FIRST).map((/** @type {any} */ entry) => entry.range);

const ASKED = "bytes=200000-";
/** @type {[string, import("./support/server.js").Fault, (string | null)[]][]} what a range gets, and what is asked for then */
const ALL_REFUSALS = [
  ...(SLOW ? [400, 401, 403, 404, 405, 410, 412, 416, 418, 451, 501] : [403, 404, 416, 501]).map(
    (status) => /** @type {[string, import("./support/server.js").Fault, (string | null)[]]} */ ([`HTTP ${status}`, { status }, [ASKED, null]]),
  ),
  ["the whole", { ignoreRange: true }, [ASKED]],
  ["another range", { shiftRange: 10 }, [ASKED, null]],
  ["more than the rest", { append: 10 }, [ASKED, null]],
  // Chromium, which asks for no compressed ranges, gives up on them like on a broken connection.
  ["a compressed piece", { gzip: "piece" }, [ASKED, ASKED, ASKED, null]],
  ["a piece of what is compressed, which nothing can decode", { gzip: true }, [ASKED, ASKED, ASKED, null]],
  ["wrong bytes", { flip: 300_000 }, [ASKED, null]],
  ["HTTP 429, again and again", { status: 429 }, [ASKED, ASKED, ASKED, null]],
  ["HTTP 500, again and again", { status: 500 }, [ASKED, ASKED, ASKED, null]],
  ["HTTP 503, again and again", { status: 503 }, [ASKED, ASKED, ASKED, null]],
];
const USUAL = /403|416|the whole|another range|nothing can decode|wrong bytes|503/;
const REFUSALS = ALL_REFUSALS.filter(([name]) => SLOW || USUAL.test(name));

test("a server that refuses to go on from the middle is asked for the whole, once", async ({ lab, model, server, manifest }) => {
  const network = { attempts: 3, backoffMs: 1 };
  for (const [name, fault, expected] of REFUSALS) {
    await test.step(name, async () => {
      await lab.evaluate(async () => {
        const root = await navigator.storage.getDirectory();
        await root.removeEntry("inpage-files", { recursive: true }).catch(() => undefined);
      });
      await leavePartial(lab, server);
      server.fault(FIRST, { ...fault, ranges: true, always: true });
      await load(lab, model, { network });
      expect(ranges(server)).toEqual(expected);
      server.clear();
      expect(await load(lab, model)).toMatchObject({ cached_bytes: manifest.weights.bytes, warnings: [] });
      expect(ranges(server)).toEqual([]);
    });
  }
});

test("what had arrived is kept for a network that fails, and dropped where the server refuses it and the whole", async ({ lab, model, server, manifest }) => {
  const name = `${manifest.weights.shards[0].sha256}.bin`;
  const network = { attempts: 2, backoffMs: 1 };
  for (const fault of [{ cutAfter: 0 }, { status: 429 }, { status: 503 }]) {
    await leavePartial(lab, server);
    server.fault(FIRST, { ...fault, always: true });
    expect((await call(lab, "load", { base: ARTIFACT, network })).error).toMatchObject({ code: "network", field: "weights.shards[0]" });
    expect(await call(lab, "files")).toMatchObject({ [name]: 200_000 });
    server.clear();
    await load(lab, model);
    await lab.evaluate(async () => (await navigator.storage.getDirectory()).removeEntry("inpage-files", { recursive: true }));
  }
  await leavePartial(lab, server);
  for (const [status, code] of /** @type {[number, string][]} */ ([[403, "network"], [404, "artifact_invalid"]])) {
    server.fault(FIRST, { status, always: true });
    expect((await call(lab, "load", { base: ARTIFACT, network })).error).toMatchObject({ code, field: "weights.shards[0]" });
    expect(Object.keys(await call(lab, "files"))).not.toContain(name);
    server.clear();
  }
  await load(lab, model);
});

test("a shorter file is artifact_invalid, however its server says so", async ({ lab, model, server, manifest }) => {
  const short = structuredClone(manifest);
  short.weights.shards[4].bytes += 256;
  short.weights.bytes += 256;
  for (const faults of [[], [{ endAfter: 1e9, always: true }]]) {
    server.fault(SHARDS[4], ...faults);
    const { error } = await call(lab, "load", { base: ARTIFACT, cache: false, manifest: short });
    expect(error).toMatchObject({ code: "artifact_invalid", field: "weights.shards[4]" });
    server.clear();
  }
  await load(lab, model);
});

test("files that another origin compresses load, and are resumed as the whole", async ({ context, artifact, server, origin, model, manifest }) => {
  const other = new FaultServer({ [`${ARTIFACT}/`]: artifact }, { isolated: true });
  other.open = true;
  try {
    const base = (await other.start()) + ARTIFACT;
    server.policy = `default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' ${new URL(base).origin}`;
    const lab = await context.newPage();
    await lab.goto(`${origin}/tests/browser/support/page.html`);
    await lab.waitForFunction(() => "lab" in globalThis);
    for (const url of SHARDS) other.fault(url, { gzip: true, always: true });
    await load(lab, model, { base, manifest, cache: false });
    // A cut in the middle of what is compressed: the piece that is sent then cannot be decoded.
    await load(lab, model, { base, manifest, cache: "idb" });
    other.clear();
    other.fault(FIRST, { endAfter: 200_000 });
    await call(lab, "load", { base, manifest, network: { attempts: 1 } });
    other.clear();
    other.fault(FIRST, { gzip: true, always: true });
    await load(lab, model, { base, manifest });
    expect(other.requests(FIRST).at(-1)?.range).toBe(null);
    expect(other.requests(FIRST).length).toBeLessThanOrEqual(6);
  } finally {
    await other.stop();
  }
});

test("cuts at random bytes", async ({ lab, model, server, manifest }) => {
  test.setTimeout(SLOW ? 1_200_000 : 120_000);
  let seed = 20261128;
  const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const variant = manifest.variants.find((/** @type {any} */ each) => each.name === "wasm-simd");
  const files = [...manifest.weights.shards, variant.plan, variant.kernels];
  let cuts = 0;
  for (let round = 0; cuts < (SLOW ? 2000 : 50); round++) {
    const cache = /** @type {const} */ (["opfs", "idb", false])[round % 3];
    await lab.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      await root.removeEntry("inpage-files", { recursive: true }).catch(() => undefined);
      await new Promise((resolve) => (indexedDB.deleteDatabase("inpage-files").onsuccess = resolve));
    });
    server.clear();
    for (const { file, bytes } of files) {
      for (let i = Math.floor(random() * 5); i > 0; i--, cuts++) {
        const after = Math.floor(random() ** 2 * bytes);
        server.fault(`${ARTIFACT}/${file}`, random() < 0.5 ? { cutAfter: after } : { endAfter: after });
      }
    }
    // Each visit may give up, but with a typed error, and the next goes on.
    for (let visits = 0; ; visits++) {
      const { error } = await call(lab, "load", { base: ARTIFACT, cache, network: { attempts: 2, backoffMs: 1 } });
      if (!error) break;
      expect(error.code).toBe("network");
      expect(visits).toBeLessThan(40);
    }
    await load(lab, model, { cache });
  }
});
