/**
 * @file plan.json, checked. The schema stands in py/inpage/plan.py. A plan is untrusted input: after `readPlan` every
 * buffer lies inside the region it belongs to, so that nothing it says can make an executor write outside.
 */

import { IO_BUFFERS, SCALAR_CONSTANT, SCALAR_VARIABLE, VARIABLES } from "./abi.js";
import { array, integer, object, string } from "./check.js";
import { EngineError, invalidArtifact } from "./errors.js";
import { ADDRESSABLE, ALIGN } from "./manifest.js";

/**
 * @typedef {"input" | "weight" | "arena" | "kv" | "output"} BufferKind
 * @typedef {object} PlanBuffer
 * @property {string} name
 * @property {BufferKind} kind
 * @property {number} arena which one an arena buffer lies in; 0 for the others
 * @property {number} offset where it starts in its region (weights, arena); 0 for the others
 * @property {number} bytes 0 for kv, which grows
 * @property {number} pageBytes of kv: bytes of one page; 0 for the others
 * @typedef {number | {variable: number} | {operator: string, a: Extent, b: Extent}} Extent of a grid
 * @typedef {object} Launch
 * @property {number} kernel
 * @property {number[]} buffers
 * @property {[kind: number, value: number][]} scalars
 * @property {[Extent, Extent, Extent]} grid workgroups; all 1 where the kernel has no workgroup (WASM)
 * @typedef {{name: string, buffers: number, scalars: number, access: string, workgroup: number[] | null}} Kernel
 * @typedef {{name: string, maxRows: number, launches: Launch[]}} PlanFunction
 * @typedef {object} Plan
 * @property {string} target
 * @property {number} pageTokens positions a KV page holds
 * @property {{rows: number, sequences: number, logit_rows: number, context: number}} maxima
 * @property {number} blocksPerSequence columns of the block table
 * @property {number[]} arenas bytes of each
 * @property {number} arenaBytes of all
 * @property {number} pageBytes of all kv together
 * @property {number} vocab
 * @property {PlanBuffer[]} buffers
 * @property {Record<string, number>} io buffer ids by name, as inpage_io wants them
 * @property {Kernel[]} kernels
 * @property {number[][]} alternatives lists of kernels that do the same; launches name the first of a list
 * @property {PlanFunction[]} functions by rising maxRows
 */

const PLAN_VERSION = 2;
const MAX_ALTERNATIVES = 16;
const KINDS = new Set(["input", "weight", "arena", "kv", "output"]);
const OPERATORS = new Set(["*", "+", "ceildiv"]);
/** WebGPU's default limits. */
const MAX_INVOCATIONS = 256;
const MAX_STORAGE_BUFFERS = 8;
/** An executor that shares one memory between all launches has one arena and one kv; WebGPU binds ranges. */
const REGIONS = { wasm: { arenas: 1, kv: 1 }, webgpu: { arenas: 2, kv: 65536 } };

/**
 * @param {unknown} value parsed plan.json
 * @param {Map<string, import("./manifest.js").Tensor>} tensors of the manifest
 * @param {keyof typeof REGIONS} backend that will replay it
 * @returns {Plan}
 */
