/**
 * @file One prompt must not stand the others still: what cannot fit is refused unread, what is long is rendered and
 * tokenized beside the router, crowds are answered or refused by name, and files are read no further than they may be long.
 */

import { gzipSync } from "node:zlib";

import { toGuest } from "../../web/client/tab_messages.js";
import { object } from "../../web/engine/format/check.js";
import { TokenizerTables } from "../../web/engine/format/tokenizer_tables.js";
import { inPython, showPython } from "./support/python.js";
import { BASE, expect, MODEL, prompt, test } from "./support/router.js";

/** @typedef {import("@playwright/test").Page} Page */

/** For the page: `outcome` of an answer, as {ids} or {code, field}. */
const OUTCOME = `
  globalThis.outcome = async (stream) => {
    const ids = [];
    try {
      for await (const piece of stream) ids.push(...piece.token_ids);
      return { ids };
    } catch ({ code, field }) {
      return { code, field };
    }
  };
`;

test("texts that were made to collide are refused: looking one up stays a matter of a few slots", () => {
  // 200 texts whose FNV-1a hashes end in the same nine bits, as a tokenizer of 200 tokens has slots.
  const slot = (/** @type {string} */ text) => {
    let hash = 0x811c9dc5;
    for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193);
    return (hash ^ (hash >>> 15)) & 511;
  };
  const texts = Array.from({ length: 200_000 }, (_, i) => `t${i}`);
  const tables = (/** @type {string[]} */ some) =>
    Uint8Array.from([...Buffer.from("INTK"), 1, 2, ...Buffer.from("{}"), 0x80 | (some.length & 0x7f), some.length >> 7, ...some.map(({ length }) => length), ...Buffer.from(some.join("")), 0]);
  const plain = texts.slice(0, 200);
  expect(new TokenizerTables(tables(plain)).pieces()).toEqual(plain);
  const colliding = texts.filter((text) => slot(text) === 77).slice(0, 200);
  expect(colliding).toHaveLength(200);
  expect(() => new TokenizerTables(tables(colliding))).toThrow("made to collide");
});

test("bytes are no object whose members are walked, in what tabs say and in what an artifact holds", () => {
  // A typed array has a member for each of its numbers: walking two million of them takes hundreds of megabytes.
  const standing = { suspicion: 1, deaths: 2, rank: 3 };
  expect(toGuest({ died: {}, standings: { 4: standing, 5: { rank: 3 } } })).toEqual({ died: {}, standings: { 4: standing } });
  expect(toGuest({ died: {}, standings: new Uint32Array(4) })).toEqual({ died: {}, standings: {} });
  for (const walked of [new Uint32Array(4), new DataView(new ArrayBuffer(4)), new Uint8Array(2)]) {
    expect(() => object(walked, "field")).toThrow("must be an object");
    expect(toGuest({ died: walked })).toBeNull();
  }
});

test("10 MB and 100,000 messages are refused, and an answer beside them goes on", async ({ page, start, model }) => {
  await start({ threads: 1 });
  await page.evaluate(OUTCOME);
  const found = await page.evaluate(async () => {
    const { inpage, outcome } = /** @type {any} */ (globalThis);
    const how = { temperature: 0, max_tokens: 20 };
    const beside = Promise.all([1, 2, 3].map(() => outcome(inpage.chat("hello", how))));
    const long = "x".repeat(7_000_000);
    const many = Array.from({ length: 100_000 }, () => ({ role: "user", content: "x" }));
    const refused = [inpage.complete(long), inpage.chat(long), inpage.chat(many), inpage.complete(Array.from({ length: 1e6 }, () => 5))];
    return { refused: await Promise.all(refused.map(outcome)), beside: await beside };
  });
  expect(found.refused.map(({ code, field }) => [code, field])).toEqual([
    ["invalid_request", "prompt"], ["invalid_request", "messages"], ["invalid_request", "messages"], ["invalid_request", "prompt"],
  ]);
  const tokens = model.greedy(prompt("hello"), 20);
  const stop = tokens.indexOf(2);
  for (const { ids } of found.beside) expect(ids).toEqual(stop < 0 ? tokens : tokens.slice(0, stop + 1));
});

