/**
 * @file Projects on the npm package, as strangers have them: each in a folder outside of the checkout, with the package
 * installed from its archive.
 */

import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { prompt, test as base, text } from "./router.js";

export { expect } from "./router.js";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
export const QUESTION = "hello";
const ENV = {
  ...process.env,
  VITE_MODEL: "synthetic",
  NEXT_PUBLIC_MODEL: "synthetic",
  NEXT_TELEMETRY_DISABLED: "1",
  NO_COLOR: "1",
  FORCE_COLOR: undefined,
  npm_config_audit: "false",
  npm_config_fund: "false",
  npm_config_loglevel: "error",
};

/** @typedef {(source: string) => string} Project of a folder of the checkout: where it is installed */

/** @param {string} folder @param {string} command @param {...string} args @returns {string} what it printed */
export function run(folder, command, ...args) {
  try {
    return execFileSync(command, args, { cwd: folder, encoding: "utf-8", stdio: ["ignore", "pipe", "pipe"], env: ENV });
  } catch (error) {
    const { stdout, stderr } = /** @type {{stdout: string, stderr: string}} */ (error);
    throw new Error(`${command} ${args.join(" ")} in ${folder}:\n${stdout}\n${stderr}`, { cause: error });
  }
}

/**
 * A development server.
 * @param {string} folder
 * @param {string[]} args of node
 * @returns {Promise<{url: string, stop: () => Promise<unknown>}>}
 */
export async function developed(folder, ...args) {
  const child = spawn("node", args, { cwd: folder, env: ENV, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const url = await new Promise((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on("line", (line) => {
        const found = /http:\/\/(?:127\.0\.0\.1|localhost):\d+/.exec(line);
        if (found) resolve(`${found[0].replace("localhost", "127.0.0.1")}/`);
      });
    }
    void ended.then((code) => reject(new Error(`${args.join(" ")} ended with ${code}`)));
  });
  const stop = () => {
    child.kill();
    return ended;
  };
  return { url, stop };
}

/** @param {any} model @returns {string} the greedy answer to the question */
export function expected(model) {
  const tokens = model.greedy(prompt(QUESTION), 60);
  const stop = tokens.indexOf(2);
  return text(stop < 0 ? tokens : tokens.slice(0, stop + 1)).trim();
}

/** Every URL of another host that a context's pages and workers ask. @param {import("@playwright/test").BrowserContext} context @param {string} origin */
export function elsewhere(context, origin) {
  const { host } = new URL(origin);
  /** @type {string[]} */
  const asked = [];
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (!["blob:", "data:"].includes(url.protocol) && url.host !== host) asked.push(url.href);
  });
  return asked;
}

/** `project`: gives a folder of the checkout as an installed project. @type {import("@playwright/test").TestType<any, any>} */
export const test = base.extend(
  /** @type {any} */ ({
    project: [
      // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
      async (/** @type {object} */ {}, /** @type {(value: Project) => Promise<void>} */ use) => {
        run(ROOT, path.join(ROOT, ".venv/bin/python"), "tools/package.py");
        const archive = String(readdirSync(path.join(ROOT, "build")).find((name) => /^inpage-.*\.tgz$/.test(name)));
        const folder = mkdtempSync(path.join(os.tmpdir(), "inpage-npm-"));
        /** @type {Project} */
        const project = (source) => {
          const place = path.join(folder, path.basename(source));
          if (existsSync(place)) return place;
          cpSync(path.join(ROOT, source), place, { recursive: true, filter: (file) => !/\/(node_modules|dist|inpage|out|\.next)$/.test(file) });
          if (existsSync(path.join(place, "package-lock.json"))) run(place, "npm", "ci", "--ignore-scripts");
          run(place, "npm", "install", "--no-save", path.join(ROOT, "build", archive));
          return place;
        };
        await use(project);
        rmSync(folder, { recursive: true });
      },
      { scope: "worker", timeout: 240_000 },
    ],
  }),
);
