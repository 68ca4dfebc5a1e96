/**
 * @file The real model under load, through the router on the built site: crowds, repeated questions, kills and cancels, and
 * many short requests. Counts and equality only; how long it took is printed. INPAGE_SLOW=1 runs the long forms.
 */

import { Killer } from "./support/killer.js";
import { inPython, showPython } from "./support/python.js";
import { TEXT } from "./support/real.js";
import { expect, test as base } from "./support/site.js";

const SLOW = Boolean(process.env.INPAGE_SLOW);
const SETTINGS = { scheduler: { timeout: null }, answers: { enabled: true, storage_bytes: 0 }, kv: { prefix_bytes: 16 << 20 } };

/** @typedef {import("@playwright/test").Page} Page */

/** @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & {site: import("./support/site.js").Served, loaded: {page: Page, killer: Killer}}>} */
const test = base.extend(
  /** @type {any} */ ({
    loaded: [
      /** @param {{browser: import("@playwright/test").Browser, site: import("./support/site.js").Served}} fixtures @param {(value: {page: Page, killer: Killer}) => Promise<void>} use */
      async ({ browser, site }, use) => {
        const page = await browser.newPage();
        const killer = new Killer(page);
        await page.goto(`${site.url}NOTICES.txt`);
        await killer.install();
        await showPython(page);
        await page.evaluate(async (settings) => {
          const scope = /** @type {any} */ (globalThis);
          const { InPage } = await import(new URL("client/inpage.js", location.href).href);
          scope.inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct", backend: "wasm-relaxed", settings });
          /** Ids of an answer; `heard` gets the ids of each piece. @param {any} prompt @param {any} params @param {(ids: number[]) => void} [heard] */
          scope.ask = async (prompt, params, heard = () => {}) => {
            const ids = [];
            let last;
            for await (const piece of scope.inpage.complete(prompt, { temperature: 0, cache: false, ...params })) {
              ids.push(...piece.token_ids);
              if (piece.token_ids.length) heard(piece.token_ids);
              last = piece;
            }
            return { ids, finish: last.finish_reason };
          };
          /** What is in use when nobody asks. */
          scope.settled = async () => {
            for (;;) {
              const info = await scope.inpage.refresh();
              if (info.requests.active + info.requests.waiting === 0) return { used: info.kv_pages.used, reserved: info.kv_pages.reserved };
            }
          };
        }, SETTINGS);
        await use({ page, killer });
        await page.close();
      },
      { scope: "worker" },
    ],
  }),
);

test.describe.configure({ timeout: SLOW ? 1_200_000 : 120_000 });

/** Prompts that all differ. @param {number} count @param {number} length in tokens @param {number} [from] */
const prompts = (count, length, from = 0) => Array.from({ length: count }, (_, i) => TEXT.ids.slice(from + 7 * i, from + 7 * i + length));

/** @param {number} seed @returns {() => number} 0..1, always the same (mulberry32) */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** How many are asked at once, and so many answers have begun when a guest comes: the places of sixteen are taken then. */
const [CROWD, BEGUN] = SLOW ? [100, 40] : [60, 24];

test(`${CROWD} at once answer as each alone; another client's one waits for none of them`, async ({ loaded: { page } }) => {
  const found = await page.evaluate(async ([prompts, begun]) => {
    const { ask, settled } = /** @type {any} */ (globalThis);
    const how = (/** @type {number} */ i) => ({ max_tokens: 4, ...(i % 2 ? { temperature: 0.9, seed: i } : {}) });
    const alone = [];
    for (const [i, prompt] of prompts.entries()) alone.push((await ask(prompt, how(i))).ids);
    const began = performance.now();
    const together = await Promise.all(prompts.map(async (prompt, i) => (await ask(prompt, how(i))).ids));
    const wall = performance.now() - began;

    const guest = prompts[0].slice(0, 9);
    const guestAlone = performance.now();
    let idleWait = 0;
    await ask(guest, { max_tokens: 2, client: "guest" }, () => (idleWait ||= performance.now() - guestAlone));
    /** @type {string[]} whose first token came */
    const firsts = [];
    /** Tokens of the crowd between the guest's question and its first token. */
    let [asked, meanwhile, wait] = [0, 0, 0];
    /** @type {Promise<any> | undefined} */
    let visit;
    const crowd = prompts.map((prompt, i) => {
      let first = true;
      return ask(prompt, { max_tokens: 8, client: "crowd" }, (/** @type {number[]} */ ids) => {
        if (first) firsts.push(String(i));
        first = false;
        if (asked && !wait) meanwhile += ids.length;
        if (firsts.length < begun || visit) return; // others' places are taken, and more wait
        asked = performance.now();
        visit = ask(guest, { max_tokens: 2, client: "guest" }, () => {
          wait ||= performance.now() - asked;
          firsts.push("guest");
        });
      });
    });
    await Promise.all(crowd);
    await visit;
    return { alone, together, wall, firsts, idleWait, wait, meanwhile, left: await settled() };
  }, /** @type {const} */ ([prompts(CROWD, 12), BEGUN]));
  expect(found.together).toEqual(found.alone);
  expect(new Set(found.alone.map(String)).size).toBeGreaterThan(0.9 * CROWD);
  // At most those whose prompts were in the step that was under way, and pieces that were on their way already.
  expect(found.firsts).toContain("guest");
  expect(found.firsts.indexOf("guest") - BEGUN).toBeLessThan(32);
  expect(found.left.used).toBe(0);
  console.log(`${CROWD} at once: ${Math.round(found.wall)} ms; a guest waits ${Math.round(found.idleWait)} ms alone, ${Math.round(found.wait)} ms in the crowd, with ${found.firsts.indexOf("guest") - BEGUN} answers begun and ${found.meanwhile} tokens of others meanwhile`);
});

