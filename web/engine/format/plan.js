/**
 * @file plan.json, checked. The schema stands in py/inpage/format/plan.py. A plan is untrusted input: after `readPlan`
 * every buffer lies inside the region it belongs to, so that nothing it says can make an executor write outside.
 */

import { MAX_BINDINGS, MAX_LAUNCHES, MAX_SCALARS, SCALAR_CONSTANT, SCALAR_VARIABLE, VARIABLES } from "./abi.js";
import { invalidArtifact } from "./errors.js";
import { parsed } from "./json.js";
import { ALIGN, BINDING_BYTES, INVOCATIONS, STORAGE_BUFFERS, WORKGROUP_Z, WORKGROUPS } from "./limits.js";
import { ADDRESSABLE } from "./manifest.js";
import { brief, said } from "./quoting.js";
import { PLAN } from "./schemas.js";
import { read } from "./structure.js";

/**
 * @typedef {"input" | "weight" | "arena" | "kv" | "output"} BufferKind
 * @typedef {object} PlanBuffer
 * @property {string} name
 * @property {BufferKind} kind
 * @property {number} arena which one an arena buffer lies in; 0 for the others
 * @property {number} offset where it starts in its region (weights, arena); 0 for the others
 * @property {number} bytes 0 for kv, which grows
 * @property {number} pageBytes of kv: bytes of one page; 0 for the others
 * @property {string | null} dtype of an input
 * @typedef {number | {variable: number} | {operator: string, a: Extent, b: Extent}} Extent of a grid
 * @typedef {object} Launch
 * @property {number} kernel
 * @property {number[]} buffers
 * @property {[kind: number, value: number][]} scalars
 * @property {[Extent, Extent, Extent]} grid workgroups; all 1 where the kernel has no workgroup (WASM)
 * @property {boolean} serial done by one thread, while the others wait at the barrier before it
 * @property {[Extent, Extent, Extent][]} others of each kernel that may run in its place, in their order (none for WASM)
 * @typedef {{name: string, buffers: number, scalars: number, access: string, workgroup: number[] | null, requires: string[]}} Kernel
 * @typedef {{name: string, maxRows: number, launches: Launch[]}} PlanFunction
 * @typedef {{layers: number[], page_tokens: number, window: number | null}} KvGroup
 * @typedef {{first: number, pageTokens: number}} BlockTable its first column, and how many tokens each of its pages holds
 * @typedef {object} Plan
 * @property {string} target
 * @property {number} pageTokens positions a KV page holds
 * @property {{rows: number, sequences: number, logit_rows: number, context: number}} maxima
 * @property {KvGroup[]} kvGroups where they are several, or have a window; else all layers are one
 * @property {BlockTable[]} blockTables that stand side by side in a sequence's row
 * @property {number} blocksPerSequence columns of the row
 * @property {number[]} arenas bytes of each
 * @property {number} arenaBytes of all
 * @property {number} pageBytes of all kv together
 * @property {number} vocab
 * @property {number} width columns of the logits: the vocabulary's, or an encoder's outputs
 * @property {boolean} paged whether there is a KV cache; without, a step computes whole sequences
 * @property {PlanBuffer[]} buffers
 * @property {Record<string, number>} io buffer ids by name, as inpage_io wants them
 * @property {Kernel[]} kernels
 * @property {number[][]} alternatives lists of kernels that do the same; launches name the first of a list
 * @property {PlanFunction[]} functions by rising maxRows
 */

/** An executor that shares one memory between all launches has one arena and one kv; WebGPU binds ranges. */
const ENCODER_COLUMNS = 3;
const REGIONS = { wasm: { arenas: 1, kv: 1 }, webgpu: { arenas: 2, kv: 65536 } };

/**
 * All that Python checks of a plan, and what the backend's executor adds.
 * @param {unknown} value parsed plan.json
 * @param {Map<string, import("./manifest.js").Tensor>} tensors of the manifest
 * @param {keyof typeof REGIONS} backend that will replay it
 * @returns {Plan}
 */
