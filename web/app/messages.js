// Errors as a person can use them: what happened, and what can be done.

/** @type {Record<string, string>} */
const ADVICE = {
  network: "The download broke off. What has arrived is kept; trying again goes on from there.",
  out_of_memory: "There is not enough memory for this model. Closing other tabs may help.",
  unsupported: "This browser cannot run the model.",
  artifact_invalid: "The model's files are damaged or incomplete on the server.",
  artifact_damaged: "The stored model was damaged; the damaged part is fetched again. Please ask again.",
  device_lost: "The model's worker stopped. It has to be loaded again.",
  poison_request: "This question stopped the model twice. Another one can be asked.",
};
const AGAIN = new Set(["network", "out_of_memory", "device_lost", "artifact_invalid"]);

/**
 * @param {unknown} error
 * @returns {{text: string, again: boolean}} `again`: loading once more can help
 */
export function explain(error) {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const detail = error instanceof Error ? error.message : String(error);
  const advice = ADVICE[code];
  return { text: advice ? `${advice} (${detail})` : detail, again: AGAIN.has(code) };
}

/**
 * What to say of an answer that went on after its engine had died.
 * @param {import("../client/types.js").Failover[]} failovers
 */
export function interruption(failovers) {
  const seconds = failovers.reduce((sum, { gap_ms }) => sum + gap_ms, 0) / 1000;
  const { to } = failovers[failovers.length - 1];
  const times = failovers.length === 1 ? "" : ` ${failovers.length} times`;
  return `interrupted${times} for ${seconds.toFixed(1)} s; continued ${to === "router" ? "after a restart" : `on ${to}`}`;
}
