/**
 * @file What the tests with the real model run in the page: engines by name on `globalThis.lab`, driven through
 * EngineClient. Logits stay here, each row becoming its SHA-256: equal hashes are equal bits.
 */

import { SCORE_WORDS, SEQUENCE, SEQUENCE_WORDS } from "../../../web/engine/format/abi.js";
import { EngineClient } from "../../../web/engine/client.js";

/**
 * @typedef {object} Sequence
 * @property {number[]} ids the prompt
 * @property {number[]} pages its row of the block table; pages of different sequences must differ
 * @property {number[]} [probes] positions whose logits are wanted
 * @property {number} [start] so many of the first ids lie in the pages already
 * @typedef {{probes: Record<number, string>, tokens: number[], last: string}} Trace what one sequence went through:
 *   hashes of logits by position, tokens chosen, hash of the logits after the last one
 * @typedef {{argmax: number[], nll: number[], margin: number[]}} Scores of positions from + 1, from + 2, …
 */

/** @type {Map<string, EngineClient>} */
const engines = new Map();

/** @param {string} name */
function engine(name) {
  const client = engines.get(name);
  if (!client?.info) throw new Error(`no engine ${name} is loaded`);
  return { client, info: client.info };
}

/** @param {Float32Array} row */
async function hash(row) {
  const digest = await crypto.subtle.digest("SHA-256", /** @type {Float32Array<ArrayBuffer>} */ (row));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const GROUP_PAGES = 64; // where layers form groups, each has pages of its own for the tokens of so many of the first's

/**
 * @param {number[][]} pages of each sequence, of the first group
 * @param {Pick<import("../../../web/engine/load.js").Info, "blocks_per_sequence" | "groups" | "context">} info
 */
function blockTables(pages, { blocks_per_sequence: columns, groups, context }) {
  const table = new Int32Array(pages.length * columns).fill(-1);
  if (groups.length === 0) pages.forEach((row, i) => table.set(row, i * columns));
  let [column, first] = [0, 0];
  for (const { page_tokens: tokens } of groups) {
    const share = groups[0].page_tokens / tokens;
    pages.forEach((row, i) => {
      table.set(row.flatMap((page) => Array.from({ length: share }, (_, k) => first + page * share + k)), i * columns + column);
    });
    column += Math.ceil(context / tokens);
    first += GROUP_PAGES * share;
  }
  return table;
}

/**
 * Feed each sequence its ids, at most `chunk` of each in one step, all of them side by side.
 * @param {string} name
 * @param {Sequence[]} sequences
 * @param {number} chunk
 * @returns {Promise<Record<number, string>[]>} hashes of the probes
 */
async function prefill(name, sequences, chunk) {
  const { client, info } = engine(name);
  /** @type {Record<number, string>[]} */
  const found = sequences.map(() => ({}));
  const done = sequences.map(({ start = 0 }) => start);
  const tables = blockTables(sequences.map(({ pages }) => pages), info);
  while (sequences.some(({ ids }, s) => done[s] < ids.length)) {
    /** @type {{token: number, position: number, s: number}[]} */
    const rows = [];
    sequences.forEach(({ ids }, s) => {
      const room = Math.min(chunk, info.max_rows - rows.length, ids.length - done[s]);
      for (let i = 0; i < room; i++, done[s]++) rows.push({ token: ids[done[s]], position: done[s], s });
    });
    const wanted = rows.flatMap(({ s, position }, row) => (sequences[s].probes?.includes(position) ? [row] : []));
    const { logits } = await client.step({
      tokenIds: Int32Array.from(rows, ({ token }) => token),
      positions: Int32Array.from(rows, ({ position }) => position),
      rowSequence: Int32Array.from(rows, ({ s }) => s),
      blockTables: tables,
      logitRows: Int32Array.from(wanted),
      wantLogits: wanted.length > 0,
    });
    for (const [i, row] of wanted.entries()) {
      const { s, position } = rows[row];
      found[s][position] = await hash(/** @type {Float32Array} */ (logits).slice(i * info.vocab, (i + 1) * info.vocab));
    }
  }
  return found;
}

/**
 * @param {Sequence[]} sequences
 * @param {number[]} tokens to feed next, one a sequence
 * @param {number[]} positions of them
 * @param {Record<string, number>} params floats by name, and `seed`
 * @param {number} remaining
 * @returns {Int32Array} words
 */
function structs(sequences, tokens, positions, { seed = 0, ...floats }, remaining) {
  const words = new Int32Array(sequences.length * SEQUENCE_WORDS);
  const asFloats = new Float32Array(words.buffer);
  sequences.forEach(({ pages }, i) => {
    const at = i * SEQUENCE_WORDS;
    /** @type {Record<string, number>} */
    const integers = { token: tokens[i], position: positions[i], remaining, reserved: pages.length * 16, mask: -1, seed: seed + i };
    for (const [key, value] of Object.entries(integers)) words[at + SEQUENCE[/** @type {"token"} */ (key)]] = value;
    for (const [key, value] of Object.entries({ top_p: 1, repetition_penalty: 1, ...floats })) {
      asFloats[at + SEQUENCE[/** @type {"top_p"} */ (key)]] = value;
    }
  });
  return words;
}

const lab = {
  /**
   * @param {string} name
   * @param {{base: string, variant: string, threads: number | null, contextPages: number, exam?: boolean, cache?: boolean,
   *   profile?: boolean, tune?: boolean, kernels?: string[]}} options
   * @param {number} [pages] to reserve at once
   */
  async load(name, options, pages = options.contextPages) {
    const manifest = await (await fetch(`${options.base}/manifest.json`)).json();
    const client = new EngineClient();
    engines.set(name, client);
    const info = await client.load({ ...options, manifest });
    await client.reservePages(Math.min(pages, info.max_pages));
    return info;
  },

  /** Bytes of an engine's memory, before and after it holds so many KV pages. @param {string} name @param {number} pages */
  async memory(name, pages) {
    const { client } = engine(name);
    const before = await client.memory();
    await client.reservePages(pages);
    return { before, after: await client.memory() };
  },

  /** @param {string} name @param {string[]} kernels */
  chooseKernels: (name, kernels) => engine(name).client.chooseKernels(kernels),

  /** @param {string} name @param {import("../../../web/engine/core/protocol.js").ProfileInput} input */
  async profile(name, input) {
    const { launch_kernel, launch_us, launch_workgroups = [], ...rest } = await engine(name).client.profile(input);
    const lists = { launch_kernel: Array.from(launch_kernel), launch_us: Array.from(launch_us), launch_workgroups: Array.from(launch_workgroups) };
    return { ...rest, ...lists };
  },

  /** @param {string} name */
  async unload(name) {
    await engine(name).client.unload();
    engines.delete(name);
  },

  /**
   * Feed all ids but the last; score each position after `from` against the id that stands there.
   * @param {string} name
   * @param {{ids: number[], from: number, pages: number[]}} text
   * @returns {Promise<Scores>}
   */
  async score(name, { ids, from, pages }) {
    const { client, info } = engine(name);
    const tables = blockTables([pages], info);
    /** @type {Scores} */
    const scores = { argmax: [], nll: [], margin: [] };
    for (let at = 0; at < ids.length - 1; ) {
      const scored = at >= from;
      const end = scored ? Math.min(ids.length - 1, at + info.max_logit_rows) : Math.min(from, at + info.max_rows);
      const positions = Int32Array.from({ length: end - at }, (_, i) => at + i);
      const result = await client.step({
        tokenIds: Int32Array.from(ids.slice(at, end)),
        positions,
        rowSequence: new Int32Array(end - at),
        blockTables: tables,
        logitRows: scored ? positions.map((p) => p - at) : new Int32Array(0),
        targets: scored ? Int32Array.from(ids.slice(at + 1, end + 1)) : undefined,
      });
      const words = result.scores ?? new Int32Array(0);
      const floats = new Float32Array(words.buffer);
      for (let i = 0; i < words.length; i += SCORE_WORDS) {
        scores.argmax.push(words[i]);
        scores.nll.push(floats[i + 1]);
        scores.margin.push(floats[i + 2]);
      }
      at = end;
    }
    return scores;
  },

  /** @param {string} name */
  counters: async (name) => Array.from(await engine(name).client.counters()),

  /**
   * Prefill a prompt, then decode greedily in one burst (a single step first, which shows how long one takes); what the
   * burst after it counted.
   * @param {string} name
   * @param {{ids: number[], pages: number[], steps: number}} how
   * @returns {Promise<{tokens: number[], counters: number[]}>}
   */
  async burst(name, { ids, pages, steps }) {
    const { client, info } = engine(name);
    await prefill(name, [{ ids: ids.slice(0, -1), pages }], info.max_rows);
    const tables = blockTables([pages], info);
    const sequences = structs([{ ids, pages }], [ids[ids.length - 1]], [ids.length - 1], {}, steps);
    await client.run({ sequences, n: 1, blockTables: tables, maxSteps: 1 });
    const before = await client.counters();
    const { out } = await client.run({ sequences, n: 1, blockTables: tables, maxSteps: steps });
    const after = await client.counters();
    return { tokens: Array.from(out), counters: Array.from(after, (count, i) => count - before[i]) };
  },

  /**
   * KV pages as bytes, out of the engine and back in elsewhere.
   * @param {string} name
   * @param {{from: number[], to: number[]}} how
   */
  async movePages(name, { from, to }) {
    const { client } = engine(name);
    const data = await client.readPages({ pages: Int32Array.from(from) });
    await client.writePages({ pages: Int32Array.from(to), data });
  },

  /**
   * Logits after a prompt, of some tokens. All of it but the last token must lie in its pages.
   * @param {string} name
   * @param {{ids: number[], pages: number[], tokens: number[]}} how
   */
  async lastLogits(name, { ids, pages, tokens }) {
    const { client, info } = engine(name);
    const last = ids.length - 1;
    const { logits } = await client.step({
      tokenIds: Int32Array.of(ids[last]),
      positions: Int32Array.of(last),
      rowSequence: Int32Array.of(0),
      blockTables: blockTables([pages], info),
      logitRows: Int32Array.of(0),
      wantLogits: true,
    });
    return tokens.map((id) => /** @type {Float32Array} */ (logits)[id]);
  },

  /**
   * Prefill and decode sequences side by side; what happened to the one at index `watched`.
   * @param {string} name
   * @param {object} how
   * @param {Sequence[]} how.sequences
   * @param {number} [how.watched]
   * @param {number} how.chunk tokens of one sequence in one step of the prefill
   * @param {number} how.decode tokens to decode
   * @param {boolean} [how.single] one step a token instead of bursts
   * @param {Record<string, number>} [how.params] greedy if not given
   * @returns {Promise<Trace>}
   */
  async trace(name, { sequences, watched = 0, chunk, decode, single = false, params = {} }) {
    const { client, info } = engine(name);
    const prompts = sequences.map((sequence) => ({ ...sequence, ids: sequence.ids.slice(0, -1) }));
    const probes = (await prefill(name, prompts, chunk))[watched];
    const fed = sequences.map(({ ids }) => ids[ids.length - 1]);
    const at = sequences.map(({ ids }) => ids.length - 1);
    const tables = blockTables(sequences.map(({ pages }) => pages), info);
    const everyRow = Int32Array.from(sequences, (_, i) => i);
    /** @param {Int32Array} [sample] */
    const step = (sample) =>
      client.step({
        tokenIds: Int32Array.from(fed),
        positions: Int32Array.from(at),
        rowSequence: everyRow,
        blockTables: tables,
        logitRows: everyRow,
        sample,
        wantLogits: !sample,
      });
    /** @type {number[]} */
    const tokens = [];
    while (tokens.length < decode) {
      const words = structs(sequences, fed, at, params, decode - tokens.length);
      /** @type {number[][]} */
      let chosen;
      if (single) {
        const updated = /** @type {Int32Array} */ ((await step(words)).sequences);
        chosen = [sequences.map((_, i) => updated[i * SEQUENCE_WORDS + SEQUENCE.chosen])];
      } else {
        const n = sequences.length;
        const { steps, out } = await client.run({ sequences: words, n, blockTables: tables, maxSteps: decode });
        chosen = Array.from({ length: steps }, (_, i) => Array.from(out.subarray(i * n, (i + 1) * n)));
      }
      for (const row of chosen) {
        tokens.push(row[watched]);
        row.forEach((token, i) => {
          fed[i] = token;
          at[i]++;
        });
      }
    }
    const { logits } = await step();
    const last = /** @type {Float32Array} */ (logits).slice(watched * info.vocab, (watched + 1) * info.vocab);
    return { probes, tokens, last: await hash(last) };
  },
};

/** @typedef {typeof lab} RealLab */
/** @type {any} */ (globalThis).lab = lab;
