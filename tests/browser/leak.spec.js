/** @file What a report of growing memory says of the page's own: see web/client/leak.js. It needs no page. */

import { expect, test } from "@playwright/test";

import { withHeap } from "../../web/client/leak.js";

test("a report has what the browser says of the page's memory, the largest first", async () => {
  const part = (/** @type {number} */ bytes, /** @type {string[]} */ ...types) => {
    return { bytes, types, attribution: types.length ? [{ url: "https://site/", scope: "Window" }] : [] };
  };
  const breakdown = [part(0, "DOM"), part(30, "JavaScript"), part(50), part(40, "JavaScript", "DOM")];
  const measured = { bytes: 120, breakdown };
  Object.assign(performance, { measureUserAgentSpecificMemory: async () => measured });
  const report = /** @type {any} */ ({ suspicion: "memory grew" });
  expect((await withHeap(report)).heap).toBe(null); // not isolated
  Object.assign(globalThis, { crossOriginIsolated: true });
  try {
    expect(await withHeap(report)).toEqual({
      suspicion: "memory grew",
      heap: {
        bytes: 120,
        parts: [
          { bytes: 50, types: [], scopes: [] },
          { bytes: 40, types: ["JavaScript", "DOM"], scopes: ["Window"] },
          { bytes: 30, types: ["JavaScript"], scopes: ["Window"] },
        ],
      },
    });
    Object.assign(performance, { measureUserAgentSpecificMemory: () => Promise.reject(new DOMException("busy", "SecurityError")) });
    expect((await withHeap(report)).heap).toBe(null);
  } finally {
    Reflect.deleteProperty(globalThis, "crossOriginIsolated");
    Reflect.deleteProperty(performance, "measureUserAgentSpecificMemory");
  }
});
