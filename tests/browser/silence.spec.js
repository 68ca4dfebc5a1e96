/**
 * @file Servers that fall silent: what never comes is said within ten seconds, what trickles is never cut. The clock of these
 * tests is turned by hand; only in the page it runs, a few times faster.
 */

import { DEFAULT_POLICY, download } from "../../web/engine/storage/download.js";
import { Patience, SCRIPTS_MS, STALL_MS, within } from "../../web/engine/host/waits.js";
import { expect, greedy, test } from "./support/failing.js";
import { call } from "./support/fixtures.js";
import { feed } from "./support/model.js";
import { BASE, MODEL } from "./support/router.js";

const FILE = { file: "weights/0.bin", bytes: 1000, sha256: "", field: "weights.shards[0]" };
/** Turns of the timer that are the whole of a limit. */
const WHOLE = 20;

/** Timers that run when they are told to. */
class Clock {
  /** @type {Map<number, {turn: () => void, ms: number, next: number}>} */
  timers = new Map();
  now = 0;
  #next = 1;
  #real = { setInterval: globalThis.setInterval, clearInterval: globalThis.clearInterval };

  constructor() {
    Object.assign(globalThis, {
      setInterval: (/** @type {() => void} */ turn, /** @type {number} */ ms) => (this.timers.set(this.#next, { turn, ms, next: this.now + ms }), this.#next++),
      clearInterval: (/** @type {number} */ id) => this.timers.delete(id),
    });
  }

  restore() {
    Object.assign(globalThis, this.#real);
  }

  /** Let so much time pass, and what follows happen. @param {number} ms */
  async pass(ms) {
    for (const end = this.now + ms; ; ) {
      const due = Math.min(end, ...[...this.timers.values()].map(({ next }) => next));
      this.now = due;
      for (const timer of [...this.timers.values()]) {
        if (timer.next > due) continue;
        timer.next += timer.ms;
        timer.turn();
      }
      await settle();
      if (due === end) return;
    }
  }
}

/** Promises that can be settled are. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A request as the network sees it. */
class Asked {
  /** @type {ReadableStreamDefaultController<Uint8Array> | undefined} */
  #body;
  #answer = (/** @type {Response} */ _) => {};
  aborted = false;

  /** @param {RequestInit} init */
  constructor({ headers, signal, cache }) {
    this.range = /** @type {Record<string, string>} */ (headers).Range ?? null;
    this.cache = cache;
    this.response = new Promise((resolve, reject) => {
      this.#answer = resolve;
      signal?.addEventListener("abort", () => {
        this.aborted = true;
        reject(signal.reason);
        this.#body?.error(signal.reason);
      });
    });
  }

  /** @param {number} [status] */
  headers(status = this.range ? 206 : 200) {
    const body = new ReadableStream({ start: (controller) => void (this.#body = controller) });
    const from = Number(this.range?.slice(6, -1) ?? 0);
    const headers = status === 206 ? { "Content-Range": `bytes ${from}-${FILE.bytes - 1}/${FILE.bytes}` } : undefined;
    this.#answer(new Response(body, { status, headers }));
    return settle();
  }

  /** @param {number} bytes */
  async send(bytes) {
    this.#body?.enqueue(new Uint8Array(bytes));
    await settle();
  }

  async close() {
    if (!this.aborted) this.#body?.close();
    await settle();
  }
}

/** @type {import("@playwright/test").TestType<{clock: Clock, asked: Asked[]}, {}>} */
const net = test.extend(
  /** @type {any} */ ({
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    clock: async ({}, /** @type {(clock: Clock) => Promise<void>} */ use) => {
      const clock = new Clock();
      try {
        await use(clock);
      } finally {
        clock.restore();
      }
    },
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    asked: async ({}, /** @type {(asked: Asked[]) => Promise<void>} */ use) => {
      const { fetch } = globalThis;
      /** @type {Asked[]} */
      const asked = [];
      globalThis.fetch = async (_, init) => {
        asked.push(new Asked(/** @type {RequestInit} */ (init)));
        return /** @type {Promise<Response>} */ (asked[asked.length - 1].response);
      };
      await use(asked);
      globalThis.fetch = fetch;
    },
  }),
);

/** A download under way: what became of it, and how much of it there is. */
function begin() {
  const state = {
    received: 0,
    resets: 0,
    push: (/** @type {Uint8Array} */ chunk) => void (state.received += chunk.length),
    reset: () => void ([state.received, state.resets] = [0, state.resets + 1]),
    /** @type {any} */
    ended: null,
  };
  download("http://host/0.bin", FILE, state, { policy: DEFAULT_POLICY, signal: new AbortController().signal, cache: "default" }).then(
    () => (state.ended = "whole"),
    (error) => (state.ended = error),
  );
  return state;
}

net("silence is told within ten seconds, whatever was sent before it", async ({ clock, asked }) => {
  expect(STALL_MS).toBeLessThan(10_000);
  /** @type {[string, (first: Asked) => Promise<void>, number][]} */
  const cases = [
    ["nothing", async () => {}, 0],
    ["headers", (first) => first.headers(), 0],
    ["half", (first) => first.headers().then(() => first.send(500)), 500],
  ];
  for (const [what, before, received] of cases) {
    asked.length = 0;
    const state = begin();
    await settle();
    await before(asked[0]);
    await clock.pass(STALL_MS * 0.99);
    expect([what, state.ended]).toEqual([what, null]);
    // Asked once more, from where it stopped, and past a cache in which it would wait for the first.
    expect(asked.map(({ range }) => range)).toEqual([null, received ? `bytes=${received}-` : null]);
    expect(asked[1].cache).toBe("no-store");
    await clock.pass(STALL_MS * 0.02);
    expect(state.ended).toMatchObject({ code: "network", field: FILE.field });
    expect(state.ended.message).toContain(`${FILE.file}: nothing came for 9 s (${received} of 1000 bytes)`);
    expect([state.received, state.resets]).toEqual([received, 0]);
    expect(asked.every(({ aborted }) => aborted)).toBe(true);
    expect(clock.timers.size).toBe(0);
  }
});

net("what trickles is never cut, and the first byte may take nearly all of the limit", async ({ clock, asked }) => {
  const state = begin();
  await clock.pass(STALL_MS * 0.9);
  await asked[0].headers();
  for (let i = 0; i < 10; i++) {
    await asked[0].send(100);
    await clock.pass(i === 9 ? 0 : STALL_MS * 0.9);
    expect(state.received).toBe(100 * (i + 1));
  }
  await asked[0].close();
  expect(state.ended).toBe("whole");
  // Those beside it came to nothing, and were let go.
  expect(asked.slice(1).every(({ aborted }) => aborted)).toBe(true);
});

net("of two requests the first that sends goes on, once", async ({ clock, asked }) => {
  const state = begin();
  await settle();
  await asked[0].headers();
  await asked[0].send(400);
  await clock.pass(STALL_MS / 2);
  expect(asked.map(({ range }) => range)).toEqual([null, "bytes=400-"]);
  await asked[1].headers();
  // Both in the same moment: only one of them counts.
  await Promise.all([asked[1].send(600), asked[0].send(600)]);
  await Promise.all([asked[1].close(), asked[0].close()]);
  expect([state.received, state.ended]).toEqual([1000, "whole"]);
});

net("a server that refuses to go on beside the first is asked for the whole", async ({ clock, asked }) => {
  const state = begin();
  await settle();
  await asked[0].headers();
  await asked[0].send(400);
  await clock.pass(STALL_MS / 2);
  await asked[1].headers(416);
  expect(asked.map(({ range, aborted }) => [range, aborted])).toEqual([[null, true], ["bytes=400-", true], [null, false]]);
  await asked[2].headers();
  await asked[2].send(1000);
  await asked[2].close();
  expect([state.received, state.resets, state.ended]).toEqual([1000, 1, "whole"]);
});

net("a file that waits while another arrives is not silent", async ({ clock, asked }) => {
  const [first, second] = [begin(), begin()];
  await settle();
  await asked[0].headers();
  for (let i = 0; i < 5; i++) {
    await asked[0].send(100);
    await clock.pass(STALL_MS * 0.8);
  }
  expect([first.ended, second.ended]).toEqual([null, null]);
  await clock.pass(STALL_MS * 0.25);
  expect([first.ended.code, second.ended.code]).toEqual(["network", "network"]);
});

net("a limit counts turns of its own timer only, and what came in time leaves none behind", async ({ clock }) => {
  let over = 0;
  const patience = new Patience(1000, () => over++);
  // However late they come: a page that was frozen for an hour has had one turn.
  const [{ turn }] = clock.timers.values();
  for (let i = 1; i < WHOLE; i++) turn();
  patience.again();
  for (let i = 1; i < WHOLE; i++) turn();
  expect(over).toBe(0);
  turn();
  expect([over, clock.timers.size]).toEqual([1, 0]);
  expect(await within(Promise.resolve(3), 1000, "a step", "a file")).toBe(3);
  expect(clock.timers.size).toBe(0);
  const never = within(new Promise(() => {}), SCRIPTS_MS, "a step", "a file").catch((error) => error);
  await clock.pass(SCRIPTS_MS);
  expect(await never).toMatchObject({ code: "network", field: "a file", message: "a step: a file did not come within 45 s" });
});

// -- in the page ---------------------------------------------------------------------------------------------------

/** Limits end after two or three seconds. What is alive has to answer in that. */
const HURRY = `{ const real = setInterval; globalThis.setInterval = (turn, ms, ...more) => real(turn, ms / (ms < 1000 ? 5 : 15), ...more); }`;

/** @param {import("@playwright/test").BrowserContext} context @param {import("./support/server.js").FaultServer} server */
async function hurry(context, server) {
  server.prelude = HURRY;
  await context.addInitScript(HURRY);
}

/** @typedef {import("./support/server.js").Fault} Fault */
/** @type {Record<string, (never: Promise<unknown>) => Fault>} */
const FAULTS = {
  "never comes": (never) => ({ silent: never }),
  "is missing": () => ({ status: 404 }),
  "is of another type": () => ({ headers: { "Content-Type": "text/html" } }),
};

/**
 * While a server does that to a file. Afterwards it is well, and what it still owed it sends: until then a browser may keep
 * whoever asks for the same file waiting.
 * @template T
 * @param {import("./support/server.js").FaultServer} server
 * @param {string} url
 * @param {(never: Promise<unknown>) => Fault} fault
 * @param {() => Promise<T>} work
 */
async function during(server, url, fault, work) {
  let release = () => {};
  server.fault(url, { ...fault(new Promise((resolve) => (release = () => resolve(null)))), always: true });
  const found = await work();
  server.clear();
  release();
  return found;
}

test("a file that a server begins and never ends is named, and the next load works", async ({ context, server, openLab, model, manifest }) => {
  await hurry(context, server);
  const lab = await openLab();
  const [{ plan, kernels }] = manifest.variants.filter((/** @type {any} */ { name }) => name === "wasm-simd");
  const files = { "weights.shards[2]": manifest.weights.shards[2], plan, kernels };
  for (const [field, { file }] of Object.entries(files)) {
    for (const when of ["silent", "hold"]) {
      const loading = () => call(lab, "load", { base: MODEL.slice(0, -1), cache: false });
      const { error } = await during(server, `${MODEL}${file}`, (never) => ({ [when]: never }), loading);
      expect(error).toMatchObject({ code: "network", field: expect.stringContaining(field) });
      expect(error.message).toMatch(new RegExp(`${file}: nothing came for 9 s`));
    }
  }
  const { error } = await call(lab, "load", { base: MODEL.slice(0, -1) });
  expect(error).toBeUndefined();
  await call(lab, "reservePages", 8);
  const { value } = await call(lab, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
  expect(value.logits).toEqual(model.logits([3, 1, 4]));
});

for (const [what, fault] of Object.entries(FAULTS)) {
  test(`an engine's script that ${what} ends the load with an error that names it, and the next load works`, async ({ context, server, openLab }) => {
    await hurry(context, server);
    server.apart = true;
    const lab = await openLab();
    /** @type {[string, string][]} a file, and what is named: of what a script imports nobody tells */
    const scripts = [["worker.js", "engine/worker.js"], ["core/batch.js", "engine/wasm/load.js"], ["wasm/thread.js", "wasm/thread.js"]];
    for (const [file, named] of scripts) {
      const { error } = await during(server, `${BASE}engine/${file}`, fault, () => call(lab, "load", { base: MODEL.slice(0, -1), threads: 2 }));
      expect(error).toMatchObject({ code: "network", field: named, message: expect.stringContaining(named) });
    }
    expect(await call(lab, "load", { base: MODEL.slice(0, -1), threads: 2 })).toMatchObject({ value: { threads: 2 } });
  });

  if (process.env.INPAGE_SLOW || what === "is missing") test(`where a script beside the router ${what}, what needs it fails or does without it, and nothing else`, async ({ context, page, start, ask, server, model }) => {
    await hurry(context, server);
    server.apart = true;
    await page.reload();
    for (const file of ["router/worker.js", "engine/worker.js"]) {
      const { error } = await during(server, `${BASE}${file}`, fault, () => start({ threads: 1 }));
      expect(error).toMatchObject({ code: "network", field: file });
    }
    expect((await start({ threads: 1 })).error).toBeUndefined();
    const held = () => ask("chat", "hello", { regex: "[a-c]{4}" });
    for (const file of ["engine/grammar/grammar_worker.js", "vendor/xgrammar/xgrammar.js", "engine/grammar/stepwise.js"]) {
      const [bad, free] = await during(server, `${BASE}${file}`, fault, () => Promise.all([held(), ask("chat", "hello")]));
      expect([file, bad.code, free.ids]).toEqual([file, "network", greedy(model, "hello", 60)]);
    }
    const long = () => ask("complete", "a".repeat(20_000));
    // Tokenized by the router itself then, which nobody waits for a second time.
    expect(await during(server, `${BASE}router/text_worker.js`, fault, async () => [await long(), await long(), server.requests(`${BASE}router/text_worker.js`).length <= 1])).toEqual([
      { code: "invalid_request" },
      { code: "invalid_request" },
      true,
    ]);
  });
}

test("a tokenizer that a server begins and never ends is named, and the next start works", async ({ context, page, start, ask, server, model }) => {
  await hurry(context, server);
  await page.reload();
  const { error } = await during(server, `${MODEL}tokenizer.json`, (never) => ({ hold: never }), () => start({ threads: 1 }));
  expect(error).toMatchObject({ code: "network", field: "tokenizer", message: expect.stringContaining("nothing came for 9 s") });
  expect((await start({ threads: 1 })).error).toBeUndefined();
  expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
});
