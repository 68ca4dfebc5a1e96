/** @file A load of an engine that nobody asked for yet: who asks for the same takes it over, whatever came of it by then. */

/**
 * @typedef {import("./core/protocol.js").LoadOptions} LoadOptions
 * @typedef {import("./core/protocol.js").Info} Info
 * @typedef {import("./core/protocol.js").Progress} Progress
 */

export class BegunLoad {
  #same;
  #loading;
  /** The latest of each phase. @type {Map<string, Progress>} */
  #told = new Map();
  /** @type {(event: Progress) => void} */
  #hear = () => undefined;

  /**
   * @param {LoadOptions} options
   * @param {(onProgress: (event: Progress) => void) => Promise<Info>} load
   */
  constructor(options, load) {
    this.#same = sameAs(options);
    this.#loading = load((event) => {
      this.#told.set(event.phase, event);
      this.#hear(event);
    });
    this.#loading.catch(() => undefined); // who takes it over is told
  }

  /** @param {LoadOptions} options @returns {boolean} */
  is(options) {
    return this.#same === sameAs(options);
  }

  /** @param {((event: Progress) => void) | undefined} onProgress @returns {Promise<Info>} */
  takeOver(onProgress) {
    this.#hear = onProgress ?? this.#hear;
    for (const event of this.#told.values()) this.#hear(event);
    return this.#loading;
  }
}

/**
 * What two loads must have in common to be the same. Kernels are not of it: they are chosen after a load, too.
 * @param {LoadOptions} options
 * @returns {string}
 */
function sameAs({ kernels: _, ...options }) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  return JSON.stringify(given.sort(([a], [b]) => (a < b ? -1 : 1)));
}
