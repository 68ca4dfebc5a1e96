/**
 * @file Kills what a page runs on, in the middle of an answer: workers as browsers do when memory runs short, by
 * Worker.terminate(), without a word, in a call whose answer never arrives; WebGPU devices by GPUDevice.destroy(), which
 * to the engine is a device that is lost.
 */

/** @typedef {number | {device: number}} Fuse answers until the end: the worker is ended with the last, or the device after it */

/**
 * For a realm that makes workers: each takes the next of `fuses` when it answers. Answers are steps and bursts of an
 * engine (a burst's slices too), pieces of the router. A device is destroyed in the burst whose slice is the last answer, or
 * under the call that follows it.
 */
const FUSES = `
  if (!globalThis.fuses) globalThis.Worker = class extends Worker {
    #doomed = false;
    constructor(...args) {
      super(...args);
      let left = Infinity;
      let device = false;
      let spent = false;
      this.addEventListener("message", (event) => {
        const { data } = event;
        if (!(typeof data === "string" ? data.includes('"piece"') : (data.value?.sequences ?? data.slice))) return;
        if (left === Infinity && fuses.length > 0) {
          const fuse = fuses.shift();
          device = fuse.device !== undefined;
          left = device ? fuse.device : fuse;
        }
        left--;
        if (left > 0 || spent) return;
        spent = true;
        if (device) {
          this.#doomed = true;
          if (data.slice) this.#destroy(); // the burst goes on
          return;
        }
        deaths++;
        this.terminate();
        event.stopImmediatePropagation();
      });
    }
    postMessage(message, ...more) {
      super.postMessage(message, ...more);
      if (this.#doomed && (message.method === "run" || message.method === "step")) this.#destroy();
    }
    #destroy() {
      this.#doomed = false;
      deaths++;
      super.postMessage({ fail: "device" });
    }
  };
  globalThis.fuses ??= [];
  globalThis.deaths ??= 0;
`;

/** @param {number} seed @returns {() => number} 0..1, always the same (mulberry32) */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class Killer {
  #page;
  /** @type {(worker: Promise<import("@playwright/test").Worker>) => void} */
  #first = () => {};
  /** @type {Promise<import("@playwright/test").Worker>} the router worker that lives, prepared; the first one to come */
  #router = new Promise((resolve) => (this.#first = resolve));

  /** @param {import("@playwright/test").Page} page before it makes a worker */
  constructor(page) {
    this.#page = page;
  }

  /** Prepares the page, now and when it is opened again, and each router worker before it makes an engine. */
  async install() {
    await this.#page.evaluate(FUSES);
    await this.#page.addInitScript(FUSES);
    this.#page.on("worker", (worker) => {
      if (!worker.url().endsWith("/router/worker.js")) return;
      this.#router = worker.evaluate(FUSES).then(() => worker);
      this.#router.catch(() => {});
      this.#first(this.#router);
    });
    // An engine is made after the manifest was read: by then its maker is prepared.
    await this.#page.route("**/manifest.json", async (route) => {
      await this.#router;
      await route.continue();
    });
  }

  /** @param {Fuse[]} fuses for the engine that lives and those after it @returns {Promise<void>} */
  async engines(fuses) {
    const router = await this.#router;
    await router.evaluate((list) => void Object.assign(globalThis, { fuses: list, deaths: 0 }), fuses);
  }

  /** @returns {Promise<number>} engines and devices that were killed since `engines` */
  async deaths() {
    return (await this.#router).evaluate(() => /** @type {any} */ (globalThis).deaths);
  }

  /** @param {number[]} fuses for the router that lives and those after it @returns {Promise<void>} */
  routers(fuses) {
    return this.#page.evaluate((list) => void Object.assign(globalThis, { fuses: list }), fuses);
  }
}
