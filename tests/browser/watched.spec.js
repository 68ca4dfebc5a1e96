/** @file A router that is blocked is ended and started again, whatever blocks it; no wait of a start is without an end. */

import { readFileSync } from "node:fs";
import path from "node:path";

import { expect, greedy, test } from "./support/failing.js";
import { BASE, MODEL } from "./support/router.js";
import { serveVariant } from "./support/variant.js";

const BAD = `${"a".repeat(60)}b`;
/** What never ends over BAD, and over nothing else that is asked here, and how that is said. */
const BLOCKS = {
  "a tokenizer's regular expression": { pattern: "(a+)+$", code: "poison_request" },
  "a template of nested loops": {
    template: "{% if 'aaaaaaaaaa' in messages[0]['content'] %}{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}{% endif %}",
    code: "artifact_invalid",
  },
};

// Without one each start fetches all there is, and takes five times as long.
test.use({ snapshot: !process.env.INPAGE_SLOW });

// The second is refused by its count of steps: bounded.spec.js has that in every run.
for (const [what, { code, ...variant }] of Object.entries(BLOCKS).slice(0, process.env.INPAGE_SLOW ? 2 : 1)) {
  test(`${what} that never ends fails its own request; time, a signal and unload do not wait for it`, async ({ page, start, ask, server, whole, model }) => {
    test.setTimeout(240_000);
    serveVariant(server, whole, variant);
    expect((await start({ threads: 1 })).error).toBeUndefined();
    const asked = ["hello", "x", BAD, "who are you"];
    const answers = await Promise.all(asked.map((question) => ask("chat", question)));
    expect(answers.map((answer) => answer.ids ?? answer.code)).toEqual(asked.map((question) => (question === BAD ? code : greedy(model, question, 60))));
    if (code !== "poison_request") return; // counted: it blocks nothing

    if (process.env.INPAGE_SLOW) {
      expect(await ask("chat", BAD, { timeout: 1 })).toEqual({ code: "timeout" });
      expect(await page.evaluate(async () => (await /** @type {any} */ (globalThis).inpage.health()).status)).toBe("healthy");
    }
    const ended = await page.evaluate(async (bad) => {
      const { inpage } = /** @type {any} */ (globalThis);
      const stop = new AbortController();
      const answer = inpage.chat(bad, { signal: stop.signal });
      const first = answer.next();
      await inpage.health(); // or the router is blocked by then, and this is answered by the next
      stop.abort();
      return (await first).value.finish_reason;
    }, BAD);
    expect(ended).toBe("cancelled");
    expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
    const unloaded = page.evaluate(async (bad) => {
      const { inpage } = /** @type {any} */ (globalThis);
      const waiting = inpage.chat(bad).next().catch((/** @type {any} */ { code }) => code);
      await new Promise((resolve) => setTimeout(resolve)); // by then it is asked for
      await inpage.unload();
      return waiting;
    }, BAD);
    expect(await unloaded).toBe("cancelled");
  });
}

test.describe(() => {
  test.use({ snapshot: false });

  test("a host's types do not matter, and nothing of a site ends in .mjs", async ({ page, start, ask, server, model }) => {
    /** @type {string[]} */
    const asked = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    for (const file of ["pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"]) {
      server.fault(`${BASE}vendor/pyodide/${file}`, { headers: { "Content-Type": file.endsWith("wasm") ? "application/octet-stream" : "text/plain" }, always: true });
    }
    expect((await start({ threads: 1 })).error).toBeUndefined();
    expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
    expect(server.requests(`${BASE}vendor/pyodide/pyodide.asm.wasm`).length).toBeGreaterThan(0);
    expect(server.log.map((entry) => entry.path).filter((name) => name.endsWith(".mjs"))).toEqual([]);
  });
});

