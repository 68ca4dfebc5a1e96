/**
 * @file The example that searches files: its passages, its kernel and its library in Node; the page itself, from the built
 * site, with the real MiniLM. INPAGE_SLOW=1: the real chat model answers there, and after that visit without a network.
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";

import { expect, test } from "@playwright/test";

import { chunks, tokens } from "../../examples/search/chunks.js";
import { Library } from "../../examples/search/library.js";
import { Vectors } from "../../examples/search/vectors.js";
import { FaultServer } from "./support/server.js";
import { SITE } from "./support/site.js";

const SLOW = Boolean(process.env.INPAGE_SLOW);
const ROOT = path.resolve(import.meta.dirname, "../..");
const FILES = {
  "cats.txt": "Minka sleeps in the kitchen.\n\nShe was born in 2019. She eats twice a day, at seven and at nineteen.\n",
  "money.txt": "The central bank raised interest rates by half a percent.\n\nMortgages are dearer than they were a year ago.\n",
  "notes.md": `# Garden\n\n${"Tomatoes want sun and much water. ".repeat(12)}\n\n${"In November the roses are cut back to the third eye. ".repeat(8)}\n`,
};

/** @param {string} script @returns {string} its last line */
function python(script) {
  const env = { ...process.env, PYTHONPATH: path.join(ROOT, "tests") };
  return execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { env, encoding: "utf8" }).trim().split("\n").at(-1) ?? "";
}

/** The kernel as `inpage build` compiles it. @type {Buffer<ArrayBuffer>} */
let wasm;
test.beforeAll(() => void (wasm = readFileSync(python("from inpage.cli.examples import kernel; print(kernel())"))));

async function kernel() {
  const { instance } = await WebAssembly.instantiate(wasm);
  return new Vectors(/** @type {any} */ (instance.exports));
}

/** In plain JavaScript, as top_k.c says that it adds up. @param {Float32Array} a @param {Float32Array} b */
function dot(a, b) {
  const { fround } = Math;
  const sums = Array(16).fill(0);
  a.forEach((value, i) => (sums[i % 16] = fround(sums[i % 16] + fround(value * b[i]))));
  const four = [0, 1, 2, 3].map((i) => fround(fround(sums[i] + sums[i + 4]) + fround(sums[i + 8] + sums[i + 12])));
  return fround(fround(four[0] + four[1]) + fround(four[2] + four[3]));
}

test("passages have every word, are bounded, and share their ends within a paragraph", () => {
  const text = `# Title\n\n${Object.values(FILES).join("\n")}${"word ".repeat(900)}\n\n${"猫が好きです。".repeat(60)}\r\n`;
  const found = chunks(text, 40, 12);
  const covered = new Set(found.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i)));
  expect([...text].filter((letter, i) => !covered.has(i) && letter.trim())).toEqual([]);
  for (const { start, end } of found) expect(tokens(text.slice(start, end))).toBeLessThanOrEqual(40);
  const shared = found.slice(1).map(({ start }, i) => tokens(text.slice(start, Math.max(start, found[i].end))));
  expect(Math.max(...shared)).toBeLessThanOrEqual(12);
  expect(shared.filter(Boolean).length).toBeGreaterThan(10);
  expect(chunks(" \n\n \n")).toEqual([]);
});

test("the kernel has plain JavaScript's bits at every length, and keeps to rows that are there", async () => {
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647 - 0.5;
  for (const width of [1, 3, 15, 16, 17, 31, 100, 384]) {
    const vectors = await kernel();
    const query = Float32Array.from({ length: width }, random);
    let rows = Array.from({ length: 300 }, () => Float32Array.from({ length: width }, random));
    rows[7] = rows[250] = rows[3]; // equal ones come in their order
    rows[9].fill(NaN);
    for (const [from, to] of [[0, 1], [1, 200], [200, 300]]) vectors.add(Float32Array.from(rows.slice(from, to).flatMap((row) => [...row])), width);
    const nearest = () => rows.map((row, i) => ({ row: i, score: dot(query, row) })).filter(({ score }) => !Number.isNaN(score)).sort((a, b) => b.score - a.score || a.row - b.row);
    expect(vectors.nearest(query, 20)).toEqual(nearest().slice(0, 20));
    vectors.remove(0, 1);
    vectors.remove(149, 100);
    rows = rows.filter((_, i) => i > 0 && (i < 150 || i >= 250));
    expect(vectors.count).toBe(rows.length);
    expect(vectors.nearest(query, 64)).toEqual(nearest().slice(0, 64));
    expect(vectors.nearest(query, 0)).toEqual([]);
    expect(() => vectors.add(new Float32Array(width + 1), width + 1)).toThrow(RangeError);
  }
});

