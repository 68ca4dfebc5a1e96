/** @file A load of an engine that nobody asked for yet: who asks for the same takes it over, whatever came of it by then. */

/**
 * @typedef {import("./core/protocol.js").LoadOptions} LoadOptions
 * @typedef {import("./core/protocol.js").Info} Info
 * @typedef {import("./core/protocol.js").Progress} Progress
 */

export class BegunLoad {
  #options;
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
    this.#options = options;
    this.#loading = load((event) => {
      this.#told.set(event.phase, event);
      this.#hear(event);
    });
    this.#loading.catch(() => undefined); // who takes it over is told
  }

  /**
   * Kernels are chosen after a load, too; but one that was told which it needs has rehearsed no others, and who asks without
   * any is about to time all of them. Of threads, one that was told no number may come to the one that is asked for.
   * @param {LoadOptions} asked
   * @returns {boolean} whether it is this load, as far as can be said before its end
   */
  is(asked) {
    const { kernels, threads } = this.#options;
    if (kernels && !asked.kernels) return false;
    if (given(threads) && given(asked.threads) && threads !== asked.threads) return false;
    return sameAs(this.#options) === sameAs(asked);
  }

  /**
   * @param {LoadOptions} asked
   * @param {((event: Progress) => void) | undefined} onProgress
   * @returns {Promise<Info | null>} null where it came to other threads than are asked for
   */
  async takeOver({ threads }, onProgress) {
    this.#hear = onProgress ?? this.#hear;
    for (const event of this.#told.values()) this.#hear(event);
    const info = await this.#loading;
    return given(threads) && ![this.#options.threads, info.threads].includes(threads) ? null : info;
  }
}

/** @param {number | null | undefined} threads @returns {threads is number} */
function given(threads) {
  return threads !== null && threads !== undefined;
}

/**
 * What two loads must have in common to be the same, beside what `is` says.
 * @param {LoadOptions} options
 * @returns {string}
 */
function sameAs({ kernels: _, threads: __, ...options }) {
  const said = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  return JSON.stringify(said.sort(([a], [b]) => (a < b ? -1 : 1)));
}
