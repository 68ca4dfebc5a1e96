/**
 * @file What the page's tokenizer makes of texts by its tables, and the memory that it takes: for test_tokenizer_tables.py.
 *
 *     node --expose-gc tables_in_node.mjs TABLES < texts → {"ids", "decoded", "bytes"}
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
const before = held();
const { outline, described, tables } = outlined(new Uint8Array(readFileSync(process.argv[2])), { characters: 0, items: 0, depth: 0 });
const made = tokenizer(described(outline), tables);
const bytes = held() - before;
const ids = texts.map((/** @type {string} */ text) => Array.from(made.encode([text]).ids));
process.stdout.write(JSON.stringify({ ids, decoded: ids.map((/** @type {number[]} */ some) => made.decode(some)), bytes }));
