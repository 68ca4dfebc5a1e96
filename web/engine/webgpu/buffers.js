/**
 * @file Where a plan's buffers lie on the GPU: weights in a few large GPU buffers, two arenas, one buffer for each input,
 * the logits, and for each of the plan's kv. A binding names a range of one of them.
 *
 * KV grows by pages: growing makes larger buffers and copies on the GPU. Everything else stays where it is.
 */

import { EngineError, invalidArtifact } from "../format/errors.js";
import { USAGE } from "./device.js";

/** Weights lie in GPU buffers of at most this: WebGPU's default limit for what one binding reaches. */
const GROUP_BYTES = 128 * 2 ** 20;

/** @typedef {{start: number, end: number, buffer: GPUBuffer}} Group a slice of the weight space */

export class Buffers {
  /** KV pages there is room for. */
  kvPages = 0;
  /** @type {Map<number, GPUBuffer>} KV by buffer id */
  #kv = new Map();
  #gpu;
  #plan;
  #groups;
  #arenas;
  #own;

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @returns {Promise<Buffers>}
   */
  static async create(gpu, plan) {
    for (const { name, kind, pageBytes } of plan.buffers) {
      if (kind === "kv" && pageBytes > bindable(gpu)) {
        throw new EngineError("out_of_memory", `${name}: a page has ${pageBytes} bytes, the GPU binds ${bindable(gpu)}`);
      }
    }
    const spans = groupWeights(plan);
    const whole = `${spans.reduce((sum, { start, end }) => sum + end - start, 0)} bytes of weights`;
    const { COPY_DST, COPY_SRC, STORAGE } = USAGE;
    const groups = await gpu.attempt(whole, () =>
      spans.map(({ start, end }, i) => ({
        start,
        end,
        buffer: gpu.buffer(`weights ${i}`, end - start, STORAGE | COPY_DST),
      })),
    );
    return gpu.attempt("the arenas", () => {
      const arenas = plan.arenas.map((bytes, i) => gpu.buffer(`arena ${i}`, bytes, STORAGE));
      /** @type {Map<number, GPUBuffer>} */
      const own = new Map();
      plan.buffers.forEach(({ name, kind, bytes }, id) => {
        if (kind === "input") own.set(id, gpu.buffer(name, bytes, STORAGE | COPY_DST));
        if (kind === "output") own.set(id, gpu.buffer(name, bytes, STORAGE | COPY_SRC));
      });
      return new Buffers(gpu, plan, groups, arenas, own);
    });
  }

  /**
   * @param {import("./device.js").Gpu} gpu
   * @param {import("../format/plan.js").Plan} plan
   * @param {Group[]} groups
   * @param {GPUBuffer[]} arenas
   * @param {Map<number, GPUBuffer>} own inputs and outputs by buffer id
   */
  constructor(gpu, plan, groups, arenas, own) {
    this.#gpu = gpu;
    this.#plan = plan;
    this.#groups = groups;
    this.#arenas = arenas;
    this.#own = own;
    this.maxPages = !plan.paged ? 0 : Math.min(
      ...plan.buffers
        .filter(({ kind }) => kind === "kv")
        .map(({ pageBytes }) => Math.floor(bindable(gpu) / pageBytes)),
    );
  }

  /** The slices of the weight space, for whoever fills them. @returns {readonly Group[]} */
  get groups() {
    return this.#groups;
  }

  /** KV buffers in the plan's order. @returns {{buffer: GPUBuffer, pageBytes: number}[]} */
  get layers() {
    return [...this.#kv].map(([id, buffer]) => ({ buffer, pageBytes: this.#plan.buffers[id].pageBytes }));
  }

  /**
   * The GPU buffer of an input or of the logits.
   * @param {string} name as plan.io says
   * @returns {GPUBuffer}
   */
  io(name) {
    return /** @type {GPUBuffer} */ (this.#own.get(this.#plan.io[name]));
  }

  /**
   * @param {number} id of a plan's buffer
   * @returns {GPUBufferBinding}
   */
  binding(id) {
    const { kind, arena, offset, bytes, pageBytes } = this.#plan.buffers[id];
    const size = Math.ceil(bytes / 4) * 4;
    switch (kind) {
      case "kv":
        return { buffer: /** @type {GPUBuffer} */ (this.#kv.get(id)), size: this.kvPages * pageBytes };
      case "arena":
        return { buffer: this.#arenas[arena], offset, size };
      case "weight": {
        const holds = (/** @type {Group} */ { start, end }) => start <= offset && offset + bytes <= end;
        const { buffer, start } = /** @type {Group} */ (this.#groups.find(holds));
        return { buffer, offset: offset - start, size };
      }
      default:
        return { buffer: /** @type {GPUBuffer} */ (this.#own.get(id)), size };
    }
  }

  /**
   * Make room for KV pages 0..pages-1, keeping what is there.
   * @param {number} pages
   * @returns {Promise<void>}
   */
  async growKv(pages) {
    const gpu = this.#gpu;
    if (pages > this.maxPages) {
      throw new EngineError("out_of_memory", `${pages} KV pages wanted, the GPU binds ${this.maxPages}`, "pages");
    }
    const { COPY_DST, COPY_SRC, STORAGE } = USAGE;
    const wanted = this.#plan.buffers.flatMap((buffer, id) => (buffer.kind === "kv" ? [{ ...buffer, id }] : []));
    /** @type {Map<number, GPUBuffer>} */
    const grown = new Map();
    try {
      await gpu.attempt(`${pages} KV pages`, () => {
        for (const { id, name, pageBytes } of wanted) {
          grown.set(id, gpu.buffer(name, pages * pageBytes, STORAGE | COPY_DST | COPY_SRC));
        }
      });
    } catch (error) {
      for (const buffer of grown.values()) gpu.free(buffer);
      throw error;
    }
    if (this.kvPages > 0) {
      const encoder = gpu.device.createCommandEncoder({ label: "grow KV" });
      for (const { id, pageBytes } of wanted) {
        const [from, to] = [this.#kv.get(id), grown.get(id)].map((b) => /** @type {GPUBuffer} */ (b));
        encoder.copyBufferToBuffer(from, 0, to, 0, Math.ceil((this.kvPages * pageBytes) / 4) * 4);
      }
      gpu.submit(encoder);
    }
    for (const buffer of this.#kv.values()) gpu.free(buffer);
    this.#kv = grown;
    this.kvPages = pages;
  }
}

/** Bytes that one binding reaches. @param {import("./device.js").Gpu} gpu */
export function bindable({ device: { limits } }) {
  return Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
}

/**
 * The weights that the plan binds, cut between its buffers into slices of at most GROUP_BYTES each.
 * @param {import("../format/plan.js").Plan} plan
 * @returns {{start: number, end: number}[]} of the weight space
 */
export function groupWeights(plan) {
  /** @type {{start: number, end: number}[]} */
  const groups = [];
  const weights = plan.buffers.filter(({ kind }) => kind === "weight").sort((a, b) => a.offset - b.offset);
  for (const { name, offset, bytes } of weights) {
    if (bytes > GROUP_BYTES) throw invalidArtifact(`${name} is larger than ${GROUP_BYTES} bytes`, "plan.buffers");
    const last = groups[groups.length - 1];
    const end = offset + bytes;
    if (last && end - last.start <= GROUP_BYTES) last.end = Math.max(last.end, end);
    else groups.push({ start: offset, end });
  }
  return groups;
}
