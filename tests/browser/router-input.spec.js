/** @file What a broken host or a full disk does to a start through the router: one typed error, or the right answer. */

import { expect, MODEL, prompt, test } from "./support/router.js";

test.use({ together: true });

const SHARD = `${MODEL}weights/00000.bin`;

/**
 * @param {import("@playwright/test").Page} page
 * @returns {Promise<number[]>} the greedy answer to "hello"
 */
function answer(page) {
  return page.evaluate(async () => {
    const ids = [];
    const { inpage } = /** @type {any} */ (globalThis);
    for await (const piece of inpage.chat("hello", { temperature: 0, max_tokens: 20 })) ids.push(...piece.token_ids);
    return ids;
  });
}

/** @param {any} model @returns {number[]} */
function expected(model) {
  const tokens = model.greedy(prompt("hello"), 20);
  const stop = tokens.indexOf(2);
  return stop < 0 ? tokens : tokens.slice(0, stop + 1);
}

/** @type {[string, import("./support/server.js").Fault, string][]} */
const BROKEN = [
  ["with a wrong hash", { flip: 1234, always: true }, "artifact_invalid"],
  ["that the network cuts off", { endAfter: 1000, always: true }, "network"],
  ["that is missing", { status: 404, always: true }, "artifact_invalid"],
];

for (const [what, fault, code] of process.env.INPAGE_SLOW ? BROKEN : BROKEN.slice(0, 1)) {
  test(`a shard ${what} is ${code}, and the next start works`, async ({ page, start, server, model }) => {
    server.fault(SHARD, fault);
    const { error } = await start({ threads: 2 });
    expect(error).toMatchObject({ code, field: "weights.shards[0]" });
    expect(error.message).toContain("00000.bin");
    expect(error.message).not.toContain("\n");
    server.clear();
    expect((await start({ threads: 2 })).error).toBeUndefined();
    expect(await answer(page)).toEqual(expected(model));
  });
}

test("a storage quota that is exceeded costs nothing but the next visit's download", async ({ page, start, server, model, context, origin }) => {
  const devtools = await context.newCDPSession(page);
  await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 500_000 });
  expect((await start({ threads: 2 })).error).toBeUndefined();
  expect(await answer(page)).toEqual(expected(model));

  await devtools.send("Storage.overrideQuotaForOrigin", { origin });
  expect((await start({ threads: 2 })).error).toBeUndefined();
  server.clear();
  expect((await start({ threads: 2 })).error).toBeUndefined();
  expect(server.requests(SHARD)).toEqual([]);
  expect(await answer(page)).toEqual(expected(model));
});
