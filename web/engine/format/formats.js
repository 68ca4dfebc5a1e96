/**
 * @file What must hold between the fields of a number format, and how large a tensor in it is. py/inpage/format/formats.py
 * and schema.py say the same; what the fields mean stands there.
 */

import { invalidArtifact } from "./errors.js";
import { BLOCK_ROWS } from "./limits.js";

/**
 * @typedef {{span: number, bits: number}} Bits columns that belong together, and the bits of one row of them, scales included
 * @typedef {import("./structure.js").Checked} Checked
 */

/**
 * @param {Checked} f a format whose structure was checked
 * @param {string} at
 * @returns {Bits}
 */
export function bitsOf(f, at) {
  if (f.type === "float" || f.type === "bfloat") return floatBits(f, at);
  if (f.bits > 8) throw invalidArtifact("a quant has at most 8 bits", `${at}.bits`);
  if (f.type === "int" && f.bits !== 8) throw invalidArtifact("signed quants have 8 bits", `${at}.bits`);
  if (![16, 32].includes(f.group)) throw invalidArtifact("groups have 16 or 32 columns", `${at}.group`);
  const s = f.super;
  if (s) checkSuper(s, f.group, `${at}.super`);
  const scaled = s ? f.scale === null : ["f16", "e8m0"].includes(f.scale);
  if (!scaled || (f.min !== null && (f.scale !== "f16" || f.min !== "f16"))) {
    throw invalidArtifact('a group has an f16 scale and maybe an f16 min, or an e8m0 scale, unless "super" holds them', `${at}.scale`);
  }
  if (f.zero === null) throw invalidArtifact("is missing", `${at}.zero`);
  if (f.zero >> f.bits || (f.zero && f.type === "int")) {
    throw invalidArtifact(`${f.zero} is no quant of ${f.bits} bits that could stand for 0`, `${at}.zero`);
  }
  if (f.table !== null && (f.type !== "uint" || f.bits !== 4 || f.zero)) {
    throw invalidArtifact("is for unsigned quants of 4 bits without a zero", `${at}.table`);
  }
  if (!s) return { span: f.group, bits: f.bits * f.group + (f.scale === "e8m0" ? 8 : 16) + (f.min === null ? 0 : 16) };
  return { span: s.size, bits: f.bits * s.size + (s.size / f.group) * (s.scale_bits + s.min_bits) + (s.min === null ? 16 : 32) };
}

/** @param {Checked} f @param {string} at @returns {Bits} */
function floatBits(f, at) {
  if (!(f.type === "bfloat" ? [16] : [16, 32]).includes(f.bits) || f.group !== 1) {
    throw invalidArtifact("a float has 16 or 32 bits, a bfloat 16, and neither has groups", `${at}.bits`);
  }
  for (const name of ["scale", "min", "super", "table"]) {
    if (f[name] !== null) throw invalidArtifact("a float has none", `${at}.${name}`);
  }
  if (f.zero) throw invalidArtifact("a float has none", `${at}.zero`);
  return { span: 1, bits: f.bits };
}

/** @param {Checked} s @param {number} group @param {string} at */
function checkSuper(s, group, at) {
  if (s.size % 32) throw invalidArtifact("is not a multiple of 32", `${at}.size`);
  if (![4, 6, 8].includes(s.scale_bits)) throw invalidArtifact("sub-scales have 4, 6 or 8 bits", `${at}.scale_bits`);
  if ((s.min === null) !== (s.min_bits === 0)) throw invalidArtifact("sub-minima and their f16 scale come together", `${at}.min_bits`);
  if (s.min_bits && s.min_bits !== s.scale_bits) throw invalidArtifact("sub-minima are as wide as sub-scales", `${at}.min_bits`);
  if (s.min === null && (s.size / group) % 2) throw invalidArtifact("sub-scales are stored in pairs", `${at}.size`);
  if (s.zero >> s.scale_bits || (s.signed && s.zero)) {
    throw invalidArtifact(`${s.zero} is no sub-scale of ${s.scale_bits} bits that could stand for 0`, `${at}.zero`);
  }
  if (s.signed && (s.scale_bits !== 8 || s.min !== null)) {
    throw invalidArtifact("signed sub-scales have 8 bits and no minima beside them", `${at}.signed`);
  }
}

/**
 * @param {number[]} shape
 * @param {Bits} format
 * @returns {number | null} null: the two do not go together
 */
export function rawBytes(shape, { span, bits }) {
  return shape.length === 1 && span === 1 ? (shape[0] * bits) / 8 : null;
}

/** @param {number[]} shape @param {Bits} format @returns {number | null} */
export function rowsBytes(shape, { span, bits }) {
  const [rows, columns] = shape;
  return shape.length === 2 && columns % span === 0 ? Math.ceil(rows / BLOCK_ROWS) * (columns / span) * ((BLOCK_ROWS * bits) / 8) : null;
}