test("a template of nested loops is a typed error, and the next request works", async ({ page, start }) => {
  await showPython(page);
  await start({ threads: 1 });
  const sources = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set r = range %}{{ r(0, 1000000000) | length }}",
  ];
  const found = await inPython(
    page,
    `
from inpage.text.chat_template import ChatTemplate
from inpage.errors import InpageError
async def tried(source, aside):
    template = ChatTemplate(source, router.tokenizer, bos=1, eos=2)
    messages = [{"role": "user", "content": "hi"}]
    try:
        await template.encode_aside(messages) if aside else template.encode(messages)
    except InpageError as error:
        return [error.code, error.field]
json.dumps([await tried(source, aside) for source in data for aside in (False, True)])
`,
    sources,
  );
  expect(found).toEqual(Array.from({ length: 2 * sources.length }, () => ["artifact_invalid", "chat_template"]));
  // The rest is what transformers writes: of a request's JSON, numbers stay what they are.
  const asked = `{"x": 1.0, "é": "<&'>", "big": 12345678901234567890, "t": true, "n": null, "small": 1e-07}`;
  const written = await inPython(
    page,
    `
from inpage.text.template_sandbox import BoundedTemplate
sent = {"messages": [{"content": json.loads(data[0])}], "tools": None}
json.dumps([BoundedTemplate(source).render(sent, {}) for source in data[1:]])
`,
    [asked, "{{ messages[0].content | tojson }}", "{{ messages[0].content }}", "{{ tools is not none }}{{ 3.0 }}{% generation %}a{% endgeneration %}"],
  );
  expect(written).toEqual([asked, `{'x': 1.0, 'é': "<&'>", 'big': 12345678901234567890, 't': True, 'n': None, 'small': 1e-07}`, "False3.0a"]);
  await page.evaluate(OUTCOME);
  const { ids } = await page.evaluate(() => {
    const { inpage, outcome } = /** @type {any} */ (globalThis);
    return outcome(inpage.chat("hello", { temperature: 0, max_tokens: 3 }));
  });
  expect(ids.length).toBeGreaterThan(0);
});

test("a manifest that unpacks to 300 MB is refused while it is read", async ({ page, start, server }) => {
  const body = gzipSync(Buffer.alloc(300 << 20, " "));
  expect(body.length).toBeLessThan(1 << 20);
  server.fault(`${MODEL}manifest.json`, { body, encoding: "gzip" });
  const { error } = await start();
  expect(error).toMatchObject({ code: "artifact_invalid", field: "manifest.json" });
  expect(error.message).toContain("larger than 16777216 bytes");
  expect((await start()).error).toBeUndefined();
  // A site's list of models that is too long counts as none: what is wrong is the model that is not there.
  server.fault(`${BASE}site.json`, { body: Buffer.from(`{"models": []}${" ".repeat(2 << 20)}`) });
  expect((await start({ model: "none" })).error).toMatchObject({ code: "artifact_invalid" });

  // No more is asked for than the limit and a chunk, and the connection is let go.
  const read = await page.evaluate(async (url) => {
    const { readBounded } = await import(url);
    let [made, cancelled] = [0, false];
    const endless = new ReadableStream({
      pull(controller) {
        made += 1 << 16;
        controller.enqueue(new Uint8Array(1 << 16));
      },
      cancel: () => void (cancelled = true),
    });
    const code = await readBounded(new Response(endless), "note", "endless", null).catch((/** @type {any} */ { code }) => code);
    return { made, cancelled, code };
  }, `${BASE}engine/format/bounded.js`);
  expect(read).toMatchObject({ cancelled: true, code: "artifact_invalid" });
  expect(read.made).toBeLessThanOrEqual((1 << 20) + 3 * (1 << 16));
});

for (const count of process.env.INPAGE_SLOW ? [1000, 1500] : [1000]) {
  test(`${count} requests at once: none is lost, what is too much is refused by name, memory comes back`, async ({ page, start, model }) => {
    await showPython(page);
    await start({ threads: 1, settings: { scheduler: { timeout: null } } });
    await page.evaluate(OUTCOME);
    const held = () => inPython(page, "json.dumps([len(getattr(page, name)) for name in ('_streams', '_waiting', '_gone')])", null);
    const found = await page.evaluate(async (count) => {
      const { inpage, outcome } = /** @type {any} */ (globalThis);
      const asked = Array.from({ length: count }, (_, i) => outcome(inpage.complete([5 + (i % 40), 6], { temperature: 0, max_tokens: 2, cache: false })));
      const ended = await Promise.all(asked);
      const { requests, kv_pages } = await inpage.refresh();
      return { ended, requests, used: kv_pages.used };
    }, count);
    const refused = found.ended.filter(({ code }) => code);
    expect(refused.filter(({ code }) => code !== "queue_full")).toEqual([]);
    // A thousand may wait, and what runs waits no longer.
    expect(refused.length).toBeLessThanOrEqual(count - 1000);
    for (const [i, { ids }] of found.ended.entries()) {
      if (!ids) continue;
      const [first, second] = model.greedy([5 + (i % 40), 6], 2);
      expect(ids, `request ${i}`).toEqual(first === 2 ? [first] : [first, second]);
    }
    expect(found.requests).toEqual({ active: 0, waiting: 0 });
    expect(found.used).toBe(0);
    expect(await held()).toEqual([0, 0, 0]);
  });
}
