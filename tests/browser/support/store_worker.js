/** @file Runs a list of calls on one store, in a worker, where synchronous file handles exist. */

import { into, openStore, storageUsage } from "../../../web/engine/storage/storage.js";

/**
 * Each step is `[method, sha256, ...rest]`; bytes go in and out as plain arrays. A writer stays open between steps.
 * @param {{kind: "opfs" | "idb", steps: [string, string, any?][]}} command
 */
async function run({ kind, steps }) {
  const store = await openStore(kind);
  if (!store) return "no store";
  /** @type {import("../../../web/engine/storage/storage.js").FileWriter | null} */
  let writer = null;
  const results = [];
  for (const [method, sha256, rest] of steps) {
    const target = new Uint8Array(typeof rest === "number" ? rest : 0);
    const bytes = Uint8Array.from(Array.isArray(rest) ? rest : []);
    if (method === "has") results.push(await store.has(sha256, rest));
    else if (method === "read") results.push({ found: await store.read(sha256, into(target)), bytes: Array.from(target) });
    else if (method === "list") results.push(await store.list());
    else if (method === "delete") results.push((await store.delete(sha256)) ?? null);
    else if (method === "usage") results.push((await storageUsage())?.usage ?? null);
    else if (method === "open") results.push((writer = await store.writer(sha256, rest)).length);
    else if (method === "open once closed") {
      const opening = store.writer(sha256, rest);
      setTimeout(() => writer?.close());
      results.push((writer = await opening).length);
    } else if (method === "write") results.push(writer?.write(bytes, 0) ?? null);
    else if (method === "commit") results.push((await writer?.commit(bytes)) ?? null);
    else if (method === "close") results.push(writer?.close() ?? null);
    else if (method === "discard") results.push((await writer?.discard()) ?? null);
  }
  return results;
}

globalThis.onmessage = async (event) => {
  globalThis.postMessage(await run(event.data).catch((error) => `${error.name}: ${error.message}`));
};
