/** @file What a host without any settings is: `python -m http.server`. */

import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const PYTHON = fileURLToPath(new URL("../../../.venv/bin/python", import.meta.url));

/**
 * @param {string} folder
 * @param {number} [port] a free one if not given
 * @returns {Promise<{origin: string, port: number, requests: string[], stop: () => Promise<void>}>} requests: paths, as they come
 */
export async function plainServer(folder, port = 0) {
  const child = spawn(PYTHON, ["-u", "-m", "http.server", String(port), "--bind", "127.0.0.1"], { cwd: path.resolve(folder), stdio: ["ignore", "pipe", "pipe"] });
  /** @type {string[]} */
  const requests = [];
  createInterface(child.stderr).on("line", (line) => {
    const found = /"[A-Z]+ (\S*) /.exec(line);
    if (found) requests.push(found[1]);
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const line = await Promise.race([
    new Promise((resolve) => createInterface(child.stdout).once("line", resolve)),
    ended.then((code) => Promise.reject(new Error(`http.server ended with ${code}`))),
  ]);
  const chosen = Number(/ port (\d+)/.exec(line)?.[1]);
  const stop = async () => {
    child.kill();
    await ended;
  };
  return { origin: `http://127.0.0.1:${chosen}`, port: chosen, requests, stop };
}
