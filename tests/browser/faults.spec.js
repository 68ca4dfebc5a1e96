/**
 * @file Networks, storage and deaths at once: whatever fails together, a load ends with the right logits or a typed error,
 * the next one on a sound network is right, and the one after that finds all in storage. The table is the product of the
 * three; a usual run takes the rows of `USUAL`, INPAGE_SLOW=1 all.
 */

import { damage } from "./support/damage.js";
import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";

/** @typedef {import("@playwright/test").Page} Page */
/** @typedef {Record<string, import("./support/server.js").Fault[]>} Faults */
/** @typedef {{cache: "opfs" | "idb" | false, quota?: number, stored?: boolean, sound?: boolean, broken?: (lab: Page, shards: any[]) => Promise<unknown>}} Storage */

const [FIRST, SECOND, THIRD, FOURTH, FIFTH] = [0, 1, 2, 3, 4].map((i) => `${ARTIFACT}/weights/0000${i}.bin`);
const ALL = [FIRST, SECOND, THIRD, FOURTH, FIFTH];
/** The download that waits while a load is ended in the middle. */
const HELD = FOURTH;

/** What the network does, and what a load may say of it. @type {Record<string, {faults: Faults, code?: string}>} */
const NETWORKS = {
  sound: { faults: {} },
  "cut off twice": { faults: { [FIRST]: [{ cutAfter: 150_000 }, { cutAfter: 100_000 }] } },
  "no ranges": { faults: { [FIRST]: [{ endAfter: 150_000 }, { status: 416 }], [SECOND]: [{ cutAfter: 5 }, { ignoreRange: true }] } },
  "other bytes": { faults: { [SECOND]: [{ flip: 1000 }] } },
  busy: { faults: { [FIRST]: [{ status: 503 }, { status: 429 }], [THIRD]: [{ status: 500 }] } },
  "too long": { faults: { [FIFTH]: [{ append: 100 }] }, code: "artifact_invalid" },
  gone: { faults: Object.fromEntries(ALL.map((url) => [url, [{ status: 503, always: true }]])), code: "network" },
};

/** What lies in storage before; `sound`: all of the files themselves. @type {Record<string, Storage>} */
const STORAGES = {
  none: { cache: false },
  "OPFS, empty": { cache: "opfs" },
  "IndexedDB, empty": { cache: "idb" },
  "OPFS, full": { cache: "opfs", quota: 300_000 },
  "OPFS, two files damaged": { cache: "opfs", stored: true, broken: (lab, shards) => Promise.all([damage(lab, "opfs", shards[0], "flip"), damage(lab, "opfs", shards[3], "cut")]) },
  "OPFS, a record damaged": { cache: "opfs", stored: true, sound: true, broken: (lab, shards) => damage(lab, "opfs", shards[3], "garbage", true) },
  "OPFS, a partial file of other bytes": { cache: "opfs", broken: (lab, shards) => partial(lab, shards[0]) },
  "IndexedDB, two files damaged": { cache: "idb", stored: true, broken: async (lab, shards) => {
    for (const [i, fault] of /** @type {[number, string][]} */ ([[0, "flip"], [3, "null"]])) await damage(lab, "idb", shards[i], fault);
  } },
};

/** How the load ends while a download waits, or, where none does, the engine after it. @type {Record<string, {code?: string, strike?: (lab: Page) => Promise<unknown>}>} */
const DEATHS = {
  "nobody dies": {},
  "the load is called off": { code: "cancelled", strike: (lab) => call(lab, "cancel") },
  "its workers die": { code: "device_lost", strike: (lab) => lab.evaluate(() => /** @type {any} */ (globalThis).made.splice(0).forEach((/** @type {Worker} */ worker) => worker.terminate())) },
  "the page is reloaded": { code: "reloaded", strike: reload },
};

/** @type {[keyof typeof NETWORKS, keyof typeof STORAGES, keyof typeof DEATHS][]} */
const USUAL = [
  ["gone", "OPFS, two files damaged", "its workers die"],
  ["gone", "IndexedDB, two files damaged", "nobody dies"],
  ["no ranges", "OPFS, a partial file of other bytes", "the page is reloaded"],
  ["too long", "OPFS, full", "nobody dies"],
];
const ROWS = process.env.INPAGE_SLOW
  ? Object.keys(NETWORKS).flatMap((network) => Object.keys(STORAGES).flatMap((storage) => Object.keys(DEATHS).map((death) => [network, storage, death])))
  : USUAL;

