/**
 * @file What the engine keeps of each sequence: the tokens that went through the graph, and the tensors of keys and values
 * that it gave for them. They go back in as they came out, on the GPU where they lie there.
 */

/**
 * @typedef {import("onnxruntime-web").Tensor} Tensor
 * @typedef {object} Cache
 * @property {number[]} tokens
 * @property {Tensor[]} tensors [2 * layers], in the order of the manifest's `cache`
 */

export class Caches {
  /** @type {Map<number, Cache>} by the sequence's number */
  #sequences = new Map();
  #empty;

  /** @param {() => Tensor[]} empty tensors of no tokens */
  constructor(empty) {
    this.#empty = empty;
  }

  /** Bytes of all of them. */
  get bytes() {
    let bytes = 0;
    for (const { tensors } of this.#sequences.values()) for (const tensor of tensors) bytes += bytesOf(tensor);
    return bytes;
  }

  /** @param {number} slot @returns {Cache | undefined} */
  get(slot) {
    return this.#sequences.get(slot);
  }

  /** Of no token yet. @param {number} slot @returns {Cache} */
  begin(slot) {
    this.drop(slot);
    /** @type {Cache} */
    const cache = { tokens: [], tensors: this.#empty() };
    this.#sequences.set(slot, cache);
    return cache;
  }

  /** @param {number} slot */
  drop(slot) {
    release(this.#sequences.get(slot)?.tensors ?? []);
    this.#sequences.delete(slot);
  }
}

/** Memory of the GPU is given back at once; the rest is garbage. @param {Tensor[]} tensors */
export function release(tensors) {
  for (const tensor of tensors) if (tensor.location === "gpu-buffer") tensor.dispose();
}

/** @param {Tensor} tensor */
function bytesOf({ type, size }) {
  return size * (type === "float16" ? 2 : 4);
}
