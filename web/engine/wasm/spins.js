/** @file How long threads spin before they sleep. */

/** What a thread waits, spinning, before it sleeps: at a barrier, and between two jobs. */
const BARRIER_MS = 0.26;
const IDLE_MS = 0.04;
const SPIN_TURNS = 100_000;
const SPIN_TRIALS = 10;

/**
 * How many turns of a spin make the times that a thread waits before it sleeps: a turn's length is the CPU's, and the
 * browser's. The first turns are for the browser to compile the loop well.
 * @param {import("../format/abi.js").KernelExports} exports
 */
export function calibrateSpins(exports) {
  let rate = 0; // turns a millisecond
  for (let i = 0; i < SPIN_TRIALS; i++) {
    const began = performance.now();
    exports.inpage_spin(SPIN_TURNS);
    rate = Math.max(rate, SPIN_TURNS / Math.max(performance.now() - began, 1e-3));
  }
  exports.inpage_set_spins(Math.ceil(rate * BARRIER_MS), Math.ceil(rate * IDLE_MS));
}
