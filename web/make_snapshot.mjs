/**
 * @file Python's memory with all that a page's start needs, made where a site is built (py/inpage/cli/snapshot.py):
 *
 *     node make_snapshot.mjs PYODIDE ARCHIVE HOME KEY OUT
 *
 * PYODIDE: a folder of its files, as modules; ARCHIVE: the package, as the page has it; HOME: where the page has it; KEY:
 * what the memory is good for, behind it in OUT (router/kept_memory.js).
 *
 * The same inputs give the same bytes: clock and chance stand still. What Python draws from chance in the meantime, the seed
 * of its string hashes above all, is known to everybody who has the file anyway: docs/security.md.
 */

import crypto from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, archive, home, key, out] = process.argv.slice(2);

let state = 1;
/** @template {ArrayBufferView} T @param {T} view @returns {T} */
function fill(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return view;
}
Object.assign(crypto, { randomFillSync: fill });
Object.defineProperty(globalThis.crypto, "getRandomValues", { value: fill });
Object.defineProperty(globalThis.performance, "now", { value: () => 0 });
Date.now = () => 0;
Math.random = () => 0.5;
globalThis.Date = /** @type {DateConstructor} */ (
  class extends Date {
    /** @param {[]} given */
    constructor(...given) {
      super(...(given.length ? given : /** @type {[]} */ (/** @type {unknown} */ ([0]))));
    }
  }
);

const { loadPyodide } = await import(pathToFileURL(path.join(folder, "pyodide.js")).href);
const python = await loadPyodide({ indexURL: `${folder}${path.sep}`, _makeSnapshot: true });
python.FS.writeFile(home, new Uint8Array(readFileSync(archive)));
python.runPython(`
import gc, sys
sys.path.insert(0, "${home}")
# The modules that take most memory to compile go first: memory that has grown stays so.
import inpage.text.template_sandbox
gc.collect()
import inpage.worker.messages
import inpage.worker.kept_memory as kept
kept.import_later()
del kept
gc.collect()
`);
const memory = python.makeMemorySnapshot();
writeFileSync(out, memory);
writeFileSync(out, key, { flag: "a" });
