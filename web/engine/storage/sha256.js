/**
 * @file SHA-256 (FIPS 180-4): WebCrypto's, and one in JavaScript for plain http origins, where `crypto.subtle` is absent
 * and inpage also runs, for the few small files that must be trusted before the wasm module exists to hash.
 */

/**
 * Round constants: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
 */
const K = (() => {
  const words = new Uint32Array(64);
  for (let candidate = 2, found = 0; found < 64; candidate++) {
    let prime = true;
    for (let d = 2; d * d <= candidate; d++) if (candidate % d === 0) prime = false;
    if (prime) words[found++] = Math.floor((Math.cbrt(candidate) % 1) * 2 ** 32);
  }
  return words;
})();

const INITIAL = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/**
 * @param {number} x
 * @param {number} n
 */
const rotr = (x, n) => (x >>> n) | (x << (32 - n));

/**
 * @param {Uint8Array} bytes
 * @returns {string} 64 lowercase hex digits
 */
export function sha256(bytes) {
  const state = Uint32Array.from(INITIAL);
  const w = new Uint32Array(64);
  const whole = bytes.length - (bytes.length % 64);
  const input = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < whole; at += 64) block(state, w, input, at);

  const rest = bytes.length - whole;
  const tail = new Uint8Array(rest < 56 ? 64 : 128);
  tail.set(bytes.subarray(whole));
  tail[rest] = 0x80;
  const end = new DataView(tail.buffer);
  end.setUint32(tail.length - 8, Math.floor(bytes.length / 2 ** 29));
  end.setUint32(tail.length - 4, (bytes.length << 3) >>> 0);
  for (let at = 0; at < tail.length; at += 64) block(state, w, end, at);
  return Array.from(state, (word) => word.toString(16).padStart(8, "0")).join("");
}

/** Whether WebCrypto is there. @returns {boolean} */
export function hasWebCrypto() {
  return typeof globalThis.crypto?.subtle?.digest === "function";
}

/** Where bytes of a shared memory are copied for WebCrypto, which takes none. */
let staging = new Uint8Array(0);

/**
 * Of bytes that do not change meanwhile.
 * @param {Uint8Array} bytes
 * @returns {Promise<string>} 64 lowercase hex digits
 */
export async function digestOf(bytes) {
  if (!hasWebCrypto()) return sha256(bytes);
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", unshared(bytes))));
}

/**
 * A hash in place of one that goes along with a download: of all of a file's bytes, once they are there.
 * @param {Uint8Array} target
 */
export function hashWhenWhole(target) {
  return { reset: () => undefined, update: () => undefined, digest: () => digestOf(target) };
}

/** Give back the memory that `digestOf` copies to. */
export function endDigests() {
  staging = new Uint8Array(0);
}

/**
 * @param {Uint8Array} bytes
 * @returns {Uint8Array<ArrayBuffer>} WebCrypto copies what it is given before it returns, so one place serves all
 */
function unshared(bytes) {
  if (bytes.buffer instanceof ArrayBuffer) return /** @type {Uint8Array<ArrayBuffer>} */ (bytes);
  if (staging.length < bytes.length) staging = new Uint8Array(bytes.length);
  staging.set(bytes);
  return staging.subarray(0, bytes.length);
}

/**
 * @param {Uint8Array} digest
 * @returns {string}
 */
export function hex(digest) {
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {Uint32Array} state
 * @param {Uint32Array} w
 * @param {DataView} input
 * @param {number} at
 */
function block(state, w, input, at) {
  for (let i = 0; i < 16; i++) w[i] = input.getUint32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ (w[i - 15] >>> 3);
    const s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ (w[i - 2] >>> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  let a = state[0] | 0;
  let b = state[1] | 0;
  let c = state[2] | 0;
  let d = state[3] | 0;
  let e = state[4] | 0;
  let f = state[5] | 0;
  let g = state[6] | 0;
  let h = state[7] | 0;
  for (let i = 0; i < 64; i++) {
    const s1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (K[i] | 0) + (w[i] | 0)) | 0;
    const s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}
