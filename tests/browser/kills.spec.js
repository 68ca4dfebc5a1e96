/**
 * @file Routers, engines and grammar workers that are killed at random moments of random requests: each request gets the
 * answer that it gets undisturbed, or a typed error, and the next visit works. A moment is a message: the n-th between the
 * killed worker, or one beside it, and whoever made it, once that worker runs.
 */

import { expect, test } from "./support/failing.js";
import { random } from "./support/killer.js";

const KILLS = process.env.INPAGE_SLOW ? 50 : 3;
const SEED = Number(process.env.INPAGE_SEED ?? 20261128);
/** Messages until a kill, at most. */
const MOST = 14;

/** For the page, which makes routers, and for routers, which make the rest. `doom`: {victim, left}, the one kill to come. */
const DOOM = `
  globalThis.doom = null;
  globalThis.deaths = 0;
  {
    const Real = globalThis.Worker;
    const living = [];
    const kindOf = (url) => /(router\\/worker|engine\\/worker|grammar_worker)\\.js$/.exec(new URL(url, location.href).pathname)?.[1];
    /** Whether this message is the last for whom it was to be. */
    const strike = () => {
      if (!doom || --doom.left > 0) return;
      const at = living.findLastIndex(({ kind, worker }) => kind === doom.victim && worker.runs);
      if (at < 0) return; // it is struck as soon as it is there
      const [{ worker }] = living.splice(at, 1);
      doom = null;
      deaths++;
      worker.dead = true;
      worker.terminate();
    };
    globalThis.Worker = Real && class extends Real {
      dead = false;
      runs = false;
      constructor(url, options) {
        super(url, options);
        const kind = kindOf(url);
        if (!kind) return;
        living.push({ kind, worker: this });
        this.addEventListener("message", (event) => {
          if (!["pong", "up", "alive"].includes(event.data)) strike();
          this.runs = true;
          if (this.dead) event.stopImmediatePropagation();
        });
      }
      terminate() {
        const at = living.findIndex(({ worker }) => worker === this);
        if (at >= 0) living.splice(at, 1);
        super.terminate();
      }
      postMessage(message, ...more) {
        super.postMessage(message, ...more);
        if (message !== "ping") strike();
      }
    };
  }
`;

const NO_CONTROL = { logit_bias: { 2: -100, 62: -100, 63: -100 } };
/** @type {["chat" | "complete", string, object][]} */
const REQUESTS = [
  ["chat", "hello", NO_CONTROL],
  ["complete", "abc", { ...NO_CONTROL, max_tokens: 90 }],
  ["chat", "who are you", { ...NO_CONTROL, temperature: 0.9, seed: 11 }],
  ["chat", "x", { ...NO_CONTROL, temperature: 1.2, top_p: 0.9, seed: 12, repetition_penalty: 1.1 }],
  ["chat", "a name", { ...NO_CONTROL, regex: "[a-f]{20,40}", max_tokens: 40 }],
  ["chat", "another", { ...NO_CONTROL, regex: "[0-9]{3}( [a-z]{4}){4}", temperature: 1, seed: 13 }],
  ["chat", "a number", { schema: { type: "integer", minimum: 1000, maximum: 9999 } }],
  ["chat", "logs", { ...NO_CONTROL, logprobs: 2, max_tokens: 30 }],
];
/** What may be said of a request that a death was too much for. */
const TYPED = ["device_lost", "network", "poison_request"];
const VICTIMS = ["router/worker", "engine/worker", "grammar_worker"];

test(`${KILLS} kills at random moments (seed ${SEED})`, async ({ page, start, ask, server }) => {
  test.setTimeout(60_000 + 15_000 * KILLS);
  const next = random(SEED);
  const draw = (/** @type {number} */ n) => Math.floor(next() * n);
  server.prelude = DOOM;
  await page.addInitScript(DOOM);
  await page.reload();
  expect((await start({ threads: 2 })).error).toBeUndefined();
  /** @type {any[]} */
  const right = [];
  for (const asked of REQUESTS) right.push(await ask(...asked));
  expect(right.map(({ code }) => code)).toEqual(REQUESTS.map(() => undefined));

  /** Where such a worker is made. @param {string} victim @param {string} script @returns {Promise<any>} */
  const run = async (victim, script) => {
    const router = page.workers().findLast((worker) => worker.url().endsWith("/router/worker.js"));
    return victim === "router/worker" || !router ? page.evaluate(script) : router.evaluate(script);
  };
  /** @type {Record<string, number>} */
  const tally = {};
  const count = (/** @type {string} */ what) => (tally[what] = (tally[what] ?? 0) + 1);
  let kills = 0;
  for (let round = 0; kills < KILLS; round++) {
    expect(round, `${kills} kills in so many rounds`).toBeLessThan(4 * KILLS);
    const doom = { victim: VICTIMS[draw(VICTIMS.length)], left: 1 + draw(MOST) };
    const chosen = Array.from({ length: 1 + draw(3) }, () => draw(REQUESTS.length));
    await run(doom.victim, `doom = ${JSON.stringify(doom)}; deaths = 0`);
    const answers = await Promise.all(chosen.map((i) => ask(...REQUESTS[i])));
    // One that did not come to it is called off.
    const died = await run(doom.victim, "doom = null; deaths");
    kills += died;
    if (died) count(doom.victim);
    for (const [k, i] of chosen.entries()) {
      const { code, ids, text } = answers[k];
      const told = `round ${round}: ${doom.victim} at message ${doom.left}, request ${i}`;
      if (code !== undefined) {
        expect(TYPED, told).toContain(code);
        expect(died, `${told}: ${code}`).toBe(1);
        count(`${doom.victim}: ${code}`);
      } else expect({ ids, text }, told).toEqual({ ids: right[i].ids, text: right[i].text });
    }
  }
  console.log(`${kills} kills: ${JSON.stringify(tally)}`);

  await page.reload();
  expect((await start({ threads: 2 })).error).toBeUndefined();
  for (const [i, asked] of REQUESTS.entries()) expect((await ask(...asked)).ids).toEqual(right[i].ids);
});
