/** @file Before any test: the bundled workers (py/inpage/cli/scripts.py) are those of the modules that are there. */

import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

export default function makeBundles() {
  const script = "from inpage.cli.scripts import bundled; assert bundled(), 'npm packages are missing: make setup'";
  execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", script], { stdio: "inherit" });
}