export function readPlan(value, tensors, backend) {
  const top = object(value, "plan");
  if (top.version !== PLAN_VERSION) {
    throw invalidArtifact(`version ${String(top.version)} is not ${PLAN_VERSION}`, "plan.version");
  }
  const declared = object(top.maxima, "plan.maxima");
  const maxima = {
    rows: integer(declared.rows, "plan.maxima.rows", 1, 65536),
    sequences: integer(declared.sequences, "plan.maxima.sequences", 1, 4096),
    logit_rows: integer(declared.logit_rows, "plan.maxima.logit_rows", 1, 65536),
    context: integer(declared.context, "plan.maxima.context", 1, 2 ** 24),
  };
  const names = array(top.variables, "plan.variables", VARIABLES.length);
  if (names.length !== VARIABLES.length || names.some((name, i) => name !== VARIABLES[i])) {
    throw invalidArtifact(`must be ${VARIABLES.join(", ")}`, "plan.variables");
  }
  const pageTokens = integer(top.page_tokens, "plan.page_tokens", 1, 4096);
  const blocksPerSequence = integer(top.blocks_per_sequence, "plan.blocks_per_sequence", 1, 2 ** 20);
  if (blocksPerSequence * pageTokens < maxima.context) {
    throw invalidArtifact(`${blocksPerSequence} pages do not hold the context`, "plan.blocks_per_sequence");
  }
  const arenas = array(top.arenas, "plan.arenas", REGIONS[backend].arenas).map((bytes, i) =>
    integer(bytes, `plan.arenas[${i}]`, 0, ADDRESSABLE),
  );
  const vocab = integer(top.vocab, "plan.vocab", 1, 2 ** 24);
  const buffers = array(top.buffers, "plan.buffers", 65536).map((item, i) =>
    readBuffer(item, `plan.buffers[${i}]`, arenas, tensors),
  );
  const kv = buffers.filter((b) => b.kind === "kv");
  const most = REGIONS[backend].kv;
  if (kv.length < 1 || kv.length > most) {
    throw invalidArtifact(`has ${kv.length} kv, this engine takes 1 to ${most}`, "plan.buffers");
  }
  const kernels = readKernels(top, backend);
  const alternatives = readAlternatives(top.alternatives ?? [], kernels);
  const plan = {
    target: string(top.target, "plan.target"),
    pageTokens,
    maxima,
    blocksPerSequence,
    arenas,
    arenaBytes: sum(arenas),
    pageBytes: sum(kv.map(({ pageBytes }) => pageBytes)),
    vocab,
    buffers,
    io: readIo(top.io, buffers, maxima, blocksPerSequence, vocab),
    kernels,
    alternatives,
    functions: readFunctions(top, kernels, buffers.length, new Set(alternatives.flatMap(([, ...others]) => others))),
  };
  const last = plan.functions[plan.functions.length - 1];
  if (last.maxRows !== maxima.rows) {
    throw invalidArtifact("the last function must take maxima.rows", "plan.functions");
  }
  return plan;
}

/** @param {number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, n) => total + n, 0);
}

/**
 * @param {unknown} item
 * @param {string} field
 * @param {number[]} arenas
 * @param {Map<string, import("./manifest.js").Tensor>} tensors
 * @returns {PlanBuffer}
 */
function readBuffer(item, field, arenas, tensors) {
  const entry = object(item, field);
  const name = string(entry.name, `${field}.name`);
  const kind = string(entry.kind, `${field}.kind`);
  if (!KINDS.has(kind)) throw invalidArtifact(`unknown kind ${JSON.stringify(kind)}`, `${field}.kind`);
  if (kind === "kv") {
    return { name, kind, arena: 0, offset: 0, bytes: 0, pageBytes: integer(entry.page_bytes, `${field}.page_bytes`, 1, ADDRESSABLE) };
  }
  const bytes = integer(entry.bytes, `${field}.bytes`, 1, ADDRESSABLE);
  let offset = 0;
  let arena = 0;
  if (kind === "arena") {
    arena = integer(entry.arena, `${field}.arena`, 0, arenas.length - 1);
    offset = integer(entry.offset, `${field}.offset`, 0, arenas[arena]);
    if (offset + bytes > arenas[arena]) throw invalidArtifact("ends outside the arena", `${field}.bytes`);
  } else if (kind === "weight") {
    const tensorName = string(entry.tensor, `${field}.tensor`);
    const tensor = tensors.get(tensorName);
    if (!tensor) throw invalidArtifact(`the manifest has no tensor ${JSON.stringify(tensorName)}`, `${field}.tensor`);
    const start = entry.start === undefined ? 0 : integer(entry.start, `${field}.start`, 0, tensor.bytes);
    if (start + bytes > tensor.bytes) {
      throw invalidArtifact(`tensor ${tensorName} has ${tensor.bytes} bytes`, `${field}.bytes`);
    }
    offset = tensor.offset + start;
  }
  if (offset % ALIGN) throw invalidArtifact(`is not a multiple of ${ALIGN}`, `${field}.offset`);
  return { name, kind: /** @type {BufferKind} */ (kind), arena, offset, bytes, pageBytes: 0 };
}

/**
 * @param {unknown} value
 * @param {PlanBuffer[]} buffers
 * @param {Plan["maxima"]} maxima
 * @param {number} blocksPerSequence
 * @param {number} vocab
 * @returns {Record<string, number>}
 */
