/**
 * @file What Python's memory held with the package imported, kept for later starts in the browser's storage under its
 * SHA-256. Behind the memory stands what it is good for: `keyOf`. There is one; another version takes its place.
 */

import { version } from "../vendor/pyodide/pyodide.js";
import { FILE_BYTES } from "../engine/format/limits.js";
import { digestOf, hasWebCrypto } from "../engine/storage/sha256.js";
import { openStore, withLock } from "../engine/storage/storage.js";
import { inStore } from "./in_store.js";

const FOLDER = "inpage-memory";
/** As py/inpage/cli/snapshot.py has it. */
const KEY_BYTES = 128;
/** A start from memory takes half a second. One that was begun so long ago and has not ended never will. */
const HANGS_MS = 5000;
/** How long to wait for the browser's answer: starting from the beginning takes no longer. */
const OPEN_MS = 1000;
/** Where the start that is under way is noted, and how long one without memory took. */
const STARTS = "inpage-starts";
const STORE = "memory";
const PLAIN = "plain";

/**
 * @typedef {object} Kept
 * @property {string} sha256
 * @property {string} key what it is good for
 * @property {Uint8Array<ArrayBuffer>} bytes the memory, and the key
 * @property {boolean} whole it is what was kept: a few flipped bytes of Python's memory make starts hang
 * @property {boolean} hung the last start from it never ended
 */

/**
 * Memory is good for the same Pyodide and the same package only.
 * @param {Uint8Array} archive the package
 * @returns {Promise<string>} empty where nothing can be hashed fast (plain http)
 */
export async function keyOf(archive) {
  return hasWebCrypto() ? `${version} ${await digestOf(archive)}` : "";
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
export const memoryOf = (bytes) => bytes.subarray(0, -KEY_BYTES);

/** @param {Uint8Array<ArrayBuffer>} bytes */
export const keyIn = (bytes) => new TextDecoder().decode(bytes.subarray(-KEY_BYTES)).trim();

/** @param {Uint8Array} memory @param {string} key @returns {Uint8Array<ArrayBuffer>} */
export function withKey(memory, key) {
  const bytes = new Uint8Array(memory.length + KEY_BYTES);
  bytes.set(memory);
  bytes.set(new TextEncoder().encode(key.padEnd(KEY_BYTES)), memory.length);
  return bytes;
}

/**
 * What was kept, whatever for: that is known when the package was read.
 * @param {(sha256: string) => Promise<boolean>} [note] a start from it begins; gives `hung`
 * @returns {Promise<Kept | null>}
 */
export async function remember(note = async () => false) {
  if (!hasWebCrypto()) return null;
  try {
    const store = await openStore(true, FOLDER);
    for (const sha256 of (await store?.list()) ?? []) {
      let bytes = new Uint8Array(0);
      /** @type {Promise<boolean> | undefined} */
      let noting;
      const found = await store?.read(sha256, (length) => {
        if (length <= KEY_BYTES || length > FILE_BYTES.python) return null;
        noting = note(sha256);
        return (bytes = new Uint8Array(length));
      });
      const hung = (await noting) ?? false;
      if (bytes.length) return { sha256, bytes, key: keyIn(bytes), whole: found === "whole", hung };
    }
    return null;
  } catch {
    return null; // storage that fails kept nothing
  }
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes with the key behind it
 * @returns {Promise<boolean>} whether it is kept
 */
export async function keep(bytes) {
  const store = await openStore(true, FOLDER);
  if (!store) return false;
  const sha256 = await digestOf(bytes);
  return withLock(sha256, new AbortController().signal, async (held) => {
    if (!held && store.needsLock) return false;
    if (!(await store.has(sha256, bytes.length))) {
      const writer = await store.writer(sha256, bytes.length);
      try {
        writer.truncate();
        writer.write(bytes, 0);
        await writer.commit(bytes);
      } catch (error) {
        await writer.discard().catch(() => undefined);
        throw error;
      }
    }
    await forget(sha256);
    return true;
  });
}

/** @param {string} [but] all others: of another version, or cut off */
export async function forget(but) {
  const store = await openStore(true, FOLDER);
  for (const sha256 of (await store?.list()) ?? []) {
    if (sha256 !== but) await store?.delete(sha256).catch(() => undefined); // another tab has it open
  }
}

/**
 * A start from memory begins: one that hangs all the same does so only once.
 * @param {string} sha256
 * @returns {Promise<boolean>} whether an earlier one from this memory never ended
 */
export async function noteStart(sha256) {
  /** @type {IDBRequest<unknown> | undefined} */
  let before;
  await inStore(STARTS, STORE, "readwrite", (store) => {
    before = store.get(sha256);
    return store.put(Date.now(), sha256);
  }, OPEN_MS);
  const began = before?.readyState === "done" && !before.error ? before.result : null;
  return typeof began === "number" && Math.abs(Date.now() - began) > HANGS_MS;
}

/** It ended, well or not. @param {string} sha256 */
export function strikeOut(sha256) {
  return inStore(STARTS, STORE, "readwrite", (store) => store.delete(sha256));
}

/** @param {number} ms that a start without memory took here */
export function notePlain(ms) {
  return inStore(STARTS, STORE, "readwrite", (store) => store.put(ms, PLAIN));
}

/** @returns {Promise<number | null>} milliseconds; null where none was seen */
export async function plainStart() {
  const ms = await inStore(STARTS, STORE, "readonly", (store) => store.get(PLAIN), OPEN_MS);
  return typeof ms === "number" && ms > 0 && ms < 120_000 ? ms : null;
}
