/**
 * @file From an empty folder to the first token, by the commands and lines of docs/embedding.md as they stand there: at most
 * six each, counted. INPAGE_SLOW=1: Vite is fetched from npm.
 */

import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";

import { expect, ROOT, test } from "./support/projects.js";

const MOST = 6;
const HTML = "<!doctype html>";

/** @returns {{name: string, commands: string[], lines: string[]}[]} */
function ways() {
  const text = readFileSync(path.join(ROOT, "docs/embedding.md"), "utf-8").split("## From an empty folder")[1].split("\n## ")[0];
  return [...text.matchAll(/^(With(?:out)?[^,]*),.*?```sh\n(.*?)```\s+```html\n(.*?)```/gms)].map(([, name, commands, lines]) => ({
    name,
    commands: commands.trim().split(/\n|&&/),
    lines: lines.trim().split("\n"),
  }));
}

for (const { name, commands, lines } of process.env.INPAGE_SLOW ? ways() : []) {
  test(`${name}: from an empty folder to the first token`, async ({ page, project, whole }) => {
    const beside = path.dirname(project("examples/plain-html"));
    cpSync(whole, path.join(beside, "models/smollm2-135m-instruct"), { recursive: true });
    const { version } = JSON.parse(readFileSync(path.join(ROOT, "package.json"), "utf-8"));
    copyFileSync(path.join(ROOT, `build/inpage-${version}.tgz`), path.join(beside, `inpage-${version}.tgz`));
    const folder = path.join(beside, `empty-${name.length}`);
    mkdirSync(folder);

    writeFileSync(path.join(folder, "index.html"), `${HTML}\n${lines.join("\n")}\n`);
    for (const command of commands.slice(0, -1)) execFileSync("bash", ["-c", command], { cwd: folder, stdio: "inherit" });
    const env = { ...process.env, PYTHONUNBUFFERED: "1", NO_COLOR: "1", FORCE_COLOR: undefined };
    const server = spawn("bash", ["-c", `exec ${commands.at(-1)}`], { cwd: folder, env, stdio: ["ignore", "pipe", "inherit"] });
    try {
      const port = await new Promise((resolve) => {
        createInterface(server.stdout).on("line", (line) => {
          const found = /(?: port |localhost:)(\d+)/.exec(line);
          if (found) resolve(found[1]);
        });
      });
      await page.goto(`http://localhost:${port}/`);
      await expect(page.locator("body")).toHaveText(/\S/);
      console.log(`${name}: ${commands.length} commands and ${lines.length} lines`);
      expect(commands.length + lines.length).toBeLessThanOrEqual(MOST);
    } finally {
      server.kill();
    }
  });
}

test("there are steps for a page without a bundler and for Vite, at most six each", () => {
  expect(ways().map(({ commands, lines }) => commands.length + lines.length)).toEqual([5, 6]);
});