test("what is unchanged is not embedded again, what another embedder made is, and what is removed is gone", async () => {
  /** @type {Map<string, any>} */
  const kept = new Map();
  const store = /** @type {any} */ ({
    async *all() {
      yield* kept.values();
    },
    put: async (/** @type {any} */ file) => void kept.set(file.name, file),
    delete: async (/** @type {string} */ name) => void kept.delete(name),
  });
  let embedded = 0;
  let width = 26;
  /** One number for each letter. @type {import("../../examples/search/library.js").Embed} */
  const embed = async (texts, { signal }) => {
    signal?.throwIfAborted();
    embedded += texts.filter((text) => text !== ".").length; // what asks for the width is no text of a file
    return texts.map((text) => Float32Array.from({ length: width }, (_, i) => text.toLowerCase().split(String.fromCharCode(97 + i)).length - 1));
  };
  const open = (/** @type {string} */ embedder) => Library.open({ embed, embedder, store, kernel: `data:application/wasm;base64,${wasm.toString("base64")}` });
  let library = await open("one");
  expect(await library.add("a", "aaa bbb")).toBe("added");
  expect(await library.add("z", "zzz")).toBe("added");
  expect(await library.add("a", "aaa bbb")).toBe("unchanged");
  expect(embedded).toBe(2);
  await library.add("a", "ccc"); // in place of what was there
  expect((await library.search("a", 5)).map(({ name, score }) => [name, score])).toEqual([["z", 0], ["a", 0]]);
  await expect(library.add("b", "bbb", { signal: AbortSignal.abort() })).rejects.toThrow();
  await expect(library.add("b", " \n")).rejects.toThrow("no text");
  width = 3; // a failure after embedding takes nothing away
  await expect(library.add("z", "xyz")).rejects.toThrow(RangeError);
  width = 26;
  expect((await library.search("z", 1))[0].text).toBe("zzz");
  expect([...kept.keys()]).toEqual(["a", "z"]);

  library = await open("one");
  expect([embedded, library.files.length, library.stale]).toEqual([6, 2, []]);
  const whole = kept.get("a");
  kept.set("a", { ...whole, vectors: whole.vectors.slice(13) }); // the first that comes does not say how wide they are
  expect((await open("one")).stale).toEqual(["a"]);
  kept.set("a", whole);
  library = await open("another");
  expect([library.files, library.stale]).toEqual([[], ["a", "z"]]);
  expect(await library.search("c", 5)).toEqual([]);
  for (const name of library.stale) await library.renew(name);
  expect(await library.search("c", 1)).toEqual([{ name: "a", text: "ccc", score: 3 }]);
  await library.remove("a");
  expect((await library.search("c", 5)).map(({ name }) => name)).toEqual(["z"]);
  expect([...kept.keys()]).toEqual(["z"]);
  expect(await (await open("another")).files).toEqual([{ name: "z", passages: 1 }]);

  const { put } = store;
  store.put = () => Promise.reject(new DOMException("full", "QuotaExceededError"));
  expect(await library.add("z", "yyy")).toBe("not kept");
  expect([...kept.keys()]).toEqual([]); // not an earlier text
  expect((await library.search("y", 1))[0].text).toBe("yyy");
  const before = embedded;
  expect(await library.add("z", "yyy")).toBe("not kept");
  store.put = put;
  expect(await library.add("z", "yyy")).toBe("added"); // there is room again
  expect(await library.add("z", "yyy")).toBe("unchanged");
  library = await open("another");
  expect((await library.search("y", 1)).map(({ name, score }) => [name, score])).toEqual([["z", 3]]);
  expect(embedded).toBe(before + 1);
});

