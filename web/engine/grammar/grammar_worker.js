/**
 * @file A grammar worker: compiles grammars and says which tokens may follow, away from the engine, whose other answers go
 * on meanwhile. Its maker sends `{open, port}` first, then `{id, kind, source}` for each grammar to be made ready, answered
 * by `{id}` or `{id, error}`. Over the port the engine asks `{id, held, words}`, answered by `{id, mask}` or `{id, error}`,
 * and tells `{forget}` of a request that ended.
 */

import { toWire } from "../format/errors.js";
import { begin } from "../host/workers.js";
import { DEFAULT_POLICY } from "../storage/download.js";
import { folderUrl } from "../storage/shards.js";
import { openStore } from "../storage/storage.js";
import { Grammars } from "./grammar.js";

/**
 * @typedef {import("../core/protocol.js").Constraint} Constraint
 * @typedef {{id: string, kind: Constraint["kind"], source: string, tokens: number[]}} Held
 */

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

/** @type {import("../core/protocol.js").GrammarOptions} */
let opening;
/** @type {Promise<Grammars> | null} */
let grammars = null;
/** One thing at a time. */
let last = Promise.resolve();

begin();

scope.onmessage = ({ data }) => {
  if ("open" in data) {
    opening = data.open;
    const port = /** @type {MessagePort} */ (data.port);
    port.onmessage = (event) => inTurn(port, event.data, event.data.forget === undefined ? masks : forget);
  } else inTurn(scope, data, prepare);
};

/**
 * @param {MessagePort | DedicatedWorkerGlobalScope} to
 * @param {any} asked
 * @param {(asked: any) => Promise<{mask?: Uint32Array<ArrayBuffer>} | null>} work null: nobody waits for an answer
 */
function inTurn(to, asked, work) {
  last = last.then(async () => {
    const { id } = asked;
    try {
      const value = await work(asked);
      if (value) to.postMessage({ id, ...value }, value.mask ? [value.mask.buffer] : []);
    } catch (error) {
      to.postMessage({ id, error: toWire(error) });
    }
  });
}

/** @param {Pick<Constraint, "kind" | "source">} grammar */
async function prepare(grammar) {
  await (await opened()).prepare(grammar);
  return {};
}

/** @param {{held: Held[], words: number}} asked */
async function masks({ held, words }) {
  const each = await opened();
  const mask = new Uint32Array(held.length * words);
  for (const [i, { tokens, ...constraint }] of held.entries()) {
    await each.mask(constraint, tokens, mask.subarray(i * words, (i + 1) * words));
  }
  return { mask };
}

/** @param {{forget: string}} asked */
async function forget({ forget: id }) {
  if (grammars) (await grammars).forget(id);
  return null;
}

/** A failure is not remembered: the network may come back. @returns {Promise<Grammars>} */
function opened() {
  grammars ??= open().catch((error) => {
    grammars = null;
    throw error;
  });
  return grammars;
}

async function open() {
  const { base, manifest, vocab, most, cache, network } = opening;
  const store = await openStore(cache ?? true);
  const policy = { ...DEFAULT_POLICY, ...network };
  const source = { base: folderUrl(base), store, policy, signal: new AbortController().signal, warnings: [] };
  return Grammars.open(source, manifest, vocab, most);
}