export function readPlan(value, tensors, backend) {
  const p = read(value, PLAN, "plan", "plan");
  const { maxima, arenas, vocab } = p;
  const kvGroups = readGroups(p.kv_groups ?? [], p.page_tokens, maxima.context);
  const sizes = kvGroups.length > 0 ? kvGroups.map((group) => group.page_tokens) : [p.page_tokens];
  const { tables, columns } = sideBySide(sizes, maxima.context);
  if (arenas.length > REGIONS[backend].arenas) {
    throw invalidArtifact(`has ${arenas.length}, this engine takes ${REGIONS[backend].arenas}`, "plan.arenas");
  }
  const buffers = readBuffers(p.buffers, arenas, tensors, maxima);
  const kv = buffers.filter((b) => b.kind === "kv");
  const most = REGIONS[backend].kv;
  if (kv.length > most) throw invalidArtifact(`has ${kv.length} kv, this engine takes up to ${most}`, "plan.buffers");
  const paged = kv.length > 0;
  const width = checkKind(p, paged, columns);
  if (backend === "wasm") checkAddressable(buffers);
  const kernels = p.kernels.map((/** @type {Checked} */ k, /** @type {number} */ i) => readKernel(k, `plan.kernels[${i}]`, backend));
  const alternatives = readAlternatives(p.alternatives ?? [], kernels);
  const others = new Map(alternatives.flatMap((ids) => ids.map((id, i) => /** @type {[number, number]} */ ([id, i ? -1 : ids.length - 1]))));
  for (const [id, { name, requires }] of /** @type {Kernel[]} */ (kernels).entries()) {
    if (requires.length === 0 || (others.get(id) ?? 0) < 0) continue;
    throw invalidArtifact(`no other kernel runs where ${brief(name)} cannot`, `plan.kernels[${id}].requires`);
  }
  const plan = {
    target: p.target,
    pageTokens: p.page_tokens,
    maxima,
    kvGroups,
    blockTables: paged ? tables : [],
    blocksPerSequence: p.blocks_per_sequence,
    arenas,
    arenaBytes: sum(arenas),
    pageBytes: sum(kv.map(({ pageBytes }) => pageBytes)),
    vocab,
    width,
    paged,
    buffers,
    io: readIo(p, buffers, width),
    kernels,
    alternatives,
    functions: readFunctions(p, kernels, buffers, others),
  };
  if (backend === "webgpu") checkBindings(plan);
  return plan;
}

/** @typedef {import("./structure.js").Checked} Checked */

/**
 * What depends on whether there is a KV cache.
 * @param {Checked} p
 * @param {boolean} paged
 * @param {number} columns of a sequence's block tables
 * @returns {number} columns of the logits
 */
function checkKind({ blocks_per_sequence: blocks, maxima, vocab, width, kv_groups: groups }, paged, columns) {
  if (paged) {
    if (columns > blocks) {
      throw invalidArtifact(`${blocks} pages; ${maxima.context} tokens need ${columns}`, "plan.blocks_per_sequence");
    }
    if ((width ?? vocab) !== vocab) throw invalidArtifact(`is ${width}, the vocabulary ${vocab}`, "plan.width");
    return vocab;
  }
  if (width === null) throw invalidArtifact("has no kv, and the plan no width as an encoder's has", "plan.buffers");
  if (groups) throw invalidArtifact("there is no kv", "plan.kv_groups");
  if (blocks !== ENCODER_COLUMNS) {
    throw invalidArtifact(`is ${blocks}; without kv there are ${ENCODER_COLUMNS}`, "plan.blocks_per_sequence");
  }
  if (maxima.context > maxima.rows) {
    throw invalidArtifact(`is ${maxima.rows}; without kv a step takes a whole context of ${maxima.context}`, "plan.maxima.rows");
  }
  return width;
}

/**
 * @param {KvGroup[]} items
 * @param {number} pageTokens
 * @param {number} context
 * @returns {KvGroup[]}
 */
