/**
 * @file Before any test: the bundled workers (py/inpage/cli/scripts.py) are those of the modules that are there, and there is
 * a folder for what the workers of this run share (shared.js).
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** @returns {() => void} what ends the run */
export default function setUp() {
  const script = "from inpage.cli.scripts import bundled; assert bundled(), 'npm packages are missing: make setup'";
  execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { stdio: "inherit" });
  mkdirSync(path.join(ROOT, "build"), { recursive: true });
  const folder = mkdtempSync(path.join(ROOT, "build", "run-"));
  process.env.INPAGE_RUN = folder;
  return () => rmSync(folder, { recursive: true });
}
