/**
 * @file Tabs that share one router: a second one costs no second Python and no second copy of the weights, and when the tab
 * that hosts it goes, in whatever way, answers of the others go on in another tab, token for token.
 */

import { BASE, MODEL, OTHERS, prompt, text } from "./support/router.js";
import { expect, test as base } from "./support/tabs.js";

/** @typedef {import("@playwright/test").Page} Page */
/** @typedef {"closed" | "crashed" | "frozen"} How */

const SLOW = Boolean(process.env.INPAGE_SLOW);
const GOINGS = SLOW ? 20 : 1;
const PLAIN = { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 } };
const SAMPLED = { temperature: 1.1, top_p: 0.95, seed: 7, max_tokens: 60, logit_bias: { 2: -100, 62: -100, 63: -100 } };

/** @param {any} model @param {string} content */
const said = (model, content) => text(model.greedy(prompt(content), 60));

/**
 * For a page that hosts a router. `hold`: after so many messages of each stream under way, nothing more of it arrives.
 * `poison`: the router dies of a request that has this text, once it has begun. What it is told to cancel is counted.
 */
function held() {
  const scope = /** @type {any} */ (globalThis);
  if ("hold" in scope) return; // an earlier test of this browser brought it too
  Object.assign(scope, { hold: Infinity, poison: "", deaths: 0, cancelled: 0 });
  scope.Worker = class extends Worker {
    /** @type {Map<string, number>} */
    #seen = new Map();
    #bad = "";
    /** @param {string | URL} url @param {WorkerOptions} options */
    constructor(url, options) {
      super(url, options);
      this.addEventListener("message", (event) => {
        if (this.#bad && event.data?.startsWith?.(`{"id": ${this.#bad}, "begun"`)) {
          scope.deaths++;
          this.terminate();
          event.stopImmediatePropagation();
        }
        const id = typeof event.data === "string" && /^\{"id": (\d+), "(?:piece|chunk|value)"/.exec(event.data)?.[1];
        if (!id || scope.hold === Infinity) return;
        const seen = (this.#seen.get(id) ?? 0) + 1;
        this.#seen.set(id, seen);
        if (seen > scope.hold) event.stopImmediatePropagation();
      });
    }
    /** @param {any} message @param {any[]} more */
    postMessage(message, ...more) {
      if (typeof message === "string" && message.includes('"op":"cancel"')) scope.cancelled++;
      if (scope.poison && typeof message === "string" && message.includes(scope.poison)) this.#bad = /"id":(\d+)/.exec(message)?.[1] ?? "";
      super.postMessage(message, .../** @type {[]} */ (more));
    }
  };
}

/**
 * `tab`: another tab of the origin, with InPage started there.
 * @type {import("@playwright/test").TestType<import("@playwright/test").PlaywrightTestArgs & import("@playwright/test").PlaywrightTestOptions & import("./support/fixtures.js").TestFixtures & import("./support/router.js").RouterFixtures & {tab: (options?: object) => Promise<Page>}, import("@playwright/test").PlaywrightWorkerArgs & import("@playwright/test").PlaywrightWorkerOptions & import("./support/fixtures.js").WorkerFixtures & import("./support/router.js").RouterWorkerFixtures>}
 */
const test = base.extend(
  /** @type {any} */ ({
    /** @param {{context: import("@playwright/test").BrowserContext, origin: string, start: unknown}} fixtures @param {(value: any) => Promise<void>} use */
    tab: async ({ context, origin, start: _ }, use) => {
      await context.addInitScript(held); // of the browser: it is there in the next test too
      await context.addInitScript(() => void Object.assign(globalThis, { INPAGE_VERSION: "of-a-test" }));
      await use(async (/** @type {object} */ options = {}) => {
        const tab = await context.newPage();
        await tab.goto(`${origin}/tests/browser/support/blank.html`);
        await tab.evaluate(
          async ([base, model, options]) => {
            const { InPage } = await import(`${base}client/inpage.js`);
            const inpage = await InPage.start({ base, model, shared: true, threads: 2, .../** @type {object} */ (options) });
            Object.assign(globalThis, { inpage });
          },
          /** @type {const} */ ([BASE, MODEL, options]),
        );
        return tab;
      });
    },
  }),
);

/** @param {Page} tab @returns {string[]} the workers that it has for a model */
const workers = (tab) => tab.workers().map((worker) => /(router|engine)\/worker\.js$/.exec(worker.url())?.[1] ?? "").filter(Boolean).sort();

/** @param {Page} tab @param {string} content @param {object} [params] */
function ask(tab, content, params = PLAIN) {
  return tab.evaluate(
    async ([content, params]) => {
      const { inpage } = /** @type {any} */ (globalThis);
      try {
        let last;
        for await (last of inpage.chat(content, params));
        return last.completion.text;
      } catch (error) {
        const { code, field } = /** @type {any} */ (error);
        return { code, field };
      }
    },
    /** @type {const} */ ([content, params]),
  );
}

/** Begins answers of each kind, as `running`, which stand still after their first pieces. @param {Page} tab @param {Page} host */
async function begin(tab, host) {
  await host.evaluate(() => void (/** @type {any} */ (globalThis).hold = 2));
  await tab.evaluate(
    async ([PLAIN, SAMPLED]) => {
      const scope = /** @type {any} */ (globalThis);
      const { inpage } = scope;
      /** @param {string} content @param {object} params @param {() => void} got */
      const chat = async (content, params, got) => {
        let [said, last, gap] = ["", /** @type {any} */ (null), 0];
        for await (last of inpage.chat(content, params)) {
          said += last.text;
          gap ||= last.failovers?.[0].gap_ms ?? 0;
          if (last.token_ids.length) got();
        }
        return { said, whole: last.completion.text, moved: last.completion.failovers.length, gap };
      };
      /** @param {() => void} got */
      const events = async (got) => {
        const body = JSON.stringify({ messages: [{ role: "user", content: "who are you" }], stream: true, .../** @type {object} */ (PLAIN) });
        const response = await inpage.fetch("v1/chat/completions", { method: "POST", body });
        let said = "";
        for await (const bytes of response.body) {
          said += new TextDecoder().decode(bytes);
          got();
        }
        const chunks = said.split("\n\n").filter((event) => event.includes("{")).map((event) => JSON.parse(event.slice(6)));
        return chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
      };
      /** @param {(got: () => void) => Promise<unknown>} run */
      const begun = (run) => {
        /** @type {Promise<unknown> | undefined} */
        let answer;
        const first = new Promise((resolve) => (answer = run(() => resolve(null))));
        return first.then(() => ({ answer }));
      };
      const all = await Promise.all([begun((got) => chat("hello", PLAIN, got)), begun((got) => chat("x", SAMPLED, got)), begun(events)]);
      scope.running = Promise.all(all.map(({ answer }) => answer));
    },
    /** @type {const} */ ([PLAIN, SAMPLED]),
  );
}

/** The hosting tab goes. @param {Page} host @param {How} how */
async function go(host, how) {
  if (how === "closed") return host.close();
  const devtools = await host.context().newCDPSession(host);
  if (how === "frozen") return devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  const crashed = host.waitForEvent("crash");
  devtools.send("Page.crash").catch(() => {}); // never answered
  await crashed;
}

test("a second tab has no Python and no weights of its own, and all that the first can do", async ({ tab, model, server }) => {
  const first = await tab();
  expect(workers(first)).toEqual(["engine", "router"]);
  server.log = [];
  const second = await tab();
  expect(workers(second)).toEqual([]);
  // Tabs of another version of the site would have another lock, and so a router of their own.
  const locks = await first.evaluate(async () => (await navigator.locks.query()).held?.map(({ name }) => name));
  expect(locks).toContainEqual(expect.stringMatching(/^inpage-tabs-of-a-test-[0-9a-f]{64}$/));
  expect(server.log.map(({ path }) => path).filter((path) => path.startsWith(MODEL) || /\.(zip|wasm)$|\/worker\.js$/.test(path))).toEqual([]);
  expect(await ask(second, "hello")).toBe(said(model, "hello"));
  /** What may differ from tab to tab is left out. @param {Page} tab */
  const all = (tab) =>
    tab.evaluate(async (PLAIN) => {
      const { inpage } = /** @type {any} */ (globalThis);
      /** @param {AsyncIterable<any>} answer */
      const whole = async (answer) => {
        let last;
        for await (last of answer);
        return [last.completion.text, last.finish_reason, last.usage.completion_tokens];
      };
      /** @param {Promise<any>} promise */
      const failure = (promise) => promise.then(() => "no error", ({ name, code, field, message }) => [name, code, field, message]);
      const response = await inpage.fetch("/v1/chat/completions", { method: "POST", body: "{}" });
      return {
        info: inpage.info.name, answers: [await whole(inpage.complete("abc", PLAIN)), await whole(inpage.chat("x", { ...PLAIN, regex: "[a-f]{9}" }))],
        score: await inpage.score("hello there", 64), health: await inpage.health(), counters: Object.keys(await inpage.counters()),
        metrics: (await inpage.metrics()).includes("inpage_"), loaded: (await inpage.loaded()).map((/** @type {any} */ state) => state.name),
        response: [response.status, await response.json()],
        failures: [
          await failure(whole(inpage.chat("x", { temperature: 9 }))), await failure(whole(inpage.chat("x", { model: "other" }))),
          await failure(inpage.score("x", 0)), await failure(inpage.add({ model: "/model/" })), await failure(whole(inpage.chat("x", { seed: 1n }))),
        ],
      };
    }, PLAIN);
  expect(await all(second)).toEqual(await all(first));

  // Aborted in mid-answer, left by a loop, and the tab closed with three under way: each is cancelled in the router.
  await first.evaluate(() => void (/** @type {any} */ (globalThis).hold = 1)); // or it ends before it is stopped
  const stopped = await second.evaluate(async (PLAIN) => {
    const { inpage } = /** @type {any} */ (globalThis);
    const stop = new AbortController();
    let last;
    for await (last of inpage.chat("a b c", { ...PLAIN, max_tokens: 90, signal: stop.signal })) stop.abort();
    return last.finish_reason;
  }, PLAIN);
  expect(stopped).toBe("cancelled");
  await begin(second, first);
  await second.evaluate(async (PLAIN) => {
    for await (const piece of /** @type {any} */ (globalThis).inpage.chat("zz", PLAIN)) if (piece) break;
  }, PLAIN);
  await second.close();
  const left = await first.evaluate(async () => {
    const scope = /** @type {any} */ (globalThis);
    scope.hold = Infinity;
    while (scope.cancelled < 5) await scope.inpage.refresh();
    return scope.inpage.info.kv_pages.used;
  });
  expect(left).toBe(0);

  // Tabs with other options have another router. What one adds, all have, and a tab that takes over too.
  const third = await tab({ threads: 1 });
  expect([workers(third), workers(first)]).toEqual([["engine", "router"], ["engine", "router"]]);
  expect(await ask(third, "abc")).toBe(said(model, "abc"));
  await third.close();
  const fourth = await tab();
  const [other] = OTHERS;
  const name = await fourth.evaluate((other) => /** @type {any} */ (globalThis).inpage.add({ model: other }), other);
  expect(await ask(first, "hello", { ...PLAIN, model: name })).toBe(said(model, "hello"));
  expect(await first.evaluate((other) => /** @type {any} */ (globalThis).inpage.add({ model: other }), other)).toBe(name);
  await first.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  await expect.poll(() => workers(first)).toEqual([]);
  expect(await ask(fourth, "hello", { ...PLAIN, model: name })).toBe(said(model, "hello"));
  expect(workers(fourth)).toContain("router");
});

/** @type {How[]} */
const WAYS = ["closed", "crashed", "frozen"];

test(`hosting tabs go in mid-answer, ${GOINGS} of them: every stream of another is exact`, async ({ tab, model }) => {
  test.setTimeout(60_000 + 10_000 * GOINGS);
  let host = await tab();
  const right = { hello: said(model, "hello"), x: await ask(host, "x", SAMPLED), who: said(model, "who are you") };
  for (let i = 0; i < GOINGS; i++) {
    const how = WAYS[i % WAYS.length];
    const next = await tab();
    expect(workers(next)).toEqual([]);
    await begin(next, host);
    await go(host, how);
    const [hello, x, who] = await next.evaluate(() => /** @type {any} */ (globalThis).running);
    console.log(how, hello.gap, x.gap);
    expect({ hello: hello.said, x: x.said, who }).toEqual(right);
    expect([hello.whole, x.whole, hello.moved, x.moved]).toEqual([right.hello, right.x, 1, 1]);
    expect(workers(next)).toEqual(["engine", "router"]);
    host = next;
  }
});

test("a host that says nothing loses the router, one that unloads hands it over", async ({ tab, model }) => {
  const right = async (/** @type {Page} */ page) => {
    const [hello, x, who] = await page.evaluate(() => /** @type {any} */ (globalThis).running);
    expect([hello.said, hello.moved, x.moved, who]).toEqual([said(model, "hello"), 1, 1, said(model, "who are you")]);
    return x.said;
  };
  const first = await tab();
  const second = await tab();
  const sampled = await ask(second, "x", SAMPLED);
  await begin(second, first);
  const devtools = await first.context().newCDPSession(first);
  await devtools.send("Debugger.enable");
  await devtools.send("Debugger.pause");
  void first.evaluate("1").catch(() => {}); // it stops at what runs next
  expect(await right(second)).toBe(sampled);
  expect(workers(second)).toEqual(["engine", "router"]);
  await devtools.send("Debugger.resume");
  await expect.poll(() => workers(first)).toEqual([]);
  expect(await ask(first, "hello")).toBe(said(model, "hello"));
  await first.evaluate(() => void (/** @type {any} */ (globalThis).hold = Infinity));
  await begin(first, second);
  await second.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  expect(await right(first)).toBe(sampled);
  await expect.poll(() => [workers(first), workers(second)]).toEqual([["engine", "router"], []]);
});

(SLOW ? test : test.skip)("a request that ends the router, of whatever tab, is found, and costs no other tab its answer", async ({ tab, model }) => {
  const first = await tab();
  const second = await tab();
  await first.evaluate(() => void (/** @type {any} */ (globalThis).poison = "a bad one"));
  const [bad, hello, who] = await Promise.all([ask(second, "a bad one"), ask(first, "hello"), ask(second, "who are you")]);
  expect([bad, hello, who]).toEqual([{ code: "poison_request", field: null }, said(model, "hello"), said(model, "who are you")]);
  expect(await first.evaluate(() => /** @type {any} */ (globalThis).deaths)).toBeLessThanOrEqual(4);
  expect(await ask(second, "abc")).toBe(said(model, "abc"));
  await expect.poll(() => [workers(first), workers(second)]).toEqual([["engine", "router"], []]);
});
