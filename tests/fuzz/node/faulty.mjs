/** @file Readers that do what none may, to see that the harness tells. */

import { EngineError } from "../../../web/engine/format/errors.js";

/** @type {import("./harness.mjs").Reader[]} */
export const READERS = [
  { name: "js-type-error", make: () => null, run: () => /** @type {any} */ (null).x },
  { name: "js-rejection", make: () => null, run: async () => Promise.reject(new RangeError("x")) },
  { name: "js-left-behind", make: () => null, run: () => void Promise.reject(new Error("nobody waits")) },
  { name: "js-code", make: () => null, run: () => { throw new EngineError("error", "x"); } },
  { name: "js-quotes", make: () => null, run: () => { throw new EngineError("invalid_request", "9".repeat(200)); } },
  { name: "js-field", make: () => null, run: () => { throw new EngineError("invalid_request", "x", "9".repeat(100)); } },
  { name: "js-endless", make: (m) => m.draw(2), run: (on) => { for (;;) if (!on) return; } },
];
