/** @file The contract of a store, kept by OPFS and IndexedDB alike, and what happens where there is neither. */

import { ARTIFACT, call, expect, test } from "./support/fixtures.js";
import { feed } from "./support/model.js";

test.use({ together: true });

const A = "a".repeat(64);
const B = "b".repeat(64);
const BYTES = [1, 2, 3, 4, 5];

for (const kind of ["opfs", "idb"]) {
  /** @param {import("@playwright/test").Page} lab @param {...unknown} steps */
  const store = (lab, ...steps) => call(lab, "store", { kind, steps });

  test.describe(kind, () => {
    test("a file is there once committed, for everyone, until deleted", async ({ lab }) => {
      expect(await store(lab, ["has", A, 5], ["open", A, 5], ["write", A, BYTES], ["has", A, 5], ["commit", A, BYTES], ["has", A, 5]))
        .toEqual([false, 0, null, false, null, true]);
      expect(await store(lab, ["read", A, 5], ["read", B, 5], ["list", ""], ["has", A, 4], ["read", A, 6])).toEqual([
        { found: "whole", bytes: BYTES }, { found: "absent", bytes: [0, 0, 0, 0, 0] }, [A], false, { found: "absent", bytes: [0, 0, 0, 0, 0, 0] },
      ]);
      expect(await store(lab, ["delete", A], ["delete", B], ["has", A, 5], ["list", ""])).toEqual([null, null, false, []]);
    });

    test("what is discarded or never committed is not there", async ({ lab }) => {
      await store(lab, ["open", A, 5], ["write", A, BYTES], ["discard", A]);
      await store(lab, ["open", B, 5], ["write", B, BYTES], ["close", B]);
      const absent = { found: "absent" };
      expect(await store(lab, ["has", A, 5], ["read", A, 5], ["has", B, 5], ["read", B, 5])).toMatchObject([false, absent, false, absent]);
      const [listed] = await store(lab, ["list", ""]);
      expect(listed).toEqual(kind === "opfs" ? [B] : []);
    });

    test("usage is what the browser says", async ({ lab }) => {
      const [usage] = await store(lab, ["usage", ""]);
      expect(usage).toBeGreaterThanOrEqual(0);
    });
  });
}

test("OPFS takes one writer of a file at a time, the next once the first has ended", async ({ lab }) => {
  expect(await call(lab, "store", { kind: "opfs", steps: [["open", A, 5], ["open once closed", A, 5], ["discard", A]] })).toEqual([0, 0, null]);
  expect(await call(lab, "store", { kind: "opfs", steps: [["open", A, 5], ["open", A, 5]] })).toContain("NoModificationAllowedError");
});

test("plain http: no isolation, no OPFS, no locks; one thread and IndexedDB still work", async ({ playwright, launchOptions, server, origin, model }) => {
  const args = [...(launchOptions.args ?? []), "--host-resolver-rules=MAP plain.example 127.0.0.1"];
  const browser = await playwright.chromium.launch({ ...launchOptions, args });
  try {
    const page = await browser.newPage();
    await page.goto(`${origin.replace("127.0.0.1", "plain.example")}/tests/browser/support/page.html`);
    await page.waitForFunction(() => "lab" in globalThis);
    expect(await call(page, "features")).toMatchObject({ isolated: false, threads: false, storage: { opfs: false, idb: true, locks: false } });
    const { value } = await call(page, "load", { base: ARTIFACT, threads: 2 });
    expect(value).toMatchObject({ threads: 1, storage: "idb", isolated: false, warnings: [] });
    server.clear();
    const again = await call(page, "load", { base: ARTIFACT });
    expect(again.value.cached_bytes).toBe(again.value.weight_bytes);
    await call(page, "reservePages", 8);
    const result = await call(page, "step", { ...feed([[3, 1, 4]]), logitRows: [2], wantLogits: true });
    expect(result.value.logits).toEqual(model.logits([3, 1, 4]));
  } finally {
    await browser.close();
  }
});
