/** @file What runs, in plain words. */

import { number, t } from "../i18n.js";

/**
 * @typedef {import("../../client/types.js").Info} Info
 * @typedef {import("../../client/types.js").Candidate} Candidate
 */

/** Tokens a second below which an answer is no pleasure. */
const SLOW = 2;

/** @param {Info} info @returns {string} short */
export function runsOn({ backend, threads }) {
  if (backend === "webgpu") return t("on_gpu");
  return t(threads === 1 ? "on_cpu_one" : "on_cpu", { threads });
}

/** @param {Info} info @returns {string} a sentence or two */
export function sentence(info) {
  const runs = info.backend === "webgpu" ? t("runs_gpu") : t(info.threads === 1 ? "runs_cpu_one" : "runs_cpu", { threads: info.threads });
  const other = info.candidates.find(({ backend, decode_tps }) => backend !== info.backend && decode_tps);
  const speed = info.candidates.find(({ running }) => running)?.decode_tps;
  const own = speed ? ` ${t("speed_words", { speed: speedOf(speed) })}` : "";
  if (!other?.decode_tps) return runs + own;
  const slower = speed && other.decode_tps < speed;
  return `${runs}${own} ${t(slower ? "other_slower" : "other_measured", { on: t(other.backend === "webgpu" ? "gpu" : "cpu"), speed: speedOf(other.decode_tps) })}`;
}

/** @param {number} tps */
export function speedOf(tps) {
  return number(tps, tps < 10 ? 1 : 0);
}

/**
 * @param {Info} info
 * @param {number | null} measured tokens a second of the last answer
 * @returns {string | null} what to say where it is so slow that another choice is better
 */
export function slowness({ backend, candidates }, measured) {
  const running = candidates.find((each) => each.running);
  const speed = measured ?? running?.decode_tps;
  if (!speed || speed >= SLOW) return null;
  const faster = candidates.some((each) => each.can_run && !each.running && each.backend !== backend && (each.decode_tps === null || each.decode_tps > speed));
  return t(backend === "webgpu" ? (faster ? "slow_gpu" : "slow_gpu_alone") : "slow_cpu", { speed: speedOf(speed) });
}
