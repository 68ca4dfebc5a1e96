/**
 * @file The whole stack in browsers that refuse, lack or never answer for what they count as a site's data, and visits
 * after which what was kept is damaged: it loads and answers, at once and on the next visit, and nothing is unhandled.
 */

import { ESLint } from "eslint";

import { BYTES, damage } from "./support/damage.js";
import { call } from "./support/fixtures.js";
import { alterMemory, keptMemory } from "./support/kept_python.js";
import { expect, MODEL, prompt, test } from "./support/router.js";

/** Generous: a start takes two seconds, and one that waits for storage that never answers less than ten. */
const HANGS_MS = 60_000;

/**
 * What a browser may do with a part of it: run before anything else in the page and in every worker.
 * @type {Record<string, string>}
 */
const FAULTS = {
  "BroadcastChannel throws": `globalThis.BroadcastChannel = class { constructor() { throw new DOMException("The operation is insecure.", "SecurityError"); } };`,
  "there is no BroadcastChannel": `delete globalThis.BroadcastChannel;`,
  "locks reject": `Object.defineProperty(navigator, "locks", { value: { request: async () => { throw new DOMException("Access is denied", "SecurityError"); } } });`,
  "locks throw": `Object.defineProperty(navigator, "locks", { get() { throw new DOMException("Access is denied", "SecurityError"); } });`,
  "there are no locks": `Object.defineProperty(navigator, "locks", { value: undefined });`,
  "locks never answer": `Object.defineProperty(navigator, "locks", { value: { request: () => new Promise(() => {}) } });`,
  "indexedDB throws when touched": `Object.defineProperty(globalThis, "indexedDB", { get() { throw new DOMException("Access is denied", "SecurityError"); } });`,
  "there is no indexedDB": `Object.defineProperty(globalThis, "indexedDB", { value: null });`,
  "indexedDB.open throws": `IDBFactory.prototype.open = () => { throw new DOMException("Access is denied", "SecurityError"); };`,
  "indexedDB.open never answers": `IDBFactory.prototype.open = () => ({});`,
  "indexedDB reads never answer": `IDBObjectStore.prototype.get = IDBObjectStore.prototype.getAll = function () { return { transaction: this.transaction }; };`,
  "indexedDB transactions never end": `Object.defineProperty(IDBTransaction.prototype, "oncomplete", { set() {} });`,
  "there is no navigator.storage": `Object.defineProperty(navigator, "storage", { value: undefined });`,
  "navigator.storage throws": `Object.defineProperty(navigator, "storage", { get() { throw new DOMException("Access is denied", "SecurityError"); } });`,
  "OPFS rejects": `StorageManager.prototype.getDirectory = async () => { throw new DOMException("Access is denied", "SecurityError"); };`,
  "OPFS never answers": `StorageManager.prototype.getDirectory = () => new Promise(() => {});`,
  "OPFS files never open": `FileSystemFileHandle.prototype.createSyncAccessHandle = () => new Promise(() => {});`,
  "the quota is never told": `StorageManager.prototype.estimate = StorageManager.prototype.persisted = () => new Promise(() => {});`,
};
/** Several at once, as browsers do it; each alone is the long form. */
const BROWSERS = {
  "cookies are blocked (Firefox)": ["BroadcastChannel throws", "indexedDB.open throws", "locks reject", "OPFS rejects"],
  "whatever is touched throws": ["BroadcastChannel throws", "indexedDB throws when touched", "locks throw", "navigator.storage throws"],
  "nothing is there": ["there is no BroadcastChannel", "there is no indexedDB", "there are no locks", "there is no navigator.storage"],
  "nothing answers": ["indexedDB.open never answers", "locks never answer", "OPFS never answers", "the quota is never told"],
  "what was opened never answers": ["indexedDB reads never answer", "OPFS files never open"],
};
/** The others take a visit's time each: INPAGE_SLOW=1 has them. */
const USUAL = ["cookies are blocked (Firefox)"];
/** @type {[string, string][]} */
const CASES = [
  ...Object.entries(BROWSERS).filter(([name]) => process.env.INPAGE_SLOW || USUAL.includes(name)).map(([name, faults]) => /** @type {[string, string]} */ ([name, faults.map((fault) => FAULTS[fault]).join("\n")])),
  ...(process.env.INPAGE_SLOW ? Object.entries(FAULTS) : []),
];

/** @param {import("@playwright/test").Page} page @returns {Promise<any>} */
const answer = (page) =>
  page.evaluate(async () => {
    let last;
    for await (const piece of /** @type {any} */ (globalThis).inpage.chat("hello", { temperature: 0, max_tokens: 12 })) last = piece;
    return last.completion.token_ids;
  });

/** @param {any} model */
function expected(model) {
  const tokens = model.greedy(prompt("hello"), 12);
  const stop = tokens.indexOf(2);
  return stop < 0 ? tokens : tokens.slice(0, stop + 1);
}