/** Leaves the first half of a file, with other bytes in it. @param {Page} lab @param {{sha256: string}} shard */
function partial(lab, { sha256 }) {
  return lab.evaluate(async (name) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-files", { create: true });
    const writable = await (await folder.getFileHandle(name, { create: true })).createWritable();
    await writable.write(new Uint8Array(200_000).fill(7));
    await writable.close();
  }, `${sha256}.bin`);
}

/** @param {Page} lab */
async function reload(lab) {
  await lab.reload();
  await prepare(lab);
}

/** Its workers can be ended. @param {Page} lab */
async function prepare(lab) {
  await lab.waitForFunction(() => "lab" in globalThis);
  await lab.evaluate(() => {
    /** @type {Worker[]} */
    const made = [];
    const Real = globalThis.Worker;
    Object.assign(globalThis, { made, Worker: class extends Real {
      /** @param {ConstructorParameters<typeof Worker>} args */
      constructor(...args) {
        super(...args);
        made.push(this);
      }
    } });
  });
}

/** @param {Page} lab */
async function emptied(lab) {
  await call(lab, "unload");
  await lab.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    await root.removeEntry("inpage-files", { recursive: true }).catch(() => undefined);
    await new Promise((resolve) => (indexedDB.deleteDatabase("inpage-files").onsuccess = resolve));
  });
}

/** @param {Page} lab @param {any} model */
async function isRight(lab, model) {
  await call(lab, "reservePages", 8);
  const { value, error } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(error).toBeUndefined();
  expect(value.logits).toEqual(model.logits([3, 1, 4]));
}

test(`${ROWS.length} rows of networks, storage and deaths`, async ({ lab, model, server, manifest, context, origin }) => {
  test.setTimeout(60_000 + 6000 * ROWS.length);
  const devtools = await context.newCDPSession(lab);
  const { bytes: whole, shards } = manifest.weights;
  const network = { attempts: 4, backoffMs: 1 };
  await prepare(lab);
  for (const [net, store, fate] of ROWS) {
    await test.step(`network ${net}; storage ${store}; ${fate}`, async () => {
      const { faults, code } = NETWORKS[net];
      const { cache, quota, stored, sound, broken } = STORAGES[store];
      const death = DEATHS[fate];
      await emptied(lab);
      server.clear();
      if (stored) await call(lab, "load", { base: ARTIFACT, cache });
      await broken?.(lab, shards);
      if (quota) await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: quota });

      server.clear();
      let go = () => {};
      const hold = new Promise((resolve) => (go = () => resolve(null)));
      if (death.strike) server.fault(HELD, { hold });
      for (const [url, list] of Object.entries(faults)) server.fault(url, ...list);
      let ended = false;
      const loading = call(lab, "load", { base: ARTIFACT, cache, network }).then((outcome) => outcome.error?.code, () => "reloaded").finally(() => (ended = true));
      let middle = false;
      if (death.strike) {
        await expect.poll(() => ended || server.requests(HELD).length > 0, { intervals: [20] }).toBe(true);
        middle = !ended;
        await death.strike(lab);
      }
      go();
      // What is stored and sound is not fetched, so that only a network that is gone matters, and that only to what is not.
      const failure = stored && (sound || net !== "gone") ? undefined : code;
      expect(middle ? [death.code, failure ?? death.code] : [failure]).toContain(await loading);

      server.clear();
      if (quota) await devtools.send("Storage.overrideQuotaForOrigin", { origin });
      const again = await call(lab, "load", { base: ARTIFACT, cache, network });
      expect(again.error).toBeUndefined();
      await isRight(lab, model);
      if (!cache) return;
      server.clear();
      const { value } = await call(lab, "load", { base: ARTIFACT, cache });
      expect(value).toMatchObject({ storage: cache, warnings: [], cached_bytes: whole });
      expect(server.log.filter(({ path }) => path.endsWith(".bin"))).toEqual([]);
      await isRight(lab, model);
    });
  }
});