test("what storage does not give is left out, and what it does not answer is not waited for again", async () => {
  const { Store } = await import(path.join(SITE, "examples/search/store.js"));
  const record = { sha256: "", made: "", text: "abc", spans: [{ start: 0, end: 3 }], vectors: new Float32Array(2) };
  /** By key; errors are what requests end with. @param {Map<string, any>} found */
  const names = async (found, /** @type {any} */ keys = [...found.keys()]) => {
    const asked = (/** @type {any} */ value) => {
      /** @type {any} */
      const request = value instanceof Error ? { error: value } : { result: value };
      queueMicrotask(() => (request.error ? request.onerror() : request.onsuccess()));
      return request;
    };
    const remove = () => {
      throw new DOMException("it is read-only", "UnknownError");
    };
    const files = { getAllKeys: () => asked(keys), get: (/** @type {string} */ key) => asked(found.get(key)), delete: remove };
    const read = [];
    for await (const { name } of new Store({ transaction: () => ({ objectStore: () => files }) }).all()) read.push(name);
    return read;
  };
  /** @type {[string, any][]} */
  const found = [["a", { name: "a", ...record }], ["b", new DOMException("it is damaged", "DataError")], ["c", "not whole"], ["d", { name: "d", ...record }]];
  expect(await names(new Map(found))).toEqual(["a", "d"]);
  expect(await names(new Map([...found, ["b", new DOMException("no answer", "TimeoutError")]]))).toEqual(["a"]);
  expect(await names(new Map(found), new DOMException("it is damaged", "DataError"))).toEqual([]);
});

// What the service worker fetches besides costs more than all the rest.
test.use({ serviceWorkers: SLOW ? "allow" : "block" });

test("files that are dropped are searched by meaning, and after that visit without a network", async ({ page }) => {
  test.setTimeout(400_000); // where MiniLM is compiled first
  const minilm = python("from support.encoders import minilm; print(minilm())");
  const server = new FaultServer({ "/": SITE, "/models/all-minilm-l6-v2/": minilm }, { isolated: true });
  server.fault("/client/inpage.js", { body: Buffer.from(CLIENT) });
  /** @type {string[]} */
  const complaints = [];
  page.on("pageerror", (error) => void complaints.push(error.message));
  const passages = page.locator("#passages li");
  /** @param {string} question @param {string} button */
  const ask = async (question, button = "Search") => {
    await page.getByLabel("Question").fill(question);
    await page.getByRole("button", { name: button }).click();
  };
  try {
    await page.goto(`${await server.start()}/examples/search/index.html`);
    await expect(page.locator("#state")).toHaveText("Ready.", { timeout: 200_000 });
    const data = await page.evaluateHandle((files) => {
      const data = new DataTransfer();
      for (const [name, text] of Object.entries(files)) data.items.add(new File([text], name));
      data.items.add(new File([new Uint8Array([0xff, 0xfe, 0])], "picture.png"));
      return data;
    }, FILES);
    await page.dispatchEvent("body", "drop", { dataTransfer: data });
    await expect(page.getByRole("alert")).toHaveText("picture.png was not added: it is no text in UTF-8");
    await expect(page.locator("#files li")).toHaveCount(3);
    await ask("What did borrowing cost?");
    await expect(passages.first()).toContainText("interest rates");
    await ask("When do I prune flowers?");
    await expect(passages.first()).toContainText("roses are cut back"); // of a passage in the middle of its file
    await interrupted(page, ask);
    await page.getByRole("button", { name: "Remove money.txt" }).click();
    await expect(page.locator("#state")).toHaveText("money.txt is removed.");
    expect(await keptNames(page)).toEqual(["cats.txt", "notes.md"]);
    expect(complaints).toEqual([]);
    if (!SLOW) return;
    await answered(page, ask);
    await expect.poll(() => keptWhole(page)).toBe(true);
  } finally {
    await server.stop();
  }
  await page.reload();
  await expect(page.locator("#files li .name")).toHaveText(["cats.txt", "notes.md"]);
  await ask("When is the pet fed?");
  await expect(passages.first()).toContainText("She eats twice a day");
  await answered(page, ask);
  expect(complaints).toEqual([]);
});