function readIo(value, buffers, maxima, blocksPerSequence, vocab) {
  const entry = object(value, "plan.io");
  /** @type {Record<string, number>} */
  const words = {
    token_ids: maxima.rows,
    positions: maxima.rows,
    row_sequence: maxima.rows,
    block_tables: maxima.sequences * blocksPerSequence,
    logit_rows: maxima.logit_rows,
    logits: maxima.logit_rows * vocab,
  };
  /** @type {Record<string, number>} */
  const io = {};
  for (const name of IO_BUFFERS) {
    const field = `plan.io.${name}`;
    const id = integer(entry[name], field, 0, buffers.length - 1);
    const wanted = name === "logits" ? "output" : "input";
    if (buffers[id].kind !== wanted) throw invalidArtifact(`buffer ${id} is no ${wanted}`, field);
    if (buffers[id].bytes < words[name] * 4) throw invalidArtifact(`buffer ${id} is smaller than the maxima need`, field);
    io[name] = id;
  }
  return io;
}

/**
 * @param {Record<string, unknown>} top
 * @param {keyof typeof REGIONS} backend
 * @returns {Kernel[]}
 */
function readKernels(top, backend) {
  return array(top.kernels, "plan.kernels", 4096).map((item, i) => {
    const field = `plan.kernels[${i}]`;
    const entry = object(item, field);
    const most = backend === "webgpu" ? MAX_STORAGE_BUFFERS : 64;
    const kernel = {
      name: string(entry.name, `${field}.name`),
      buffers: integer(entry.buffers, `${field}.buffers`, 0, most),
      scalars: integer(entry.scalars, `${field}.scalars`, 0, backend === "webgpu" ? 16 : 64),
      access: string(entry.access, `${field}.access`),
      workgroup: backend === "webgpu" ? three(entry.workgroup, `${field}.workgroup`).map((size, axis) =>
        integer(size, `${field}.workgroup[${axis}]`, 1, MAX_INVOCATIONS),
      ) : null,
    };
    if (!/^[rwx]*$/.test(kernel.access) || kernel.access.length !== kernel.buffers) {
      throw invalidArtifact("must have one of r, w, x for each buffer", `${field}.access`);
    }
    if (kernel.workgroup && kernel.workgroup.reduce((all, size) => all * size) > MAX_INVOCATIONS) {
      throw invalidArtifact(`has more than ${MAX_INVOCATIONS} invocations`, `${field}.workgroup`);
    }
    return kernel;
  });
}

/**
 * @param {unknown} value
 * @param {Kernel[]} kernels
 * @returns {number[][]}
 */
function readAlternatives(value, kernels) {
  const seen = new Set();
  return array(value, "plan.alternatives", kernels.length).map((item, i) => {
    const field = `plan.alternatives[${i}]`;
    const list = array(item, field, MAX_ALTERNATIVES);
    if (list.length < 2) throw invalidArtifact(`must name 2 to ${MAX_ALTERNATIVES} kernels`, field);
    const ids = list.map((id, k) => integer(id, `${field}[${k}]`, 0, kernels.length - 1));
    ids.forEach((id, k) => {
      if (seen.has(id)) throw invalidArtifact(`kernel ${id} stands twice`, `${field}[${k}]`);
      seen.add(id);
      if (takes(kernels[id]) !== takes(kernels[ids[0]])) {
        throw invalidArtifact(`${kernels[id].name} does not take what ${kernels[ids[0]].name} takes`, `${field}[${k}]`);
      }
    });
    return ids;
  });
}

/** @param {Kernel} kernel */
function takes({ buffers, scalars, access, workgroup }) {
  return JSON.stringify([buffers, scalars, access, workgroup]);
}

/**
 * @param {unknown} value
 * @param {string} field
 * @returns {unknown[]} x, y, z
 */
function three(value, field) {
  const axes = array(value, field, 3);
  if (axes.length !== 3) throw invalidArtifact("must be x, y and z", field);
  return axes;
}

/**
 * @param {Record<string, unknown>} top
 * @param {Kernel[]} kernels
 * @param {number} nBuffers
 * @param {Set<number>} others kernels that only stand in for another
 * @returns {PlanFunction[]}
 */
