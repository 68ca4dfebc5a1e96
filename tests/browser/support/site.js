/** @file Fixtures of the page's tests: the built site with the real model, served by `inpage serve`, every request noted. */

import { test as base } from "@playwright/test";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

export { expect } from "@playwright/test";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
export const SITE = path.join(ROOT, "build/site");

/**
 * @typedef {object} Served
 * @property {string} url
 * @property {string[]} requests the request lines that arrived, such as "GET /app/app.js HTTP/1.1"
 * @property {() => Promise<void>} stop
 */

/**
 * @param {string} folder
 * @param {string[]} options of `inpage serve`
 * @returns {Promise<Served>}
 */
async function start(folder, ...options) {
  const program = path.join(ROOT, ".venv/bin/inpage");
  const child = spawn(program, ["serve", folder, "--port", "0", "--verbose", ...options], { stdio: ["ignore", "pipe", "pipe"] });
  /** @type {string[]} */
  const requests = [];
  createInterface(child.stderr).on("line", (line) => {
    const found = /"([A-Z]+ [^"]*)"/.exec(line);
    if (found) requests.push(found[1]);
  });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const url = await Promise.race([
    new Promise((resolve) => createInterface(child.stdout).once("line", resolve)),
    exited.then((code) => Promise.reject(new Error(`inpage serve ended with ${code}`))),
  ]);
  const stop = async () => {
    child.kill("SIGINT");
    await exited;
  };
  return { url, requests, stop };
}

/**
 * A proxy that lets nothing through and notes what came: whatever a page asks of another origin than this machine.
 * @returns {Promise<{server: string, asked: string[], stop: () => void}>}
 */
export async function foreignProxy() {
  /** @type {string[]} */
  const asked = [];
  const proxy = http.createServer((request, response) => {
    asked.push(String(request.url));
    response.writeHead(502).end();
  });
  proxy.on("connect", (request, socket) => {
    asked.push(String(request.url));
    socket.destroy();
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (proxy.address());
  return { server: `http://127.0.0.1:${port}`, asked, stop: () => void proxy.close() };
}

/**
 * What the service worker does is shown elsewhere (offline.spec.js): here a page is by itself, so that what it fetches is
 * what it needs. `site`: the built site, served once for all tests of a worker; `serve`: servers that end with the test.
 */
export const test = base.extend({ serviceWorkers: "block" }).extend(
  /** @type {import("@playwright/test").Fixtures<{serve: typeof start}, {site: Served}>} */ ({
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
    serve: async ({}, use) => {
      /** @type {Served[]} */
      const running = [];
      await use(async (folder, ...options) => {
        running.push(await start(folder, ...options));
        return running[running.length - 1];
      });
      await Promise.all(running.map((served) => served.stop()));
    },
    site: [
      // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern
      async ({}, use) => {
        const served = await start(SITE);
        await use(served);
        await served.stop();
      },
      { scope: "worker" },
    ],
  }),
);
