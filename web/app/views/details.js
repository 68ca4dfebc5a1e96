/** @file What runs and why, the numbers, the switch that pins a backend, and the report for bug reports. */

import { button, copied, make, megabytes } from "../dom.js";
import { number, t } from "../i18n.js";
import { sheet } from "./sheet.js";
import { sentence, speedOf } from "./words.js";

/**
 * @typedef {import("../../client/types.js").Info} Info
 * @typedef {import("../../client/types.js").Candidate} Candidate
 * @typedef {import("../../client/types.js").Completion} Completion
 * @typedef {{info: Info | null, last: Completion | null, pin: string | null}} Facts
 */

export class Details {
  #facts = make("dl", "facts");
  #plain = make("p", "plainly");
  #table = make("div", "table");
  #switch = make("select", "");

  /** @param {{facts: () => Facts, pin: (name: string | null) => void, report: () => Promise<string>, closed: () => void}} actions */
  constructor(actions) {
    const { body } = sheet("details", t("details"), actions.closed);
    this.#facts.id = "facts";
    this.#switch.id = "backend";
    this.#switch.addEventListener("change", () => actions.pin(this.#switch.value || null));
    const label = make("label", "row", `${t("run_on")} `);
    label.append(this.#switch);
    const report = make("pre", "report");
    report.tabIndex = 0;
    report.setAttribute("role", "group");
    report.ariaLabel = t("report");
    report.hidden = true;
    const ask = button(t("copy_report"), "plain", async () => {
      ask.disabled = true;
      report.hidden = false;
      report.textContent = t("looking");
      try {
        const text = await actions.report();
        report.textContent = text;
        ask.textContent = t((await copied(text)) ? "report_copied" : "report");
      } catch (error) {
        report.textContent = String(error);
      } finally {
        ask.disabled = false;
      }
    });
    const licences = make("a", "", t("notices"));
    licences.href = "NOTICES.txt";
    const paragraph = make("p", "");
    paragraph.append(licences);
    body.append(this.#plain, label, this.#facts, make("h3", "", t("variants")), this.#table, ask, report, paragraph);
    this.show(actions.facts());
  }

  /** @param {Facts} facts */
  show({ info, last, pin }) {
    this.#plain.textContent = info ? sentence(info) : t("not_loaded");
    this.#switch.disabled = info === null;
    if (!info) {
      this.#facts.replaceChildren();
      this.#table.replaceChildren();
      return;
    }
    this.#facts.replaceChildren(...rows(info, last).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    this.#table.replaceChildren(table(info.candidates));
    this.#table.tabIndex = 0;
    this.#table.setAttribute("role", "group");
    this.#table.ariaLabel = t("variants");
    this.#offer(info, pin);
  }

  /** The backends to choose from: those that can run here. @param {Info} info @param {string | null} pin */
  #offer({ candidates }, pin) {
    const rest = candidates.filter(({ can_run }) => can_run).map(({ variant, decode_tps }) => {
      const speed = decode_tps ? ` · ${t("tokens_second", { speed: speedOf(decode_tps) })}` : "";
      return new Option(variant + speed, variant);
    });
    this.#switch.replaceChildren(new Option(t("fastest"), ""), ...rest);
    // A pin may also name a backend ("wasm"): it then stands for its first variant.
    const pinned = candidates.find(({ variant, backend, can_run }) => can_run && (pin === variant || pin === backend));
    this.#switch.value = pinned?.variant ?? "";
  }
}

/** @param {Info} info @param {Completion | null} last @returns {[string, string][]} */
function rows(info, last) {
  /** @type {[string, string][]} */
  const rows = [];
  if (last) {
    const speed = last.decode_tps ? `${t("tokens_second", { speed: speedOf(last.decode_tps) })} · ` : "";
    rows.push([t("last_answer"), speed + t("first_token", { ms: Math.round(last.ttft_ms) })]);
    rows.push([t("last_tokens"), t("tokens_read", { read: number(last.usage.prompt_tokens), cached: number(last.cached_tokens), written: number(last.usage.completion_tokens) })]);
    rows.push([t("context"), t("context_used", { used: number(last.usage.total_tokens), all: number(info.context) })]);
  } else rows.push([t("context"), t("context_tokens", { tokens: number(info.context) })]);
  rows.push(
    [t("why"), info.why],
    [t("measured"), info.candidates.some((each) => each.decode_tps) ? info.sentence : t("nothing_yet")],
    [t("isolated"), t(globalThis.crossOriginIsolated ? "yes" : "no")],
    [t("memory"), t("memory_parts", { weights: megabytes(info.weight_bytes), arena: megabytes(info.arena_bytes), kv: megabytes(info.kv_bytes) })],
    [t("loaded_in"), t("seconds", { seconds: number(info.load_ms / 1000, 1) })],
    [t("model_licence"), `${info.name} · ${info.license}`],
  );
  for (const warning of info.warnings) rows.push([t("warning"), warning]);
  return rows;
}

/** @param {Candidate[]} candidates */
function table(candidates) {
  const whole = make("table", "");
  const [thead, tbody, head] = [make("thead", ""), make("tbody", ""), make("tr", "")];
  for (const key of /** @type {const} */ (["variant", "state", "writes", "reads"])) head.append(make("th", ["writes", "reads"].includes(key) ? "align-right" : "", t(key)));
  for (const each of candidates) {
    const row = make("tr", each.running ? "current" : "");
    const state = each.fault || (each.running ? t("running") : each.can_run ? t("can_run") : each.reason);
    const speeds = [each.decode_tps, each.prefill_tps].map((tps) => make("td", "number align-right", tps ? speedOf(tps) : "–"));
    row.append(make("td", "", each.variant), make("td", "", state), ...speeds);
    tbody.append(row);
  }
  thead.append(head);
  whole.append(thead, tbody);
  return whole;
}
