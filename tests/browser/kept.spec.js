/**
 * @file What is kept from one visit to the next, in a real IndexedDB: answers, and KV pages of prompts, over the synthetic
 * model. What is damaged, too old, too much or another engine's counts as absent.
 */

import { expect, prompt, test as base, text } from "./support/router.js";

/**
 * @typedef {object} Fixtures
 * @property {(settings: object) => Promise<any>} visit reload the page and start with these settings
 * @property {(content: string, params?: object) => Promise<any>} ask gives the completion, and the steps that it took
 * @property {(method: string, ...args: unknown[]) => Promise<any>} call a method of InPage; gives its value, or {error}
 * @property {(database: string, change: string) => Promise<number>} alter the rows of a database that were added since the
 *   last time: "cut", "flip", "swap" or "expire"; gives how many
 */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & import("./support/fixtures.js").TestFixtures & import("./support/router.js").RouterFixtures & Fixtures, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & import("./support/fixtures.js").WorkerFixtures & import("./support/router.js").RouterWorkerFixtures>} */
const test = base.extend(
  /** @type {any} */ ({
    /** @param {{page: import("@playwright/test").Page, start: (options: object) => Promise<any>}} fixtures @param {(value: Fixtures["visit"]) => Promise<void>} use */
    visit: ({ page, start }, use) =>
      use(async (settings) => {
        await page.reload();
        const info = await start({ threads: 1, settings });
        expect(info.error).toBeUndefined();
        return info;
      }),
    /** @param {{page: import("@playwright/test").Page}} fixtures @param {(value: Fixtures["ask"]) => Promise<void>} use */
    ask: ({ page }, use) =>
      use((content, params = {}) =>
        page.evaluate(
          async ([content, params]) => {
            const { inpage } = /** @type {any} */ (globalThis);
            const before = await inpage.counters();
            let last;
            for await (const piece of inpage.chat(content, { temperature: 0, max_tokens: 12, .../** @type {object} */ (params) })) last = piece;
            const after = await inpage.counters();
            return { ...last.completion, steps: after.steps - before.steps, rows: after.rows - before.rows };
          },
          /** @type {const} */ ([content, params]),
        ),
      ),
    /** @param {{page: import("@playwright/test").Page}} fixtures @param {(value: Fixtures["call"]) => Promise<void>} use */
    call: ({ page }, use) =>
      use((method, ...args) =>
        page.evaluate(
          async ([method, args]) => {
            try {
              return await /** @type {any} */ (globalThis).inpage[/** @type {string} */ (method)](.../** @type {unknown[]} */ (args));
            } catch (error) {
              const { code, field, message } = /** @type {any} */ (error);
              return { error: code === "error" ? { code, field, message } : { code, field } }; // no error is expected to have that code
            }
          },
          /** @type {const} */ ([method, args]),
        ),
      ),
    /** @param {{page: import("@playwright/test").Page}} fixtures @param {(value: Fixtures["alter"]) => Promise<void>} use */
    alter: ({ page }, use) => {
      /** @type {string[]} */
      const seen = [];
      return use(async (database, change) => {
        const keys = await page.evaluate(alterRows, /** @type {const} */ ([database, change, seen]));
        seen.push(...keys);
        return keys.length;
      });
    },
  }),
);

test.use({ together: true });

/**
 * In the page.
 * @param {readonly [string, string, string[]]} what database, change and keys to leave alone
 * @returns {Promise<string[]>} the others' keys
 */
async function alterRows([name, change, seen]) {
  /** @type {(request: IDBRequest) => Promise<any>} */
  const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
  /** @param {Uint8Array<ArrayBuffer>} bytes @param {GenericTransformStream} stream */
  const through = async (bytes, stream) =>
    new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(/** @type {any} */ (stream))).arrayBuffer());
  const db = await done(indexedDB.open(name, 1));
  const store = () => db.transaction("rows", "readwrite").objectStore("rows");
  const rows = (await done(store().getAll())).filter((/** @type {any} */ row) => !seen.includes(row.key));
  const values = rows.map((/** @type {any} */ row) => row.value);
  for (const [i, row] of rows.entries()) {
    if (change === "cut") row.value = row.value.slice(0, -1);
    if (change === "flip") row.value[row.value.length - 1] ^= 1;
    if (change === "swap") row.value = values[(i + 1) % values.length];
    if (change === "expire") {
      const fields = JSON.parse(new TextDecoder().decode(await through(row.value, new DecompressionStream("deflate"))));
      const packed = new TextEncoder().encode(JSON.stringify([...fields.slice(0, -1), 1]));
      row.value = await through(packed, new CompressionStream("deflate"));
    }
    await done(store().put(row));
  }
  db.close();
  return rows.map((/** @type {any} */ row) => row.key);
}

/** @param {any} model @param {string} content @returns {number[]} greedy, up to the stop token */
function greedy(model, content, n = 12) {
  const tokens = model.greedy(prompt(content), n);
  const stop = tokens.indexOf(2);
  return stop < 0 ? tokens : tokens.slice(0, stop + 1);
}

const LONG = "a prompt of more than three pages so that some of them can be kept";