/** The client, within reach of the test. */
const CLIENT = `
  import { InPage } from "./inpage.js?itself";
  const start = InPage.start.bind(InPage);
  InPage.start = (options) => start((globalThis.started = options));
  export { InPage };
  globalThis.InPage = InPage;
`;

/**
 * Neither a cancelled wait for the chat model nor a question before the last leaves anything on the page. The chat model is
 * the test's own here: it never loads, and then it goes on with its answers when the test says so.
 * @param {import("@playwright/test").Page} page
 * @param {(question: string, button: string) => Promise<void>} ask
 */
async function interrupted(page, ask) {
  const work = page.locator("#work");
  const text = page.locator("#answer-text");
  const itself = await page.evaluateHandle(() => {
    const { prototype } = /** @type {any} */ (globalThis).InPage;
    const { preload, loaded, countTokens, chat } = prototype;
    prototype.preload = () => new Promise(() => {});
    return { preload, loaded, countTokens, chat };
  });
  await ask("What did borrowing cost?", "Answer");
  await expect(work).toContainText("Loading smollm2-135m-instruct");
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.locator("#state")).toHaveText("Cancelled.");
  await expect(work).toBeHidden();
  await page.evaluate(() => /** @type {any} */ (globalThis).started.onProgress({ phase: "weights", model: "smollm2-135m-instruct", loaded: 1, total: 2 }));
  expect(await work.isVisible()).toBe(false);

  const answers = await page.evaluateHandle(() => {
    let [goOn, ended] = [() => {}, () => {}];
    const more = new Promise((resolve) => (goOn = () => resolve(null)));
    const first = new Promise((resolve) => (ended = () => resolve(null)));
    Object.assign(/** @type {any} */ (globalThis).InPage.prototype, {
      preload: async () => {},
      loaded: async () => [{ name: "smollm2-135m-instruct", context: 2048 }],
      countTokens: async () => 100,
      async *chat(/** @type {{content: string}[]} */ [{ content }]) {
        const name = content.endsWith("cost?") ? "one" : "two";
        try {
          yield { text: name };
          await more;
          yield { text: `, ${name}` };
        } finally {
          if (name === "one") ended();
        }
      },
    });
    return { goOn, first };
  });
  await ask("What did borrowing cost?", "Answer");
  await expect(text).toHaveText("one");
  await ask("When do I prune flowers?", "Answer");
  await expect(text).toHaveText("two");
  await answers.evaluate(({ goOn, first }) => (goOn(), first));
  await expect(work).toBeHidden();
  await expect(text).toHaveText("two, two");
  await expect(page.locator("#sources a").first()).toHaveText("[1] notes.md");
  await page.evaluate((own) => void Object.assign(/** @type {any} */ (globalThis).InPage.prototype, own), itself);
}

/** Names of the files whose passages IndexedDB holds, with 384 numbers each. @param {import("@playwright/test").Page} page */
const keptNames = (page) =>
  page.evaluate(async () => {
    /** @type {(request: any) => Promise<any>} */
    const done = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: reject }));
    const records = await done((await done(indexedDB.open("inpage-search"))).transaction("files").objectStore("files").getAll());
    return records.filter((/** @type {any} */ { spans, vectors }) => vectors.length === 384 * spans.length).map((/** @type {any} */ { name }) => name);
  });

/** Whether the service worker has all that the site needs. @param {import("@playwright/test").Page} page */
const keptWhole = (page) =>
  page.evaluate(async () => {
    const list = new URL("../../inpage-files.json", location.href);
    const found = await Promise.all((await caches.keys()).map(async (name) => (await caches.open(name)).match(list)));
    return found.some(Boolean);
  });

/** By SmolLM2, from the right file. @param {import("@playwright/test").Page} page @param {(question: string, button: string) => Promise<void>} ask */
async function answered(page, ask) {
  await ask("When does Minka eat?", "Answer");
  await expect(page.locator("#work")).toBeHidden({ timeout: 100_000 });
  await expect(page.locator("#answer-text")).toHaveText(/seven/);
  await expect(page.getByRole("link", { name: "[1] cats.txt" })).toHaveAttribute("href", "#passage-1");
}
