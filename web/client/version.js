/** @file Which version of inpage this is, where a build says so: the hash of all its files. */

export const VERSION = /** @type {{INPAGE_VERSION?: string}} */ (globalThis).INPAGE_VERSION ?? "";
