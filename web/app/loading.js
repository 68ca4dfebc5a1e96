// The loading line: what is being loaded now, and how many bytes of how many.
import { element, megabytes } from "./dom.js";

/** @type {Record<string, string>} */
const PHASES = {
  python: "Starting Python",
  manifest: "Reading the model's description",
  tokenizer: "Loading the tokenizer",
  kernels: "Loading the kernels",
  weights: "Loading the weights",
  ready: "Ready",
};

/** @typedef {{phase: string, loaded?: number, total?: number, fromCache?: boolean | number}} LoadEvent */

export class Loading {
  #box = element("load", HTMLElement);
  #what = element("load-what", HTMLElement);
  #bytes = element("load-bytes", HTMLElement);
  #bar = element("load-bar", HTMLProgressElement);

  /** Shows one progress event. @param {LoadEvent} event */
  show({ phase, loaded, total, fromCache }) {
    this.#box.hidden = false;
    this.#what.textContent = (PHASES[phase] ?? phase) + (fromCache ? " from this browser's storage" : "");
    if (loaded !== undefined && total) {
      this.#bar.max = total;
      this.#bar.value = loaded;
      this.#bytes.textContent = `${megabytes(loaded)} of ${megabytes(total)}`;
    } else {
      this.#bar.removeAttribute("value"); // it moves without saying how far
      this.#bytes.textContent = "";
    }
  }

  end() {
    this.#box.hidden = true;
  }
}
