// The loading line: what is being loaded now, and how many bytes of how many.
import { element, megabytes } from "../dom.js";
import { t } from "../i18n.js";

/** @type {Record<string, import("../i18n.js").Key>} */
const PHASES = { python: "phase_python", manifest: "phase_manifest", tokenizer: "phase_tokenizer", kernels: "phase_kernels", weights: "phase_weights", ready: "phase_ready" };

/** @typedef {import("../model/engine.js").Progress} LoadEvent */

export class Loading {
  #box = element("load", HTMLElement);
  #what = element("load-what", HTMLElement);
  #bytes = element("load-bytes", HTMLElement);
  #bar = element("load-bar", HTMLProgressElement);

  /** Shows one progress event. @param {LoadEvent} event */
  show({ phase, loaded, total, fromCache }) {
    this.#box.hidden = false;
    this.#what.textContent = PHASES[phase] ? t(PHASES[phase]) + (fromCache ? t("from_storage") : "") : phase;
    if (loaded !== undefined && total) {
      this.#bar.max = total;
      this.#bar.value = loaded;
      this.#bytes.textContent = t("bytes_of", { loaded: megabytes(loaded), total: megabytes(total) });
    } else {
      this.#bar.removeAttribute("value"); // it moves without saying how far
      this.#bytes.textContent = "";
    }
  }

  end() {
    this.#box.hidden = true;
  }
}
