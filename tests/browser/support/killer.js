/**
 * @file Kills the workers of a page, as browsers do when memory runs short: Worker.terminate(), without a word, in the
 * middle of a call whose answer never arrives.
 */

/**
 * For a realm that makes workers: each takes the next number of `fuses` when it answers, and ends with the
 * answer of that number. Answers are steps and bursts of an engine, pieces of the router.
 */
const FUSES = `
  if (!globalThis.fuses) globalThis.Worker = class extends Worker {
    constructor(...args) {
      super(...args);
      let left = Infinity;
      this.addEventListener("message", (event) => {
        const { data } = event;
        if (!(typeof data === "string" ? data.includes('"piece"') : data.value?.sequences)) return;
        if (left === Infinity) left = fuses.shift() ?? Infinity;
        left--;
        if (left > 0) return;
        deaths++;
        this.terminate();
        event.stopImmediatePropagation();
      });
    }
  };
  globalThis.fuses ??= [];
  globalThis.deaths ??= 0;
`;

export class Killer {
  #page;
  /** @type {Promise<import("@playwright/test").Worker>} the router worker that lives, prepared */
  #router = Promise.reject(new Error("no router worker yet"));

  /** @param {import("@playwright/test").Page} page before it makes a worker */
  constructor(page) {
    this.#page = page;
    this.#router.catch(() => {});
  }

  /** Prepares the page, now and when it is opened again, and each router worker before it makes an engine. */
  async install() {
    await this.#page.evaluate(FUSES);
    await this.#page.addInitScript(FUSES);
    this.#page.on("worker", (worker) => {
      if (!worker.url().endsWith("/router/worker.js")) return;
      this.#router = worker.evaluate(FUSES).then(() => worker);
      this.#router.catch(() => {});
    });
    // An engine is made after the manifest was read: by then its maker is prepared.
    await this.#page.route("**/manifest.json", async (route) => {
      await this.#router;
      await route.continue();
    });
  }

  /** @param {number[]} fuses for the engine that lives and those after it @returns {Promise<void>} */
  async engines(fuses) {
    const router = await this.#router;
    await router.evaluate((list) => void Object.assign(globalThis, { fuses: list, deaths: 0 }), fuses);
  }

  /** @returns {Promise<number>} engines that were killed since `engines` */
  async deaths() {
    return (await this.#router).evaluate(() => /** @type {any} */ (globalThis).deaths);
  }

  /** @param {number[]} fuses for the router that lives and those after it @returns {Promise<void>} */
  routers(fuses) {
    return this.#page.evaluate((list) => void Object.assign(globalThis, { fuses: list }), fuses);
  }
}
