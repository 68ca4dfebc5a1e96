/**
 * @file What the kernels of peaks.wasm must sum up, in plain JavaScript: the proof that the work was done.
 */

/** @typedef {"read" | "dot16" | "dot32" | "madd"} Kernel as exported by peaks.wasm */

/** Vectors of activations, each in a register. */
export const ROWS = 4;
/** Vectors of weights: 8 KiB, in the first-level cache of any processor. */
export const WEIGHTS = 512;

/**
 * Activations at `x` and weights at `w`: signed bytes and bytes in 0..127; for madd, small whole floats whose sums
 * stay exact however often they are added up.
 * @param {ArrayBufferLike} buffer @param {Kernel} kernel @param {number} x @param {number} w
 */
export function fillOperands(buffer, kernel, x, w) {
  if (kernel === "madd") {
    const rows = new Float32Array(buffer, x, ROWS * 4);
    const weights = new Float32Array(buffer, w, WEIGHTS * 4);
    for (let i = 0; i < rows.length; i++) rows[i] = 1 - (i % 3);
    // Ones of either sign cancel within a pass, but for one vector of each kind.
    for (let i = 0; i < weights.length; i++) weights[i] = i < 8 ? 0 : i < 16 ? 1 : (i >> 3) % 2 ? 1 : -1;
    return;
  }
  const rows = new Int8Array(buffer, x, ROWS * 16);
  const weights = new Int8Array(buffer, w, WEIGHTS * 16);
  for (let i = 0; i < rows.length; i++) rows[i] = ((i * 37 + 11) % 255) - 127;
  for (let i = 0; i < weights.length; i++) weights[i] = (i * 73 + 5) % 128;
}

/**
 * Eight vectors of sums as 32-bit words, as the kernel leaves them after `passes`.
 * @param {ArrayBufferLike} buffer @param {Kernel} kernel @param {number} x @param {number} w @param {number} passes
 * @returns {Int32Array}
 */
export function expectedProducts(buffer, kernel, x, w, passes) {
  const out = new ArrayBuffer(2 * ROWS * 16);
  const floats = kernel === "madd";
  const rows = floats ? new Float32Array(buffer, x, ROWS * 4) : new Int8Array(buffer, x, ROWS * 16);
  const weights = floats ? new Float32Array(buffer, w, WEIGHTS * 4) : new Int8Array(buffer, w, WEIGHTS * 16);
  const lanes = floats ? new Float32Array(out) : kernel === "dot16" ? new Int16Array(out) : new Int32Array(out);
  const [width, of] = floats ? [4, 1] : kernel === "dot16" ? [8, 2] : [4, 4];
  for (let parity = 0; parity < 2; parity++) {
    for (let row = 0; row < ROWS; row++) {
      for (let lane = 0; lane < width; lane++) {
        let sum = 0;
        for (let i = parity; i < WEIGHTS; i += 2) {
          for (let j = lane * of; j < (lane + 1) * of; j++) sum += rows[row * width * of + j] * weights[i * width * of + j];
        }
        // Integers wrap in their lanes; the product may need more than a double's 53 bits.
        lanes[(parity * ROWS + row) * width + lane] = floats ? sum * passes : Number(BigInt.asIntN(32, BigInt(sum) * BigInt(passes)));
      }
    }
  }
  return new Int32Array(out);
}

/**
 * The sum of the words at / 4, at / 4 + 1 …, `bytes` of them, `passes` times, lane by lane.
 * @param {number} at @param {number} bytes @param {number} passes @returns {Int32Array}
 */
export function expectedSum(at, bytes, passes) {
  const first = BigInt(at / 4);
  const count = BigInt(bytes / 16);
  return Int32Array.from([0n, 1n, 2n, 3n], (lane) =>
    Number(BigInt.asIntN(32, BigInt(passes) * (count * (first + lane) + 2n * count * (count - 1n)))));
}
