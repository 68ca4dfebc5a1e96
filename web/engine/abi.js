/** @file format/abi.js by its old name. */

export * from "./format/abi.js";