/** Asks the questions of `data.order`, which are places in `data.texts`, one after the other; then some whose answers are kept, `data.again` times. */
const QUESTIONS = `
import time

async def ask(number):
    began = time.perf_counter()
    answer = await router.chat(questions[number], temperature=0, max_tokens=4)
    return answer, (time.perf_counter() - began) * 1e3

def figures(times):
    times = sorted(times)
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)], "most": times[-1]}

def runs():
    return router.scheduler.metrics.requests.total

questions = [f"Go on: {router.tokenizer.decode(ids)}" for ids in data["texts"]]
order, before = data["order"], runs()
first, hits, lost, wrong = {}, [], 0, 0
for number in order:
    answer, ms = await ask(number)
    if number not in first:
        first[number] = answer.token_ids
        lost += answer.source != "engine" or len(answer.token_ids) == 0
        continue
    wrong += answer.token_ids != first[number]
    lost += answer.source != "memory"
    hits.append(ms)
ran = runs() - before
began = time.perf_counter()
alone = [(await ask(order[i % len(order)]))[1] for i in range(data["again"])]
rate = data["again"] / (time.perf_counter() - began)
json.dumps({"hits": len(hits), "runs": ran, "later": runs() - before - ran, "answers": len({str(ids) for ids in first.values()}),
            "lost": lost, "wrong": wrong, "among": figures(hits), "alone": figures(alone), "rate": rate})
`;

(SLOW ? test : test.skip)("questions, Zipf over a hundred, asked in Python: all but the first of each come from memory", async ({ loaded: { page } }) => {
  const weights = Array.from({ length: 100 }, (_, i) => 1 / (i + 1));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const next = random(3);
  const order = Array.from({ length: SLOW ? 1000 : 150 }, () => {
    let left = next() * total;
    return weights.findIndex((weight) => (left -= weight) < 0);
  });
  const distinct = new Set(order).size;
  const found = await inPython(page, QUESTIONS, { texts: prompts(100, 16, 1000), order, again: SLOW ? 3000 : 150 });
  expect(found).toMatchObject({ hits: order.length - distinct, runs: distinct, later: 0, lost: 0, wrong: 0 });
  expect(found.answers).toBeGreaterThan(distinct / 2);
  if (SLOW) expect(found.hits / order.length).toBeGreaterThan(0.8);
  /** @param {{p50: number, p99: number, most: number}} times */
  const told = ({ p50, p99, most }) => `p50 ${p50.toFixed(2)}, p99 ${p99.toFixed(2)}, most ${most.toFixed(2)} ms`;
  console.log(`Zipf: ${found.hits} of ${order.length} hits (${((100 * found.hits) / order.length).toFixed(1)} %), ${told(found.among)}; ` +
    `hits alone: ${told(found.alone)}, ${Math.round(found.rate)} a second`);
});

test("kills and cancels in mid-answer, eight streams in flight: each ends with exactly its tokens", async ({ loaded: { page, killer } }) => {
  const next = random(17);
  const asked = prompts(8, 20, 2000);
  const params = asked.map((_, i) => ({ max_tokens: 40, ...(i % 2 ? { temperature: 0.8, seed: i, repetition_penalty: 1.1 } : {}) }));
  const alone = await page.evaluate(async ([asked, params]) => {
    const answers = [];
    for (const [i, prompt] of asked.entries()) answers.push((await /** @type {any} */ (globalThis).ask(prompt, params[i])).ids);
    return answers;
  }, /** @type {const} */ ([asked, params]));
  const wanted = SLOW ? 50 : 6;
  let [kills, cancels] = [0, 0];
  while (kills + cancels < wanted) {
    const fuses = Array.from({ length: SLOW ? 3 : 2 }, () => 2 + Math.floor(next() * 6));
    await killer.engines(fuses);
    const stops = asked.map(() => (next() < 0.3 ? 1 + Math.floor(next() * 4) : 0)); // cancelled after so many pieces, and asked again
    const found = await page.evaluate(async ([asked, params, stops]) => {
      const { ask, settled } = /** @type {any} */ (globalThis);
      let cancelled = 0;
      const ids = await Promise.all(asked.map(async (prompt, i) => {
        const stop = new AbortController();
        let pieces = 0;
        const heard = () => void (++pieces === stops[i] && stop.abort());
        const first = await ask(prompt, { ...params[i], signal: stop.signal }, heard);
        if (first.finish !== "cancelled") return [first.ids];
        cancelled++;
        return [first.ids, (await ask(prompt, params[i])).ids];
      }));
      return { ids, cancelled, left: await settled() };
    }, /** @type {const} */ ([asked, params, stops]));
    for (const [i, [first, second]] of found.ids.entries()) {
      expect(first).toEqual(alone[i].slice(0, second ? first.length : undefined));
      if (second) expect(second).toEqual(alone[i]);
    }
    expect(found.left.used).toBe(0);
    kills += await killer.deaths();
    cancels += found.cancelled;
  }
  await killer.engines([]);
  expect(kills).toBeGreaterThan(0);
  expect(cancels).toBeGreaterThan(0);
  console.log(`chaos: ${kills} kills and ${cancels} cancels`);
});

