/**
 * @file XXH32 (the xxHash specification's, seed 0): what stored bytes are checked with when they come back. They were
 * hashed with SHA-256 before they were stored; a disk's damage needs no more than this, at 3 GB/s where WebCrypto, which
 * copies what it hashes, makes 0.5. Little-endian, as every machine with WebAssembly is.
 */

const P1 = 0x9e3779b1 | 0;
const P2 = 0x85ebca77 | 0;
const P3 = 0xc2b2ae3d | 0;
const P4 = 0x27d4eb2f | 0;
const P5 = 0x165667b1 | 0;

/** @param {number} x @param {number} by */
const rotl = (x, by) => (x << by) | (x >>> (32 - by));

/**
 * @param {Uint8Array} bytes that do not change meanwhile; of a shared memory, too
 * @returns {number} 0 to 2³² − 1
 */
export function xxh32(bytes) {
  if (bytes.byteOffset % 4) return xxh32(bytes.slice());
  const { length } = bytes;
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, length >>> 2);
  const stripes = words.length & ~3;
  let hash = P5;
  if (stripes) {
    let a = (P1 + P2) | 0;
    let b = P2;
    let c = 0;
    let d = -P1 | 0;
    for (let i = 0; i < stripes; i += 4) {
      a = Math.imul(rotl((a + Math.imul(words[i], P2)) | 0, 13), P1);
      b = Math.imul(rotl((b + Math.imul(words[i + 1], P2)) | 0, 13), P1);
      c = Math.imul(rotl((c + Math.imul(words[i + 2], P2)) | 0, 13), P1);
      d = Math.imul(rotl((d + Math.imul(words[i + 3], P2)) | 0, 13), P1);
    }
    hash = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18);
  }
  hash = (hash + length) | 0;
  for (let i = stripes; i < words.length; i++) hash = Math.imul(rotl((hash + Math.imul(words[i], P3)) | 0, 17), P4);
  for (let i = 4 * words.length; i < length; i++) hash = Math.imul(rotl((hash + Math.imul(bytes[i], P5)) | 0, 11), P1);
  hash = Math.imul(hash ^ (hash >>> 15), P2);
  hash = Math.imul(hash ^ (hash >>> 13), P3);
  return (hash ^ (hash >>> 16)) >>> 0;
}
