/**
 * @file What the WebGPU executor counts since the model was loaded, by index into its counters. The first four are those
 * of the C runtime, so that both executors can be compared.
 */

export const COUNTERS = Object.freeze({
  steps: 0,
  launches: 1, // the model's own dispatches
  rows: 2,
  sampled: 3,
  dispatches: 4, // with those of the sampler
  passes: 5,
  submits: 6,
  readbacks: 7,
  readback_bytes: 8,
  buffers: 9, // created
  bind_groups: 10, // created
  buffer_bytes: 11, // of all buffers that are there now
});
export const COUNTER_WORDS = 12;
