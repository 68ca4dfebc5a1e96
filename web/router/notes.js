/**
 * @file Small texts that Python keeps from visit to visit (measurements, faults), in IndexedDB. Losing them costs a
 * measurement.
 */

import { inStore } from "./in_store.js";

const NAME = "inpage-notes";
const STORE = "notes";

/** @param {string} key @returns {Promise<string>} empty where nothing was kept */
export async function readNote(key) {
  const value = await inStore(NAME, STORE, "readonly", (store) => store.get(key));
  return typeof value === "string" ? value : "";
}

/** @param {string} key @param {string} text */
export async function writeNote(key, text) {
  await inStore(NAME, STORE, "readwrite", (store) => store.put(text, key));
}