function readGroups(items, pageTokens, context) {
  const seen = new Set();
  for (const [i, { layers, window }] of items.entries()) {
    for (const [k, layer] of layers.entries()) {
      if (seen.has(layer)) throw invalidArtifact(`layer ${layer} stands twice`, `plan.kv_groups[${i}].layers[${k}]`);
      seen.add(layer);
    }
    if (window !== null && window >= context) {
      throw invalidArtifact(`${window} in a context of ${context}; null is all of it`, `plan.kv_groups[${i}].window`);
    }
  }
  for (let layer = 0; layer < seen.size; layer++) {
    if (!seen.has(layer)) throw invalidArtifact(`there are ${seen.size} layers, but none ${layer}`, "plan.kv_groups");
  }
  if (items.length > 0 && items[0].page_tokens !== pageTokens) {
    throw invalidArtifact(`is ${items[0].page_tokens}, the plan's page_tokens ${pageTokens}`, "plan.kv_groups[0].page_tokens");
  }
  return items.length === 1 && items[0].window === null ? [] : items; // one of all layers is as if it were not said
}

/**
 * @param {number[]} sizes tokens of a page of each table
 * @param {number} context
 * @returns {{tables: BlockTable[], columns: number}}
 */
function sideBySide(sizes, context) {
  let columns = 0;
  const tables = sizes.map((pageTokens) => {
    const first = columns;
    columns += Math.ceil(context / pageTokens);
    return { first, pageTokens };
  });
  return { tables, columns };
}

/** @param {number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, n) => total + n, 0);
}

/**
 * @param {Checked[]} items
 * @param {number[]} arenas
 * @param {Map<string, import("./manifest.js").Tensor>} tensors
 * @param {Plan["maxima"]} maxima
 * @returns {PlanBuffer[]}
 */
function readBuffers(items, arenas, tensors, maxima) {
  const names = new Set();
  return items.map((b, i) => {
    const field = `plan.buffers[${i}]`;
    if (names.has(b.name)) throw invalidArtifact(`${brief(b.name)} stands twice`, `${field}.name`);
    names.add(b.name);
    const { name, kind } = b;
    const buffer = { name, kind, arena: b.arena ?? 0, offset: 0, bytes: b.bytes ?? 0, pageBytes: b.page_bytes ?? 0, dtype: b.dtype ?? null };
    if (kind === "arena") {
      if (b.arena >= arenas.length) throw invalidArtifact(`there is no arena ${b.arena}`, `${field}.arena`);
      buffer.offset = begin(b.offset, arenas[b.arena], `${field}.offset`);
      if (b.offset + b.bytes > arenas[b.arena]) throw invalidArtifact("ends outside the arena", `${field}.bytes`);
    } else if (kind === "weight") {
      const tensor = tensors.get(b.tensor);
      if (!tensor) throw invalidArtifact(`the manifest has no tensor ${brief(b.tensor)}`, `${field}.tensor`);
      const start = begin(b.start ?? 0, tensor.bytes, `${field}.start`);
      if (start + b.bytes > tensor.bytes) throw invalidArtifact(`tensor ${brief(b.tensor)} has ${tensor.bytes} bytes`, `${field}.bytes`);
      buffer.offset = tensor.offset + start;
    } else if (kind === "input") {
      const sizes = b.shape.map((/** @type {number | keyof Plan["maxima"]} */ d) => (typeof d === "string" ? maxima[d] : d));
      const need = sizes.reduce((/** @type {number} */ all, /** @type {number} */ size) => all * size, 4);
      if (b.bytes < need) throw invalidArtifact(`is ${b.bytes}, but this shape needs ${need} at the maxima`, `${field}.bytes`);
    }
    return buffer;
  });
}

/** @param {number} offset @param {number} most @param {string} field */
function begin(offset, most, field) {
  if (offset % ALIGN || offset > most) throw invalidArtifact(`${offset} is no multiple of ${ALIGN} up to ${most}`, field);
  return offset;
}

/** @param {PlanBuffer[]} buffers */
function checkAddressable(buffers) {
  for (const [i, { offset, bytes, pageBytes }] of buffers.entries()) {
    if (offset + bytes > ADDRESSABLE || pageBytes > ADDRESSABLE) {
      throw invalidArtifact("lies beyond what WebAssembly addresses", `plan.buffers[${i}]`);
    }
  }
}

