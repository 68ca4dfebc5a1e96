/**
 * @file Firefox ESR where it is installed (Debian's package firefox-esr, or INPAGE_FIREFOX): start, chat, threads of WASM, a
 * second visit. In a private window, and where cookies are blocked, with INPAGE_SLOW=1.
 */

import { accessSync, constants } from "node:fs";
import path from "node:path";

import { Firefox } from "./support/firefox.js";
import { BASE, expect, MODEL, prompt, test, text } from "./support/router.js";

const SLOW = Boolean(process.env.INPAGE_SLOW);
/** @type {{name: string, prefs: Record<string, string | number | boolean>, args: string[], kept: boolean}[]} kept: a second visit downloads nothing */
const MODES = [
  { name: "a normal window", prefs: {}, args: [], kept: true },
  { name: "a private window", prefs: { "browser.privatebrowsing.autostart": true }, args: ["--private-window"], kept: true },
  { name: "cookies blocked", prefs: { "network.cookie.cookieBehavior": 2 }, args: [], kept: false },
];

/** @returns {string | null} */
function program() {
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
    const file = process.env.INPAGE_FIREFOX ?? path.resolve(folder, "firefox-esr");
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // not there
    }
  }
  return null;
}

/** For the page. @param {string} base @param {string} model */
async function visit(base, model) {
  const { InPage } = await import(`${base}client/inpage.js`);
  const inpage = await InPage.start({ base, model, threads: 2 });
  const { threads, backend } = inpage.info;
  const pieces = [];
  for await (const piece of inpage.chat("hello", { temperature: 0, max_tokens: 20 })) pieces.push(piece);
  const response = await inpage.fetch("http://inpage/v1/chat/completions", {
    method: "POST", body: JSON.stringify({ messages: [{ role: "user", content: "hello" }], temperature: 0, max_tokens: 20 }),
  });
  const again = (await response.json()).choices[0].message.content;
  await inpage.unload();
  return { threads, backend, ids: pieces.flatMap((piece) => piece.token_ids), text: pieces.map((piece) => piece.text).join(""), again, isolated: crossOriginIsolated };
}

test.describe("Firefox ESR", () => {
  const file = program();
  test.skip(file === null, "firefox-esr is not installed");

  for (const { name, prefs, args, kept } of SLOW ? MODES : MODES.slice(0, 1)) {
    test(`starts, chats in threads and comes back: ${name}`, async ({ server, origin, model }) => {
      test.setTimeout(300_000);
      const tokens = model.greedy(prompt("hello"), 20);
      const stop = tokens.indexOf(2);
      const expected = stop < 0 ? tokens : tokens.slice(0, stop + 1);
      const firefox = await Firefox.start(/** @type {string} */ (file), prefs, args);
      try {
        for (const first of [true, false]) {
          server.clear();
          await firefox.open(`${origin}/tests/browser/support/blank.html`);
          const found = await firefox.evaluate(visit, BASE, MODEL);
          expect(found).toMatchObject({ backend: "wasm", threads: 2, isolated: true, ids: expected, text: text(expected), again: text(expected) });
          const weights = server.log.filter(({ path }) => path.endsWith(".bin")).length;
          if (first || !kept) expect(weights).toBeGreaterThan(0);
          else expect(weights).toBe(0);
          console.log(`Firefox, ${name}: ${weights} downloads of weights`);
        }
      } finally {
        await firefox.stop();
      }
    });
  }
});
