/**
 * @file What to know when memory grows without end: the router's report (py/inpage/observe/leaks.py) with what the browser
 * says of the page's own memory, which only the main thread may ask for, and only where the page is isolated.
 */

/** @typedef {import("./types.js").Leak} Leak */

/**
 * @param {Omit<Leak, "heap">} report
 * @returns {Promise<Leak>}
 */
export async function withHeap(report) {
  return { ...report, heap: await pageHeap().catch(() => null) };
}

/** @returns {Promise<Leak["heap"]>} by kind of what holds it, the largest first; null where the browser does not say */
async function pageHeap() {
  const { performance } = /** @type {{performance: {measureUserAgentSpecificMemory?(): Promise<Measured>}}} */ (/** @type {unknown} */ (globalThis));
  if (!globalThis.crossOriginIsolated || !performance.measureUserAgentSpecificMemory) return null;
  const { bytes, breakdown } = await performance.measureUserAgentSpecificMemory();
  const parts = breakdown.filter((part) => part.bytes > 0).sort((a, b) => b.bytes - a.bytes);
  return { bytes, parts: parts.map(({ bytes, types, attribution }) => ({ bytes, types, scopes: attribution.map(({ scope }) => scope) })) };
}

/**
 * As the browser gives it: https://wicg.github.io/performance-measure-memory/
 * @typedef {{bytes: number, breakdown: {bytes: number, types: string[], attribution: {url: string, scope: string}[]}[]}} Measured
 */
