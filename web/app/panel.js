// What runs and why, the speeds that were measured, the switch that pins a backend, and the report for bug reports.
import { element, make, megabytes } from "./dom.js";

/** @typedef {import("../client/types.js").Info} Info */

export class Panel {
  #summary = element("engine", HTMLElement);
  #facts = element("facts", HTMLElement);
  #notice = element("notice", HTMLElement);
  #switch = element("backend", HTMLSelectElement);
  #report = element("report", HTMLElement);

  /** @param {{pin: (name: string | null) => void, report: () => Promise<string>}} actions */
  constructor({ pin, report }) {
    this.#switch.addEventListener("change", () => pin(this.#switch.value || null));
    const ask = element("ask-report", HTMLButtonElement);
    ask.addEventListener("click", async () => {
      ask.disabled = true;
      this.#report.hidden = false;
      this.#report.textContent = "Looking …";
      try {
        const text = await report();
        this.#report.textContent = text;
        ask.textContent = (await copied(text)) ? "Report copied" : "Report";
      } catch (error) {
        this.#report.textContent = String(error);
      } finally {
        ask.disabled = false;
      }
    });
  }

  /**
   * @param {Info} info
   * @param {string | null} pin
   */
  show(info, pin) {
    const threads = info.threads === 1 ? "1 thread" : `${info.threads} threads`;
    this.#summary.textContent = info.backend === "webgpu" ? info.variant : `${info.variant} · ${threads}`;
    /** @type {[string, string][]} */
    const rows = [
      ["Runs on", info.why],
      ["Measured", info.candidates.some((each) => each.decode_tps) ? info.sentence : "nothing yet"],
      ["Threads", threads],
      ["Isolated", globalThis.crossOriginIsolated ? "yes" : "no"],
      ["Context", `${info.context} tokens`],
      ["Weights", megabytes(info.weight_bytes)],
      ["Loaded in", `${(info.load_ms / 1000).toFixed(1)} s`],
    ];
    for (const warning of info.warnings) rows.push(["Warning", warning]);
    for (const { variant, fault } of info.candidates) if (fault) rows.push(["Trouble", `${variant} ${fault}`]);
    this.#facts.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    this.#offer(info, pin);
    this.#notice.hidden = globalThis.crossOriginIsolated;
    this.#notice.textContent =
      "The model runs on one thread: this page's server does not send the headers that isolate it " +
      "(Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy).";
  }

  /** The backends to choose from: what cannot run is shown, with its reason. @param {Info} info @param {string | null} pin */
  #offer({ candidates }, pin) {
    const automatic = new Option("the fastest, as measured", "");
    const rest = candidates.map(({ variant, can_run, reason, decode_tps }) => {
      const speed = decode_tps ? ` · ${decode_tps.toFixed(decode_tps < 10 ? 1 : 0)} tokens/s` : "";
      const option = new Option(can_run ? variant + speed : `${variant}: ${reason}`, variant);
      option.disabled = !can_run;
      return option;
    });
    this.#switch.replaceChildren(automatic, ...rest);
    // A pin may also name a backend ("wasm"): it then stands for its first variant.
    const pinned = candidates.find(({ variant, backend }) => pin === variant || pin === backend);
    this.#switch.value = pinned?.variant ?? "";
    this.#switch.disabled = false;
  }
}

/** @param {string} text @returns {Promise<boolean>} whether it lies in the clipboard */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // refused, or a page over plain http: it can be selected and copied by hand
  }
}
