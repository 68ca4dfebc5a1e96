/**
 * @file Folders that several workers of Playwright read and none changes: Playwright starts a worker anew wherever the next
 * file has other fixtures, dozens of times a run, and what each would make again is the same.
 */

import { existsSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import path from "node:path";

/**
 * @param {string} name in the folder of this run
 * @param {(folder: string) => void} make fills the folder
 * @returns {string} the folder, whole
 */
export function shared(name, make) {
  const folder = path.join(String(process.env.INPAGE_RUN), name);
  if (existsSync(folder)) return folder;
  const fresh = mkdtempSync(`${folder}-`);
  make(fresh);
  try {
    renameSync(fresh, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
    rmSync(fresh, { recursive: true }); // another worker came first, with the same
  }
  return folder;
}