test("a prefix that was exported need not be read again after a reload; one that is damaged is", async ({ visit, ask, call, alter, model }) => {
  await visit({});
  for (const change of ["cut", "flip", "swap"]) {
    expect(await call("exportPrefix", `${change} ${LONG}`)).toBeGreaterThan(64);
    expect(await alter("inpage-kv", change)).toBeGreaterThan(4);
  }
  const cold = await ask(LONG);
  expect(cold.token_ids).toEqual(greedy(model, LONG));
  const kept = await call("exportPrefix", LONG);
  expect(kept).toBe(prompt(LONG).length - (prompt(LONG).length % 16));
  await visit({});
  for (const change of ["cut", "flip", "swap"]) expect(await call("importPrefix", `${change} ${LONG}`)).toBe(0);
  expect(await call("importPrefix", LONG)).toBe(kept);
  expect(await ask(LONG)).toMatchObject({ token_ids: cold.token_ids, cached_tokens: kept, rows: cold.rows - kept });
  expect(await ask(`cut ${LONG}`)).toMatchObject({ token_ids: greedy(model, `cut ${LONG}`), cached_tokens: 0 });
  expect((await call("refresh")).kv_pages.used).toBe(0);
});

test("system prompts are read while nobody waits, stored, and ready on the next visit", async ({ visit, call }) => {
  const kv = { system_prompts: ["you are the synthetic model which answers with letters"] };
  await visit({ kv });
  expect((await call("warmUp")).imported).toBe(0);
  const { kept } = (await call("refresh")).kv_pages;
  expect(kept).toBeGreaterThan(2);
  await visit({ kv });
  await call("warmUp");
  expect(await call("counters")).toMatchObject({ rows: 0 });
  expect((await call("refresh")).kv_pages.kept).toBe(kept);
  expect(await call("prefetch", ["read me before I am asked"])).toEqual([32]);
  expect(await call("prefetch", "no list")).toEqual({ error: { code: "invalid_request", field: "prompts" } });
});

test("an answer of an earlier visit needs no engine, unless it is damaged, too old or forgotten", async ({ visit, ask, call, alter, model }) => {
  const answers = { enabled: true };
  await visit({ answers });
  for (const [content, change] of [["a", "cut"], ["b", "expire"], ["c", ""]]) {
    expect(await ask(content, { tags: `tag ${content}` })).toMatchObject({ source: "engine", token_ids: greedy(model, content) });
    expect(await ask(content)).toMatchObject({ source: "memory", steps: 0 });
    expect(await alter("inpage-answers", change)).toBe(1);
  }
  await visit({ answers });
  const stored = { source: "storage", steps: 0, token_ids: greedy(model, "c"), text: text(greedy(model, "c")) };
  expect(await ask("c")).toMatchObject(stored);
  expect(await ask("c")).toMatchObject({ ...stored, source: "memory" });
  for (const content of ["a", "b"]) expect(await ask(content)).toMatchObject({ source: "engine", token_ids: greedy(model, content) });
  expect(await call("forget", "tag c")).toBe(1);
  expect(await ask("c")).toMatchObject({ source: "engine" });
  expect(await ask("a")).toMatchObject({ source: "memory" });
  expect(await call("forget")).toBe(3);
  expect(await ask("a")).toMatchObject({ source: "engine" });
  expect(await call("counters")).toMatchObject({ "cache_hits.storage": 1, "cache_hits.memory": 2 });
});

test("what is stored is bounded in bytes, the least recently used goes", async ({ visit, ask, call, page }) => {
  const bytes = { kv: 6 * 256, answers: 300 };
  await visit({ kv: { storage_bytes: bytes.kv }, answers: { enabled: true, storage_bytes: bytes.answers, memory_entries: 1 } });
  for (const content of "abcdefgh") await ask(content);
  expect(await ask("h", { tags: "again" })).toMatchObject({ source: "memory" });
  expect(await ask("g")).toMatchObject({ source: "storage" });
  expect(await ask("a")).toMatchObject({ source: "engine" });
  for (const content of ["", "no "]) await call("exportPrefix", content + LONG);
  const held = await page.evaluate(async () => {
    /** @type {(request: IDBRequest) => Promise<any>} */
    const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
    const lengths = [];
    for (const name of ["inpage-kv", "inpage-answers"]) {
      const db = await done(indexedDB.open(name, 1));
      const rows = await done(db.transaction("rows").objectStore("rows").getAll());
      lengths.push(rows.map((/** @type {any} */ row) => row.value.length));
      db.close();
    }
    return lengths;
  });
  const [kv, answers] = held.map((lengths) => lengths.reduce((/** @type {number} */ sum, /** @type {number} */ n) => sum + n, 0));
  expect(kv).toBeGreaterThan(bytes.kv / 2);
  expect(kv).toBeLessThanOrEqual(bytes.kv);
  expect(answers).toBeGreaterThan(bytes.answers / 2);
  expect(answers).toBeLessThanOrEqual(bytes.answers);
});

test("the pages of whoever makes room for others come back from memory", async ({ visit, page }) => {
  const answers = [];
  for (const kv of [{}, { memory_bytes: 6 * 256, prefix_bytes: 0 }]) {
    await visit({ kv });
    const { told, metrics } = await page.evaluate(async () => {
      const { inpage } = /** @type {any} */ (globalThis);
      const ask = async (/** @type {string} */ content) => {
        let last;
        for await (const piece of inpage.chat(content, { temperature: 0, max_tokens: 40 })) last = piece;
        return last.completion;
      };
      const told = await Promise.all(["a", "b", "c"].map((name) => ask(`${name} hello world`)));
      return { told, metrics: /** @type {string} */ (await inpage.metrics()) };
    });
    answers.push(told.map((completion) => completion.token_ids));
    expect(/inpage_swapped_pages_total\{.*way="loaded"\} [1-9]/.test(metrics)).toBe("memory_bytes" in kv);
  }
  expect(answers[1]).toEqual(answers[0]);
});
