/**
 * @file What the page's tokenizer makes of texts by its tables, and the memory that it takes: for test_tokenizer_tables.py.
 *
 *     node --expose-gc tables_in_node.mjs TABLES [MOST_IDS] < texts → {"ids", "decoded", "bytes"}, or {"error", "peak"}
 *
 * In the place of tables, a tokenizer.json. peak: bytes of the arrays that were made until it was refused, with MOST_IDS.
 */

import { readFileSync } from "node:fs";

import { outlined, tokenizer } from "../../web/router/texts.js";

const texts = JSON.parse(readFileSync(0, "utf8"));
const { gc } = /** @type {{gc: () => void}} */ (/** @type {unknown} */ (globalThis));
const held = () => {
  gc();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};
const [, , file, most] = process.argv;
const content = readFileSync(file);
const before = held();
let made;
let peak = 0;
for (const Numbers of most ? [Int32Array, Uint32Array] : []) {
  const counted = class extends Numbers {
    constructor(/** @type {any[]} */ ...given) {
      super(.../** @type {[any]} */ (given));
      peak += this.byteLength;
    }
  };
  Object.assign(globalThis, { [Numbers.name]: counted });
}
try {
  const bounds = { characters: 1 << 26, items: 1 << 24, depth: 100, ids: most ? Number(most) : undefined };
  const { outline, described, tables } = outlined(file.endsWith(".json") ? content.toString() : new Uint8Array(content), bounds);
  made = tokenizer(described(outline), tables);
} catch (error) {
  process.stdout.write(JSON.stringify({ error: /** @type {Error} */ (error).message, peak }));
  process.exit();
}
const bytes = held() - before;
const ids = texts.map((/** @type {string} */ text) => Array.from(made.encode([text]).ids));
process.stdout.write(JSON.stringify({ ids, decoded: ids.map((/** @type {number[]} */ some) => made.decode(some)), bytes }));
