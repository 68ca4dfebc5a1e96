/** @file Whose turn it is after a router's death, and when silence is one: decisions alone, in Node. */

import { expect, test } from "@playwright/test";

import { Turn, Turns } from "../../web/client/turns.js";
import { Watch } from "../../web/client/watch.js";

/** Routers, and requests on them, by name. */
class Stage {
  turns = new Turns();
  router = {};
  /** @type {Record<string, Turn>} */
  all = {};
  /** @type {Set<string>} sent to the router that lives */
  sent = new Set();
  #calls = 0;

  /** @param {string[]} names */
  async ask(...names) {
    for (const name of names) {
      const turn = (this.all[name] ??= new Turn());
      void this.turns.enter(turn).then(() => {
        Object.assign(turn, { router: this.router, call: ++this.#calls });
        this.sent.add(name);
      });
    }
    await Promise.resolve();
    await Promise.resolve();
  }

  /** The router dies; who was there asks again. @param {string} [blamed] */
  async die(blamed) {
    const lost = [...this.sent];
    this.sent.clear();
    this.turns.died(this.router, blamed === undefined ? null : (this.all[blamed]?.call ?? -1));
    this.router = {};
    await this.ask(...lost);
    await new Promise((resolve) => setTimeout(resolve));
    await Promise.resolve();
  }

  /** @param {string} name */
  async token(name) {
    this.turns.got(this.all[name]);
    await Promise.resolve();
    await Promise.resolve();
  }

  /** @param {string} name */
  async end(name) {
    this.sent.delete(name);
    this.turns.leave(this.all[name]);
    await Promise.resolve();
    await Promise.resolve();
  }

  get now() {
    return [...this.sent].sort().join(" ");
  }
}

test("suspects come back one at a time, those that had got on first; the poison alone is caught", async () => {
  const stage = new Stage();
  await stage.ask("a", "b", "poison");
  expect(stage.now).toBe("a b poison");
  await stage.token("a");
  await stage.die();
  expect(stage.now).toBe("a"); // the others wait until it has shown that it does no harm
  await stage.token("a");
  expect(stage.now).toBe("a b");
  await stage.token("b");
  expect(stage.now).toBe("a b poison");
  await stage.die();
  expect(stage.now).toBe("a b"); // they are not to blame: at once, together
  await stage.ask("late");
  expect(stage.now).toBe("a b late");
  for (const name of ["a", "b"]) await stage.end(name);
  expect(stage.now).toBe("late");
  await stage.end("late");
  expect(stage.now).toBe("poison");
  await stage.ask("later");
  expect(stage.now).toBe("poison"); // it runs alone
  await stage.die();
  expect(stage.all.poison.deaths).toBe(1);
  expect(stage.now).toBe("later");
  await stage.end("later");
  await stage.die();
  expect(stage.all.poison.deaths).toBe(2);
  for (const name of ["a", "b", "late", "later"]) expect(stage.all[name].deaths).toBe(0);
});

test("whom the router had named waits; nobody else does", async () => {
  const stage = new Stage();
  await stage.ask("a", "b", "c");
  await stage.die("b");
  expect(stage.now).toBe("a c");
  await stage.end("a");
  await stage.end("c");
  expect(stage.now).toBe("b");
  await stage.token("b");
  await stage.ask("d");
  expect(stage.now).toBe("b d"); // it has got on: no suspicion is left
  await stage.die("gone"); // a request that was given up, and blocked it all the same
  expect(stage.now).toBe("b d");
});

test("a token ends the count of deaths; others cannot pass for ever", async () => {
  const stage = new Stage();
  await stage.ask("a");
  for (let i = 0; i < 5; i++) {
    await stage.die();
    expect(stage.all.a.deaths).toBe(1);
    expect(stage.now).toBe("a");
    await stage.token("a");
  }
  await stage.ask("b");
  await stage.die("a");
  let passed = 0;
  for (; passed < 100 && !stage.sent.has("a"); passed++) {
    await stage.ask(`n${passed}`);
    for (const name of stage.sent) if (name !== `n${passed}` && name !== "a") await stage.end(name);
  }
  expect(stage.now).toBe("a");
  expect(passed).toBeLessThan(30);
});

test("nobody waits once all has ended", async () => {
  const stage = new Stage();
  await stage.ask("a", "b");
  await stage.die("a");
  expect(stage.now).toBe("b");
  stage.turns.close();
  await stage.ask("c");
  expect(stage.now).toBe("a b c");
});

test("silence counts only while this thread's own clock runs; a job has its own limit", async () => {
  const { setInterval: real } = globalThis;
  const now = performance.now.bind(performance);
  let time = 0;
  /** @type {() => void} */
  let tick = () => {};
  /** @type {string[]} */
  const lost = [];
  let asked = 0;
  Object.assign(globalThis, { setInterval: (/** @type {() => void} */ each) => ((tick = each), 1) });
  performance.now = () => time;
  try {
    const watch = new Watch(() => asked++, (why) => lost.push(why));
    watch.job = null;
    watch.on = true;
    /** @param {number} ms @param {number} count */
    const pass = (ms, count) => {
      for (let i = 0; i < count && !lost.length; i++) {
        time += ms;
        tick();
      }
    };
    pass(60_000, 5); // throttled to once a minute, or asleep
    expect(lost).toEqual([]);
    watch.heard();
    pass(500, 12);
    watch.heard(); // in time
    pass(500, 12);
    expect(lost).toEqual([]);
    watch.heard();
    watch.job = { name: "tokenizer", characters: 5e6 };
    pass(500, 50);
    expect(lost).toEqual([]);
    watch.heard();
    watch.job = { name: "prompt", id: 3, characters: 40 };
    pass(500, 50);
    expect(lost).toEqual(["no answer for 3 s (prompt)"]);
    expect(asked).toBeGreaterThan(2);
  } finally {
    Object.assign(globalThis, { setInterval: real });
    performance.now = now;
  }
});
