/**
 * @file While Python starts, the weights that are not stored yet are fetched, in a worker of its own: the load, which begins
 * when Python asks for it, goes on where this is then.
 */

import { place } from "../host/places.js";
import { startWorker } from "../host/workers.js";

/** @type {import("../host/workers.js").Started | null} */
let started = null;
/** Hashes of the files that it fetched, or is at. @type {string[]} */
let fetched = [];

/**
 * @param {string} base URL of a model's folder
 * @param {string} manifest its text
 */
export function prefetch(base, manifest) {
  const { worker, end } = (started = startWorker(place("engine/storage/prefetch_worker.js"), "prefetch", () => undefined));
  const hashes = fetched;
  worker.onmessage = ({ data }) => {
    if (data.fetching) hashes.push(data.fetching);
    else end();
  };
  worker.postMessage({ base, manifest });
}

/** What is stored only since a moment ago; for one load. The file under way is still fetched, which the load waits for. */
export function prefetched() {
  const hashes = fetched;
  started?.worker.postMessage({ stop: true });
  [started, fetched] = [null, []];
  return [...hashes];
}