function readFunctions(top, kernels, nBuffers, others) {
  const functions = array(top.functions, "plan.functions", 64).map((item, i) => {
    const field = `plan.functions[${i}]`;
    const entry = object(item, field);
    return {
      name: string(entry.name, `${field}.name`),
      maxRows: integer(entry.max_rows, `${field}.max_rows`, 1, 65536),
      launches: array(entry.launches, `${field}.launches`, 65536).map((launch, j) =>
        readLaunch(launch, `${field}.launches[${j}]`, kernels, nBuffers, others),
      ),
    };
  });
  if (functions.length === 0) throw invalidArtifact("must not be empty", "plan.functions");
  for (let i = 1; i < functions.length; i++) {
    if (functions[i].maxRows <= functions[i - 1].maxRows) {
      throw invalidArtifact("functions must stand by rising max_rows", `plan.functions[${i}].max_rows`);
    }
  }
  return functions;
}

/**
 * @param {unknown} item
 * @param {string} field
 * @param {Kernel[]} kernels
 * @param {number} nBuffers
 * @param {Set<number>} others
 * @returns {Launch}
 */
function readLaunch(item, field, kernels, nBuffers, others) {
  const entry = object(item, field);
  const kernel = integer(entry.kernel, `${field}.kernel`, 0, kernels.length - 1);
  if (others.has(kernel)) throw invalidArtifact(`${kernel} is not the first of its alternatives`, `${field}.kernel`);
  const buffers = array(entry.buffers, `${field}.buffers`, 64);
  const scalars = array(entry.scalars, `${field}.scalars`, 64);
  if (buffers.length !== kernels[kernel].buffers) {
    throw invalidArtifact(`kernel ${kernel} takes ${kernels[kernel].buffers} buffers`, `${field}.buffers`);
  }
  if (scalars.length !== kernels[kernel].scalars) {
    throw invalidArtifact(`kernel ${kernel} takes ${kernels[kernel].scalars} scalars`, `${field}.scalars`);
  }
  return {
    kernel,
    buffers: buffers.map((id, k) => integer(id, `${field}.buffers[${k}]`, 0, nBuffers - 1)),
    scalars: scalars.map((scalar, k) => readScalar(scalar, `${field}.scalars[${k}]`)),
    grid: kernels[kernel].workgroup ? readGrid(entry.grid, `${field}.grid`) : [1, 1, 1],
  };
}

/**
 * @param {unknown} value
 * @param {string} field
 * @returns {[Extent, Extent, Extent]}
 */
function readGrid(value, field) {
  const [x, y, z] = three(value, field).map((extent, axis) => readExtent(extent, `${field}[${axis}]`, 4));
  return [x, y, z];
}

/**
 * @param {unknown} value a number, a variable's name, or [operator, a, b]
 * @param {string} field
 * @param {number} depth operators may still be nested so deep
 * @returns {Extent}
 */
function readExtent(value, field, depth) {
  if (typeof value === "string") return { variable: variableIndex(value, field) };
  if (!Array.isArray(value)) return integer(value, field, 0, 2 ** 24);
  const [operator, a, b] = three(value, field);
  if (depth === 0) throw invalidArtifact("is nested too deep", field);
  if (!OPERATORS.has(string(operator, `${field}[0]`))) throw invalidArtifact(`unknown operator ${operator}`, `${field}[0]`);
  const second = operator === "ceildiv" ? integer(b, `${field}[2]`, 1, 2 ** 24) : readExtent(b, `${field}[2]`, depth - 1);
  return { operator: String(operator), a: readExtent(a, `${field}[1]`, depth - 1), b: second };
}

/**
 * @param {unknown} value a number, or the name of a variable
 * @param {string} field
 * @returns {[number, number]}
 */
function readScalar(value, field) {
  if (typeof value !== "string") return [SCALAR_CONSTANT, integer(value, field, -(2 ** 31), 2 ** 31 - 1)];
  return [SCALAR_VARIABLE, variableIndex(value, field)];
}

/**
 * @param {string} name
 * @param {string} field
 */
function variableIndex(name, field) {
  const variable = VARIABLES.indexOf(name);
  if (variable < 0) throw invalidArtifact(`unknown variable ${JSON.stringify(name)}`, field);
  return variable;
}

/**
 * @param {Uint8Array} bytes of plan.json
 * @returns {unknown}
 */
export function parseJson(bytes) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new EngineError("artifact_invalid", `plan.json is no JSON: ${String(error)}`, "plan", error);
  }
}
