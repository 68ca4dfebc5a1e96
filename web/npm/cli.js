#!/usr/bin/env node
/**
 * @file `npx inpage copy FOLDER`: the package as plain files, for pages without a bundler and for bundlers that do not
 * follow `new URL("…", import.meta.url)`. A page imports FOLDER/inpage.js.
 */

import { cpSync, existsSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `usage: inpage copy FOLDER [--no-grammar]

  Copies what a page loads into FOLDER, such as public/inpage: a page then imports /inpage/inpage.js.
  --no-grammar leaves out what holds answers to a schema (1.1 MB, loaded only where it is asked for).`;

/** @param {string[]} args @returns {number} exit code */
function main(args) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { "no-grammar": { type: "boolean" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const [command, folder, ...more] = positionals;
  if (command !== "copy" || !folder || more.length) {
    console.error(USAGE);
    return 2;
  }
  const from = fileURLToPath(new URL("../dist/", import.meta.url));
  if (existsSync(folder) && readdirSync(folder).length && !existsSync(path.join(folder, "inpage.js"))) {
    console.error(`inpage: ${folder} is not empty and holds no earlier copy: name another folder`);
    return 1;
  }
  for (const name of existsSync(folder) ? readdirSync(folder) : []) if (/^shared-.*\.js$/.test(name)) rmSync(path.join(folder, name)); // an earlier version's
  const grammar = path.join(from, "grammar");
  cpSync(from, folder, { recursive: true, filter: (file) => !values["no-grammar"] || !file.startsWith(grammar) });
  console.log(`copied to ${folder}: import { InPage } from "…/inpage.js"`);
  return 0;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  console.error(`inpage: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
}