/**
 * @param {Checked} plan
 * @param {PlanBuffer[]} buffers
 * @param {number} width
 * @returns {Record<string, number>}
 */
function readIo({ io: ids, maxima, blocks_per_sequence: blocks }, buffers, width) {
  /** @type {Record<string, number>} */
  const words = {
    token_ids: maxima.rows,
    positions: maxima.rows,
    row_sequence: maxima.rows,
    block_tables: maxima.sequences * blocks,
    logit_rows: maxima.logit_rows,
    logits: maxima.logit_rows * width,
  };
  /** @type {Record<string, number>} */
  const io = {};
  const known = new Set();
  for (const [name, id] of /** @type {[string, number][]} */ (Object.entries(ids))) {
    const field = `plan.io.${name}`;
    const wanted = name === "logits" ? "output" : "input";
    const buffer = buffers[id];
    if (!buffer) throw invalidArtifact(`there is no buffer ${id}`, field);
    if (buffer.kind !== wanted || (wanted === "input" && buffer.dtype !== "int32")) {
      throw invalidArtifact(`buffer ${id} is no ${wanted === "input" ? "int32 " : ""}${wanted}`, field);
    }
    if (buffer.bytes < words[name] * 4) throw invalidArtifact(`buffer ${id} is smaller than the maxima need`, field);
    if (known.has(id)) throw invalidArtifact(`buffer ${id} stands twice`, field);
    known.add(id);
    io[name] = id;
  }
  for (const [id, { kind, name }] of buffers.entries()) {
    const unknown = (kind === "input" || kind === "output") && !known.has(id);
    if (unknown) throw invalidArtifact(`unused ${kind} buffer ${brief(name)}`, "plan.io");
  }
  return io;
}

/**
 * @param {Checked} k
 * @param {string} field
 * @param {keyof typeof REGIONS} backend
 * @returns {Kernel}
 */
function readKernel({ name, buffers, scalars, access, workgroup, requires }, field, backend) {
  if (backend === "webgpu" && !workgroup) throw invalidArtifact("is missing", `${field}.workgroup`);
  if (backend === "webgpu" && buffers > STORAGE_BUFFERS) {
    throw invalidArtifact(`${buffers}; WebGPU binds ${STORAGE_BUFFERS}`, `${field}.buffers`);
  }
  if (workgroup?.[2] > WORKGROUP_Z) throw invalidArtifact(`${workgroup[2]}; WebGPU allows ${WORKGROUP_Z}`, `${field}.workgroup[2]`);
  if (workgroup?.reduce((/** @type {number} */ all, /** @type {number} */ size) => all * size) > INVOCATIONS) {
    throw invalidArtifact(`has more than ${INVOCATIONS} invocations`, `${field}.workgroup`);
  }
  if (access.length !== buffers) throw invalidArtifact("must have one of r, w, x for each buffer", `${field}.access`);
  return { name, buffers, scalars, access, workgroup, requires: requires ?? [] };
}

/**
 * @param {number[][]} groups
 * @param {Kernel[]} kernels
 * @returns {number[][]}
 */
function readAlternatives(groups, kernels) {
  const seen = new Set();
  for (const [i, ids] of groups.entries()) {
    for (const [k, id] of ids.entries()) {
      const field = `plan.alternatives[${i}][${k}]`;
      if (id >= kernels.length) throw invalidArtifact(`there is no kernel ${id}`, field);
      if (seen.has(id)) throw invalidArtifact(`kernel ${id} stands twice`, field);
      seen.add(id);
      if (takes(kernels[id]) !== takes(kernels[ids[0]])) {
        throw invalidArtifact(`${brief(kernels[id].name)} does not take what ${brief(kernels[ids[0]].name)} takes`, field);
      }
    }
  }
  return groups;
}

/** @param {Kernel} kernel */
function takes({ buffers, scalars, access, workgroup }) {
  return JSON.stringify([buffers, scalars, access, !workgroup]);
}

