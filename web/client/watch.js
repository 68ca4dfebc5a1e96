/**
 * @file The heartbeat between the main thread and a router worker: a worker in which something is awaited is asked every
 * half second whether it is there, and counts as gone when it says nothing for too long. Work that nothing can interrupt
 * is announced (py/inpage/host/jobs.py) and has a limit of its own.
 *
 * Only time in which this thread's own timer ran is counted. A page that is frozen, throttled or busy, and a machine that
 * slept, end no router.
 */

const TICK_MS = 500;
/** Without a job. */
const SILENT_MS = 6000;
/**
 * By job: at least so long, and more for each character that it is about. A phone takes ten times a desktop's time.
 * @type {Record<string, {ms: number, perCharacter: number}>}
 */
const JOBS = {
  script: { ms: Infinity, perCharacter: 0 }, // has its own: engine/host/workers.js
  start: { ms: 60_000, perCharacter: 0 },
  import: { ms: 30_000, perCharacter: 0 },
  template: { ms: 10_000, perCharacter: 0.05 },
  schema: { ms: 10_000, perCharacter: 0.05 },
  tokenizer: { ms: 20_000, perCharacter: 0.002 },
  prompt: { ms: 3000, perCharacter: 0.05 },
};

/** @typedef {{name: string, id?: number | null, characters?: number}} Job */

export class Watch {
  /** @type {ReturnType<typeof setInterval> | null} */
  #timer = null;
  #last = 0;
  #silent = 0;
  #answered = false;
  /** @type {Job | null} */
  job = { name: "script" };
  #ask;
  #lost;
  #silentMs;
  #thaw = () => this.#fresh();

  /**
   * @param {() => void} ask the worker to say anything
   * @param {(why: string) => void} lost
   * @param {number} [silentMs] without a job
   */
  constructor(ask, lost, silentMs = SILENT_MS) {
    this.#ask = ask;
    this.#lost = lost;
    this.#silentMs = silentMs;
  }

  /** @param {boolean} wanted whether anything is awaited of the worker */
  set on(wanted) {
    if (wanted === (this.#timer !== null)) return;
    for (const name of ["resume", "pageshow", "online"]) {
      for (const target of [globalThis, globalThis.document]) {
        if (wanted) target?.addEventListener?.(name, this.#thaw);
        else target?.removeEventListener?.(name, this.#thaw);
      }
    }
    if (wanted) {
      this.#fresh();
      this.#ask();
      this.#timer = setInterval(() => this.#tick(), TICK_MS);
    } else {
      clearInterval(/** @type {any} */ (this.#timer));
      this.#timer = null;
    }
  }

  /** The worker said something. */
  heard() {
    this.#answered = true;
    this.#silent = 0;
  }

  #fresh() {
    this.#last = performance.now();
    this.#silent = 0;
  }

  #tick() {
    const now = performance.now();
    const passed = Math.min(now - this.#last, 2 * TICK_MS);
    this.#last = now;
    if (this.#answered) {
      this.#answered = false;
      this.#ask();
      return;
    }
    this.#silent += passed;
    const limit = this.#limit();
    if (this.#silent > limit) this.#lost(`no answer for ${Math.round(limit / 1000)} s${this.job ? ` (${this.job.name})` : ""}`);
  }

  #limit() {
    const { name = "", characters = 0 } = this.job ?? {};
    const { ms, perCharacter } = JOBS[name] ?? { ms: this.#silentMs, perCharacter: 0 };
    return ms + perCharacter * characters;
  }
}
