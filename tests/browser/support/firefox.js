/**
 * @file Debian's Firefox ESR, which Playwright cannot drive, over Marionette: Firefox's own protocol, a length and JSON on a
 * socket. As much of it as a test needs: prefs at the start, a page, a script in it.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import os from "node:os";
import path from "node:path";

const START_MS = 60_000;
const PREFS = {
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "app.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
};

/** @typedef {[type: number, id: number, error: {error: string, message: string} | null, value: any]} Reply */

export class Firefox {
  #child;
  #profile;
  #ended;
  /** @type {import("node:net").Socket} */
  #socket = /** @type {any} */ (null);
  /** @type {Map<number, (reply: Reply) => void>} */
  #waiting = new Map();
  #heard = Buffer.alloc(0);
  #next = 1;

  /** @param {string} file the program @param {number} port @param {Record<string, string | number | boolean>} prefs @param {string[]} args */
  constructor(file, port, prefs, args) {
    this.#profile = mkdtempSync(path.join(os.tmpdir(), "inpage-firefox-"));
    const lines = Object.entries({ ...PREFS, ...prefs, "marionette.port": port }).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`);
    writeFileSync(path.join(this.#profile, "user.js"), `${lines.join("\n")}\n`);
    const all = ["--headless", "--no-remote", "--marionette", "--profile", this.#profile, ...args];
    this.#child = spawn(file, all, { stdio: "ignore", env: { ...process.env, MOZ_HEADLESS: "1", MOZ_CRASHREPORTER_DISABLE: "1" } });
    this.#ended = new Promise((resolve) => this.#child.once("exit", resolve));
  }

  /**
   * @param {string} file the program
   * @param {Record<string, string | number | boolean>} [prefs]
   * @param {string[]} [args]
   * @returns {Promise<Firefox>}
   */
  static async start(file, prefs = {}, args = []) {
    const port = await freePort();
    const firefox = new Firefox(file, port, prefs, args);
    try {
      await firefox.#connect(port);
      await firefox.#call("WebDriver:NewSession", { capabilities: { alwaysMatch: { acceptInsecureCerts: false } } });
      await firefox.#call("WebDriver:SetTimeouts", { script: 180_000, pageLoad: 60_000 });
      return firefox;
    } catch (error) {
      await firefox.stop();
      throw error;
    }
  }

  /** @param {string} url */
  async open(url) {
    await this.#call("WebDriver:Navigate", { url });
  }

  /**
   * @template T
   * @param {(...args: any[]) => Promise<T>} script for the page; it sees nothing of what is round it
   * @param {unknown[]} args
   * @returns {Promise<T>}
   */
  async evaluate(script, ...args) {
    const text = `const done = arguments[arguments.length - 1];
      (${script})(...Array.from(arguments).slice(0, -1)).then((value) => done({ value }), (error) => done({ error: String(error) }));`;
    const { value } = await this.#call("WebDriver:ExecuteAsyncScript", { script: text, args, sandbox: null });
    if (value.error) throw new Error(value.error);
    return value.value;
  }

  async stop() {
    this.#socket?.destroy();
    this.#child.kill();
    await this.#ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  /** @param {number} port */
  async #connect(port) {
    for (const end = Date.now() + START_MS; ; ) {
      try {
        this.#socket = await socketTo(port);
        break;
      } catch (error) {
        if (Date.now() > end || this.#child.exitCode !== null) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    const greeted = new Promise((resolve) => this.#waiting.set(0, resolve));
    this.#socket.on("data", (data) => this.#hear(data));
    await greeted;
  }

  /** @param {Buffer} data */
  #hear(data) {
    this.#heard = Buffer.concat([this.#heard, data]);
    for (;;) {
      const colon = this.#heard.indexOf(":");
      const length = colon < 0 ? NaN : Number(this.#heard.subarray(0, colon).toString());
      if (!(this.#heard.length >= colon + 1 + length)) return;
      const message = JSON.parse(this.#heard.subarray(colon + 1, colon + 1 + length).toString());
      this.#heard = this.#heard.subarray(colon + 1 + length);
      const id = Array.isArray(message) ? message[1] : 0; // the greeting is none
      this.#waiting.get(id)?.(message);
      this.#waiting.delete(id);
    }
  }

  /** @param {string} name @param {object} params @returns {Promise<any>} */
  async #call(name, params) {
    const id = this.#next++;
    const answered = new Promise((resolve) => this.#waiting.set(id, resolve));
    const text = JSON.stringify([0, id, name, params]);
    this.#socket.write(`${Buffer.byteLength(text)}:${text}`);
    const ended = this.#ended.then(() => [1, id, { error: "gone", message: "Firefox ended" }, null]);
    const [, , error, value] = /** @type {Reply} */ (await Promise.race([answered, ended]));
    if (error) throw new Error(`${name}: ${error.error}: ${error.message}`);
    return value;
  }
}

/** @param {number} port @returns {Promise<import("node:net").Socket>} */
function socketTo(port) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** @returns {Promise<number>} */
function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}