test("many short requests, some of them cut short, leave memory and pages as they were", async ({ loaded: { page } }) => {
  const found = await page.evaluate(async ([prompts, rounds]) => {
    const { ask, settled, inpage } = /** @type {any} */ (globalThis);
    const seen = [];
    let cancelled = 0;
    for (let round = 0; round < rounds; round++) {
      await Promise.all(prompts.map(async (prompt, i) => {
        const stop = new AbortController();
        if (i % 5 === 0) setTimeout(() => stop.abort(), (i * 37) % 200); // anywhere: waiting, in its prompt, in its answer
        const { finish } = await ask([...prompt, 300 + round], { max_tokens: 3, signal: stop.signal });
        if (finish === "cancelled") cancelled++;
      }));
      const left = await settled();
      const { weight_bytes, arena_bytes, kv_bytes } = inpage.info;
      seen.push({ ...left, bytes: weight_bytes + arena_bytes + kv_bytes });
    }
    return { seen, cancelled };
  }, /** @type {const} */ ([prompts(SLOW ? 50 : 25, SLOW ? 24 : 12, 3000), SLOW ? 40 : 3]));
  const [, warm] = found.seen;
  expect(found.seen.slice(1).map(({ used }) => used)).toEqual(found.seen.slice(1).map(() => 0));
  for (const { bytes } of found.seen.slice(1)) expect(bytes).toBeLessThan(warm.bytes * 1.01);
  console.log(`${found.seen.length} times many short requests, ${found.cancelled} cut short: ${warm.bytes} bytes after the second time, ${found.seen.at(-1)?.bytes} at the end`);
});

(SLOW ? test : test.skip)("a prefix of 512 tokens is read once, and not at all after a reload: the same tokens as from a cold start", async ({ page, site }) => {
  const prefix = TEXT.ids.slice(0, 512);
  const [first, second] = [600, 700].map((at) => [...prefix, ...TEXT.ids.slice(at, at + 16)]);
  /** A visit that asks what is given, one after the other. @param {number[][]} asked @param {"exportPrefix" | "importPrefix" | ""} [call] before the asking, or after it */
  const visit = async (asked, call = "") => {
    await page.goto(`${site.url}NOTICES.txt`);
    return page.evaluate(async ([asked, call, prefix]) => {
      const { InPage } = await import(new URL("client/inpage.js", location.href).href);
      const inpage = await InPage.start({ base: "./", model: "smollm2-135m-instruct", backend: "wasm-relaxed" });
      const ask = async (/** @type {number[]} */ prompt) => {
        let last;
        for await (const piece of inpage.complete(prompt, { temperature: 0, max_tokens: 12 })) last = piece;
        const { token_ids, cached_tokens, ttft_ms } = last.completion;
        return { ids: token_ids, cached: cached_tokens, ms: ttft_ms };
      };
      await ask([1, 2, 3]);
      const began = performance.now();
      const imported = call === "importPrefix" ? await inpage.importPrefix(prefix) : 0;
      const importing = performance.now() - began;
      const answers = [];
      for (const prompt of asked) answers.push(await ask(prompt));
      const exported = call === "exportPrefix" ? await inpage.exportPrefix(prefix) : 0;
      await inpage.unload();
      return { answers, imported, exported, importing };
    }, /** @type {const} */ ([asked, call, prefix]));
  };
  const cold = await visit([first]);
  const shared = await visit([second, first], "exportPrefix");
  const later = await visit([first], "importPrefix");
  const [{ ids, ms }] = cold.answers;
  expect([shared.exported, later.imported]).toEqual([512, 512]);
  expect([cold.answers[0].cached, shared.answers[0].cached, shared.answers[1].cached, later.answers[0].cached]).toEqual([0, 0, 512, 512]);
  expect([shared.answers[1].ids, later.answers[0].ids]).toEqual([ids, ids]);
  /** @param {number} time */
  const share = (time) => `${time.toFixed(0)} ms (${((100 * time) / ms).toFixed(1)} %)`;
  console.log(`528 tokens: first token after ${ms.toFixed(0)} ms cold, ${share(shared.answers[1].ms)} behind a shared prefix, ` +
    `${share(later.answers[0].ms)} behind one that was imported, the import apart ${later.importing.toFixed(0)} ms`);
});