test("Python's binary is compiled from the browser's own response, which brings the code of earlier visits", async ({ page, origin }) => {
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  const compiled = await page.evaluate(async (base) => {
    const { compileStreaming } = WebAssembly;
    /** @type {string[]} */
    const urls = [];
    WebAssembly.compileStreaming = async (source) => {
      const response = await source;
      urls.push(response.url);
      return compileStreaming.call(WebAssembly, response);
    };
    const { load } = await import(`${base}router/pyodide.js`);
    await load({});
    return urls;
  }, BASE);
  expect(compiled).toEqual([`${origin}${BASE}vendor/pyodide/pyodide.asm.wasm`]);
});

test("a policy without 'wasm-unsafe-eval' is an error that names it", async ({ start, server }) => {
  server.fault(`${BASE}router/worker.js`, { headers: { "Content-Security-Policy": "default-src 'self'; script-src 'self'" } });
  const { error } = await start({ threads: 1 });
  expect(error).toMatchObject({ code: "unsupported", field: "Content-Security-Policy" });
  expect(error.message).toContain("'wasm-unsafe-eval'");
});

/** @type {[string, string, import("./support/server.js").Fault, string][]} */
const BROKEN = [
  ["is missing", "vendor/pyodide/pyodide.asm.wasm", { status: 404 }, "network"],
  ["is missing", "vendor/pyodide/python_stdlib.zip", { status: 404 }, "network"],
  ["is cut off", "vendor/pyodide/pyodide.asm.wasm", { cutAfter: 100_000 }, "network"],
  ["is another file", "vendor/pyodide/pyodide.asm.wasm", { body: Buffer.from("<!doctype html>") }, "unsupported"],
];

for (const [what, file, fault, code] of process.env.INPAGE_SLOW ? BROKEN : BROKEN.slice(2, 3)) {
  test(`${path.basename(file)} that ${what} is said, and the next start works`, async ({ start, server }) => {
    server.fault(`${BASE}${file}`, { ...fault, always: true });
    const { error } = await start({ threads: 1 });
    expect(error).toMatchObject({ code, field: path.basename(file) });
    server.clear();
    expect((await start({ threads: 1 })).error).toBeUndefined();
  });
}

/** @type {[string, string][]} path, and the field that says so */
const SILENT = [
  [`${MODEL}manifest.json`, "manifest.json"],
  [`${BASE}inpage.zip`, "inpage.zip"],
  [`${BASE}vendor/pyodide/pyodide.asm.wasm`, "pyodide.asm.wasm"],
  [`${BASE}router/worker.js`, "router/worker.js"],
  [`${BASE}vendor/tokenizers/tokenizers.js`, "router/python.js, router/host.js or what they import"],
];

// They take as long as the limits are: INPAGE_SLOW=1 has them all.
for (const [url, field] of process.env.INPAGE_SLOW ? SILENT : SILENT.slice(0, 1)) {
  for (const when of url.endsWith(".wasm") ? /** @type {const} */ (["silent", "hold"]) : /** @type {const} */ (["silent"])) {
    test(`a server that never sends ${path.basename(url)} (${when}) ends the start with an error that names it`, async ({ start, server }) => {
      const never = new Promise(() => {});
      server.fault(url, { [when]: never, always: true });
      const { error } = await start({ threads: 1 });
      expect(error).toMatchObject({ code: "network", field });
      expect(error.message).toMatch(/ \d+ s/);
    });
  }
}

test("both hashes of what the build changes are pinned", () => {
  const { packages } = JSON.parse(readFileSync(new URL("../../web/vendor.json", import.meta.url), "utf8"));
  const [pyodide] = packages;
  expect(pyodide.files["pyodide.js"]).toMatchObject({ from: "pyodide.mjs", from_sha256: expect.stringMatching(/^[0-9a-f]{64}$/), sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
  const names = packages.flatMap((/** @type {any} */ each) => Object.keys(each.files));
  expect(names.filter((/** @type {string} */ name) => name.endsWith(".mjs"))).toEqual([]);
});
