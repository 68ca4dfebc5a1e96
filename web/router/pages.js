/**
 * @file KV pages kept in IndexedDB, for py/inpage/kv/storage.py: each value behind the SHA-256 of itself and its key. What
 * does not have it is removed and counts as absent.
 */

import { EngineError } from "../engine/format/errors.js";
import { sha256 } from "../engine/storage/sha256.js";
import { Rows } from "./rows.js";

const pages = new Rows("inpage-kv");
const DIGEST = 32;

/**
 * @param {string[]} keys
 * @param {Uint8Array} data `size` bytes for each key
 * @param {number} size
 * @param {number} budget bytes that all values together may have
 */
export async function pagesPut(keys, data, size, budget) {
  try {
    const rows = await Promise.all(
      keys.map(async (key, i) => {
        const value = new Uint8Array(DIGEST + size);
        value.set(data.subarray(i * size, (i + 1) * size), DIGEST);
        value.set(await digest(key, value.subarray(DIGEST)));
        return { key, value, tags: [] };
      }),
    );
    await pages.put(rows, budget);
  } catch (error) {
    throw new EngineError("storage_full", `the browser does not store KV pages: ${String(error)}`, null, error);
  }
}

/**
 * @param {string[]} keys
 * @param {number} size bytes of each value
 * @returns {Promise<{count: number, data: Uint8Array}>} of the first keys that are there, without a gap
 */
export async function pagesGet(keys, size) {
  const rows = await pages.get(keys).catch(() => []);
  const good = await Promise.all(
    rows.map(async (row, i) => {
      if (!(row instanceof Uint8Array)) return false;
      if (row.length === DIGEST + size && same(row, await digest(keys[i], row.subarray(DIGEST)))) return true;
      await pages.remove([keys[i]]).catch(() => undefined);
      return false;
    }),
  );
  const gap = good.indexOf(false);
  const count = gap < 0 ? good.length : gap;
  const data = new Uint8Array(count * size);
  for (let i = 0; i < count; i++) data.set(/** @type {Uint8Array} */ (rows[i]).subarray(DIGEST), i * size);
  return { count, data };
}

/** @param {string} start @returns {Promise<string[]>} keys that begin so, the most recently used first */
export async function pagesNames(start) {
  return pages.beginning(start).catch(() => []);
}

/**
 * @param {string} key
 * @param {Uint8Array} value
 * @returns {Promise<Uint8Array>}
 */
async function digest(key, value) {
  const name = new TextEncoder().encode(key);
  const whole = new Uint8Array(value.length + name.length);
  whole.set(value);
  whole.set(name, value.length);
  // Plain http has no crypto.subtle.
  if (globalThis.crypto?.subtle) return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
  return Uint8Array.from(sha256(whole).match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** @param {Uint8Array} row @param {Uint8Array} expected */
function same(row, expected) {
  return expected.every((byte, i) => row[i] === byte);
}