/**
 * @param {Checked} plan
 * @param {Kernel[]} kernels
 * @param {PlanBuffer[]} buffers
 * @param {Map<number, number>} others of a kernel how many may run in its place, -1 of one that only does so itself
 * @returns {PlanFunction[]}
 */
function readFunctions({ functions, maxima }, kernels, buffers, others) {
  let before = 0;
  const out = functions.map((/** @type {Checked} */ f, /** @type {number} */ i) => {
    const field = `plan.functions[${i}]`;
    if (f.max_rows <= before) throw invalidArtifact("functions must stand by rising max_rows", `${field}.max_rows`);
    before = f.max_rows;
    const most = { rows: f.max_rows, sequences: maxima.sequences, logit_rows: maxima.logit_rows };
    const launches = f.launches.map((/** @type {Checked} */ launch, /** @type {number} */ j) =>
      readLaunch(launch, `${field}.launches[${j}]`, kernels, buffers, others, most),
    );
    if (launches[0]?.serial) throw invalidArtifact("no barrier is before a function's first launch", `${field}.launches[0].serial`);
    return { name: f.name, maxRows: f.max_rows, launches };
  });
  if (before !== maxima.rows) throw invalidArtifact("the last function must take maxima.rows", "plan.functions");
  const all = out.flatMap((/** @type {PlanFunction} */ f) => f.launches);
  const counts = /** @type {[string, number, number][]} */ ([
    ["launches", all.length, MAX_LAUNCHES],
    ["bound buffers", sum(all.map((/** @type {Launch} */ launch) => launch.buffers.length)), MAX_BINDINGS],
    ["scalars", sum(all.map((/** @type {Launch} */ launch) => launch.scalars.length)), MAX_SCALARS],
  ]);
  for (const [what, count, limit] of counts) {
    if (count > limit) throw invalidArtifact(`${count} ${what}; the runtime takes at most ${limit}`, "plan.functions");
  }
  return out;
}

/**
 * @param {Checked} item
 * @param {string} field
 * @param {Kernel[]} kernels
 * @param {PlanBuffer[]} buffers
 * @param {Map<number, number>} others
 * @param {Record<string, number>} most
 * @returns {Launch}
 */
function readLaunch(item, field, kernels, buffers, others, most) {
  const kernel = kernels[item.kernel];
  if (!kernel) throw invalidArtifact(`there is no kernel ${item.kernel}`, `${field}.kernel`);
  const count = others.get(item.kernel) ?? 0;
  if (count < 0) throw invalidArtifact(`${item.kernel} is not the first of its alternatives`, `${field}.kernel`);
  for (const what of /** @type {const} */ (["buffers", "scalars"])) {
    if (item[what].length !== kernel[what]) throw invalidArtifact(`kernel ${brief(kernel.name)} takes ${kernel[what]}`, `${field}.${what}`);
  }
  for (const [i, id] of item.buffers.entries()) checkBinding(item.buffers, i, kernel.access, buffers, `${field}.buffers[${i}]`, id);
  if (item.serial && kernel.workgroup) throw invalidArtifact(`kernel ${brief(kernel.name)} has a workgroup`, `${field}.serial`);
  return {
    kernel: item.kernel,
    buffers: item.buffers,
    scalars: item.scalars.map((/** @type {number | string} */ scalar) =>
      typeof scalar === "string" ? [SCALAR_VARIABLE, VARIABLES.indexOf(scalar)] : [SCALAR_CONSTANT, scalar],
    ),
    grid: kernel.workgroup ? readGrid(item.grid, `${field}.grid`, most) : [1, 1, 1],
    serial: item.serial ?? false,
    others: kernel.workgroup ? readOthers(item.others ?? [], `${field}.others`, count, most) : [],
  };
}

/**
 * What is written is nobody's weight or input, and no other name of the same launch sees it.
 * @param {number[]} ids
 * @param {number} i which of them
 * @param {string} access
 * @param {PlanBuffer[]} buffers
 * @param {string} field
 * @param {number} id
 */