/** @param {import("@playwright/test").Page} page @returns {string[]} what nobody handled, in the page and its workers */
function unhandled(page) {
  /** @type {string[]} */
  const seen = [];
  page.on("pageerror", (error) => seen.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && /Uncaught|unhandled/i.test(message.text())) seen.push(message.text());
  });
  return seen;
}

for (const [name, script] of CASES) {
  test(`it loads and answers where ${name}`, async ({ page, start, server, model }) => {
    const seen = unhandled(page);
    server.prelude = script;
    await page.addInitScript(script);
    for (let visit = 1; visit <= 2; visit++) {
      await test.step(`visit ${visit}`, async () => {
        await page.reload();
        const info = await Promise.race([start({ shared: true, settings: { answers: { enabled: true } } }), deadline(page)]);
        expect(info.error).toBeUndefined();
        expect(await answer(page)).toEqual(expected(model));
        expect(await page.evaluate(() => /** @type {any} */ (globalThis).inpage.health())).toBeTruthy();
      });
    }
    expect(seen).toEqual([]);
  });
}

// Without one each start fetches all there is, and takes five times as long.
test.use({ snapshot: !process.env.INPAGE_SLOW });

test("a compute thread that fails ends its engine, with or without channels between workers", async ({ openLab, server }) => {
  const fails = `if (location.pathname.endsWith("/thread.js")) {
    const { instantiate } = WebAssembly;
    WebAssembly.instantiate = async (...made) => {
      const { exports } = await instantiate.apply(WebAssembly, made);
      return { exports: { ...exports, inpage_thread: () => { throw new RangeError("made to fail"); } } };
    };
  }`;
  for (const more of ["", FAULTS["there is no BroadcastChannel"], FAULTS["BroadcastChannel throws"]]) {
    server.prelude = fails + more;
    const lab = await openLab();
    const { error } = await call(lab, "load", { base: MODEL.slice(0, -1), threads: 2 });
    expect(error).toMatchObject({ code: "device_lost", message: "the engine worker is gone: compute thread 1: RangeError: made to fail" });
  }
});

/** @param {import("@playwright/test").Page} page */
async function deadline(page) {
  await page.waitForTimeout(HANGS_MS);
  throw new Error("the start hangs");
}

test.describe("without a snapshot", () => {
  test.use({ snapshot: false });

  test("Python's memory that was kept is restored as it was kept, or not at all", async ({ page, start, model }) => {
    test.setTimeout(240_000);
    /** @type {string[]} */
    const warned = [];
    page.on("console", (message) => void (message.text().startsWith("Python") && warned.push(message.text())));
    await start();
    const all = ["1", "9", "60", "1000", "cut", "hung"];
    for (const change of process.env.INPAGE_SLOW ? all : ["9", "hung"]) {
      await test.step(change, async () => {
        await expect.poll(async () => Object.keys(await keptMemory(page)).length).toBe(1);
        await alterMemory(page, change);
        await page.reload();
        warned.length = 0;
        expect((await start()).error).toBeUndefined();
        expect(await answer(page)).toEqual(expected(model));
        expect(warned).toEqual([expect.stringContaining(change === "hung" ? "never ended" : "is damaged")]);
      });
    }
    // It is kept again, and good.
    await expect.poll(async () => Object.keys(await keptMemory(page)).length).toBe(1);
    await page.reload();
    warned.length = 0;
    expect((await start()).error).toBeUndefined();
    expect(await answer(page)).toEqual(expected(model));
    expect(warned).toEqual([]);
  });
});

test("a damaged tokenizer is fetched again", async ({ page, start, server, whole, model }) => {
  const { tokenizer } = JSON.parse((await import("node:fs")).readFileSync(`${whole}/manifest.json`, "utf-8"));
  await start();
  for (const fault of process.env.INPAGE_SLOW ? BYTES : BYTES.slice(0, 1)) {
    await test.step(fault, async () => {
      await damage(page, "opfs", tokenizer, fault);
      await page.reload();
      server.clear();
      expect((await start()).error).toBeUndefined();
      expect(await answer(page)).toEqual(expected(model));
      expect(server.requests(MODEL + tokenizer.file)).toHaveLength(1);
    });
  }
});

test("nothing but its module touches what a browser counts as a site's data", async () => {
  const eslint = new ESLint();
  /** @param {string} text @param {string} filePath */
  const rules = async (text, filePath) => (await eslint.lintText(text, { filePath }))[0].messages.map(({ ruleId }) => ruleId).filter((id) => id?.startsWith("no-restricted"));
  for (const text of [
    `new BroadcastChannel("x");`, `indexedDB.open("x");`, `void globalThis.indexedDB;`, `void navigator.locks;`, `void globalThis.navigator.storage;`,
    `void self.caches;`, `localStorage.x = 1;`, `const { locks } = navigator; void locks;`, `/** @param {any} root */ export const f = (root) => root.getDirectory();`,
  ]) {
    for (const file of ["web/engine/x.js", "web/router/x.js", "web/client/x.js", "web/app/x.js"]) expect(await rules(text, file), `${file}: ${text}`).not.toEqual([]);
    expect(await rules(text, "web/engine/host/site_data.js")).toEqual([]);
  }
});
