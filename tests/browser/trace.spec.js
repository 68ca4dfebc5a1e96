/** @file What happens when, as a trace file and in the browser's own profiler, over the synthetic model. */

import { expect, test } from "./support/router.js";

test("a trace has the router's and the engine's spans, and the browser's profiler sees them", async ({ page, start }) => {
  await start({ threads: 1 });
  await page.evaluate(() => /** @type {any} */ (globalThis).inpage.startTrace());
  await page.evaluate(async () => {
    const { inpage } = /** @type {any} */ (globalThis);
    for await (const piece of inpage.chat("hello", { temperature: 0, max_tokens: 20 })) void piece;
  });
  const trace = JSON.parse(await page.evaluate(() => /** @type {any} */ (globalThis).inpage.stopTrace()));
  const names = new Set(trace.traceEvents.filter((/** @type {any} */ e) => "Xb".includes(e.ph)).map((/** @type {any} */ e) => e.name));
  for (const name of ["encode", "admit", "request", "waiting", "reading", "prefill", "answering", "decode"]) expect(names).toContain(name);
  const router = page.workers().find((worker) => worker.url().endsWith("router/worker.js"));
  const measures = await router?.evaluate(() =>
    performance.getEntriesByType("measure").map(({ name, startTime, duration }) => ({ name, startTime, duration, now: performance.now() })),
  );
  for (const name of ["inpage router: encode", "inpage engine: prefill", "inpage engine: decode"]) {
    const found = measures?.find((measure) => measure.name === name);
    expect(found?.duration).toBeGreaterThanOrEqual(0);
    expect(found && found.startTime > 0 && found.startTime + found.duration <= found.now).toBe(true);
  }
  expect(measures?.some(({ name }) => /^inpage request \d+: answering$/.test(name))).toBe(true);
});