function checkBinding(ids, i, access, buffers, field, id) {
  const buffer = buffers[id];
  if (!buffer) throw invalidArtifact(`there is no buffer ${id}`, field);
  if (access[i] !== "r" && (buffer.kind === "weight" || buffer.kind === "input")) {
    throw invalidArtifact(`${buffer.kind} ${brief(buffer.name)} is written`, field);
  }
  for (let j = 0; j < i; j++) {
    const writes = access[i] !== "r" || access[j] !== "r";
    if (writes && (ids[j] === id || overlap(buffers[ids[j]], buffer))) {
      throw invalidArtifact(`${brief(buffer.name)} shares bytes with ${brief(buffers[ids[j]].name)} and one of them is written`, field);
    }
  }
}

/** @param {PlanBuffer} a @param {PlanBuffer} b */
function overlap(a, b) {
  if (a.kind !== "arena" || b.kind !== "arena" || a.arena !== b.arena) return false;
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

/**
 * @param {Checked} grid
 * @param {string} field
 * @param {Record<string, number>} most
 * @returns {[Extent, Extent, Extent]}
 */
function readGrid(grid, field, most) {
  if (grid === null) throw invalidArtifact("is missing", field);
  for (const [i, value] of grid.entries()) {
    const count = amount(value, most);
    if (count > WORKGROUPS) throw invalidArtifact(`${count} workgroups at the maxima; WebGPU allows ${WORKGROUPS}`, `${field}[${i}]`);
  }
  const none = Object.fromEntries(VARIABLES.map((name) => [name, 0]));
  if (amount(grid[0], most) !== amount(grid[0], none)) throw invalidArtifact("the grid's x depends on a variable", `${field}[0]`);
  return grid.map(toExtent);
}

/**
 * @param {Checked[]} grids
 * @param {string} field
 * @param {number} count
 * @param {Record<string, number>} most
 */
function readOthers(grids, field, count, most) {
  if (grids.length !== count) throw invalidArtifact(`${grids.length} grids; its kernel has ${count} alternatives`, field);
  return grids.map((grid, i) => readGrid(grid, `${field}[${i}]`, most));
}

/** @param {Checked} value @param {Record<string, number>} variables @returns {number} */
function amount(value, variables) {
  if (typeof value === "number") return value;
  if (typeof value === "string") return variables[value];
  const [operator, a, b] = [value[0], amount(value[1], variables), amount(value[2], variables)];
  return operator === "*" ? a * b : operator === "+" ? a + b : Math.ceil(a / b);
}

/** @param {Checked} value @returns {Extent} */
function toExtent(value) {
  if (typeof value === "number") return value;
  if (typeof value === "string") return { variable: VARIABLES.indexOf(value) };
  return { operator: value[0], a: toExtent(value[1]), b: toExtent(value[2]) };
}

/**
 * WebGPU's own rules: the size of a binding, and no arena that one launch reads and writes.
 * @param {Plan} plan
 */
function checkBindings({ functions, kernels, buffers }) {
  for (const [f, { launches }] of functions.entries()) {
    for (const [l, { kernel, buffers: ids }] of launches.entries()) {
      const field = `plan.functions[${f}].launches[${l}].buffers`;
      const { access } = kernels[kernel];
      const arenas = { r: new Set(), w: new Set() };
      for (const [i, id] of ids.entries()) {
        const { kind, arena, bytes, name } = buffers[id];
        if (bytes > BINDING_BYTES) throw invalidArtifact(`${brief(name)} has ${bytes} bytes, WebGPU binds ${BINDING_BYTES}`, `${field}[${i}]`);
        if (kind === "arena") arenas[access[i] === "r" ? "r" : "w"].add(arena);
      }
      if ([...arenas.r].some((arena) => arenas.w.has(arena))) throw invalidArtifact("an arena is read and written", field);
      if (new Set(ids).size !== ids.length) throw invalidArtifact("one buffer stands twice", field);
    }
  }
}

/**
 * @param {Uint8Array} bytes of plan.json
 * @returns {unknown}
 * @throws {import("./errors.js").EngineError} artifact_invalid
 */
export function parseJson(bytes) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw invalidArtifact(`is not UTF-8: ${said(error)}`, "plan");
  }
  return parsed(text, "plan");
}
