// Errors as a person can use them: what happened, and what can be done.
import { number, t } from "./i18n.js";

/** @typedef {import("./i18n.js").Key} Key */

/** @type {Record<string, Key>} */
const ADVICE = {
  network: "error_network",
  out_of_memory: "error_memory",
  unsupported: "error_unsupported",
  artifact_invalid: "error_artifact",
  device_lost: "error_lost",
  poison_request: "error_poison",
  storage_full: "error_full",
  queue_full: "error_queue",
};

/** @param {unknown} error @returns {string} */
export function explain(error) {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const detail = error instanceof Error ? error.message : String(error);
  const advice = ADVICE[code];
  return advice ? `${t(advice)} (${detail})` : detail;
}

/**
 * What to say of an answer that went on after its engine had died.
 * @param {import("../client/types.js").Failover[]} failovers
 */
export function interruption(failovers) {
  const seconds = number(failovers.reduce((sum, { gap_ms }) => sum + gap_ms, 0) / 1000, 1);
  const { to } = failovers[failovers.length - 1];
  const where = to === "router" ? t("continued_restart") : t("continued_on", { to });
  return failovers.length === 1 ? t("interrupted", { seconds, where }) : t("interrupted_times", { times: failovers.length, seconds, where });
}

/** @param {import("./types.js").Message} message @returns {string} how it ended, where there is something to say */
export function ending({ status, note, text }) {
  if (status === "stopped") return t(text ? "ended_stopped" : "ended_unanswered");
  if (status === "cut") return t("ended_cut");
  if (status === "circles") return t("ended_circles");
  if (status === "failed") return t(note === "too_long" ? "ended_too_long" : note === "full" ? "ended_full" : "ended_failed");
  return "";
}
