/**
 * @file How long the GPU computes: timestamp queries at the beginning and the end of each compute pass, while something is
 * profiled. Browsers may round the times (Chromium: to 100 microseconds unless told otherwise), so means of many are to
 * be trusted, not single ones.
 */

import { USAGE } from "./device.js";
import { ReadBack } from "./transfer.js";

/** The feature that a device must have been opened with. */
export const TIMESTAMPS = "timestamp-query";
/** Passes between two readings: WebGPU's limit for a query set is twice as many. */
export const MAX_PASSES = 2048;

export class PassClock {
  #gpu;
  #queries;
  #ticks;
  #readBack;
  #passes = 0;

  /**
   * @param {import("./device.js").Gpu} gpu opened with TIMESTAMPS
   * @param {number} passes between two readings, MAX_PASSES at most
   */
  constructor(gpu, passes) {
    this.#gpu = gpu;
    this.#queries = gpu.device.createQuerySet({ label: "passes", type: "timestamp", count: 2 * passes });
    this.#ticks = gpu.buffer("ticks", 16 * passes, USAGE.QUERY_RESOLVE | USAGE.COPY_SRC);
    this.#readBack = new ReadBack(gpu, "ticks", 16 * passes);
  }

  /** For the descriptor of a pass. @returns {GPUComputePassTimestampWrites} */
  next() {
    const at = 2 * this.#passes++;
    return { querySet: this.#queries, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
  }

  /**
   * Of the passes since the last reading, all submitted.
   * @returns {Promise<Float64Array>} microseconds of each
   */
  async read() {
    const passes = this.#passes;
    this.#passes = 0;
    if (passes === 0) return new Float64Array(0);
    const encoder = this.#gpu.device.createCommandEncoder({ label: "read the clock" });
    encoder.resolveQuerySet(this.#queries, 0, 2 * passes, this.#ticks, 0);
    const recorded = this.#readBack.record(encoder, [{ source: this.#ticks, offset: 0, bytes: 16 * passes }]);
    this.#gpu.submit(encoder);
    const nanoseconds = new BigInt64Array((await this.#readBack.read(recorded)).buffer);
    // A clock that was set back in between says nothing.
    return Float64Array.from({ length: passes }, (_, i) => Math.max(0, Number(nanoseconds[2 * i + 1] - nanoseconds[2 * i]) / 1e3));
  }

  end() {
    this.#queries.destroy();
    this.#gpu.free(this.#ticks);
    this.#readBack.end();
  }
}
