/**
 * @file Python's kept memory (web/router/python.js), handed from a test to the next ones of its worker: a page that has it
 * starts Python in a fifth of the time. The first of them starts without, so both ways are taken in every run.
 */

import { existsSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";

const FILE = "kept-python.bin";
const KEY = 256; // bytes before the memory, with its key

/** @param {string} folder of this worker @returns {boolean} */
export const isKept = (folder) => existsSync(path.join(folder, FILE));

/**
 * Put it into the page's IndexedDB, as an earlier visit would have.
 * @param {import("@playwright/test").Page} page of the site's origin
 * @param {string} mount where the folder is served
 */
export function putPython(page, mount) {
  return page.evaluate(
    async ([url, head]) => {
      const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
      const key = new TextDecoder().decode(bytes.subarray(0, head)).trim();
      await new Promise((resolve, reject) => {
        const opening = indexedDB.open("inpage-python", 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore("memory");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const transaction = opening.result.transaction("memory", "readwrite");
          transaction.objectStore("memory").put(bytes.slice(head), key);
          transaction.oncomplete = () => {
            opening.result.close();
            resolve(null);
          };
          transaction.onerror = () => reject(transaction.error);
        };
      });
    },
    /** @type {const} */ ([`${mount}${FILE}`, KEY]),
  );
}

/**
 * Have it kept with what only chats need, as it is after a visit that lasted.
 * @param {import("@playwright/test").Page} page
 * @returns {Promise<boolean>} whether it is
 */
export function renewMemory(page) {
  return page.evaluate(async () => {
    const worker = new Worker("/web/router/memory_worker.js", { type: "module" });
    const kept = await new Promise((resolve) => worker.addEventListener("message", ({ data }) => "kept" in Object(data) && resolve(data.kept)));
    worker.terminate();
    return kept;
  });
}

/**
 * Take it from a page that has started Python; nothing where the page has not kept it yet.
 * @param {import("@playwright/test").Page} page
 * @param {string} folder
 */
export async function takePython(page, folder) {
  if (!(await renewMemory(page))) return;
  const kept = await page.evaluate(async (folder) => {
    const { inStore } = await import(`${folder}in_store.js`);
    const [key] = (await inStore("inpage-python", "memory", "readonly", (/** @type {IDBObjectStore} */ store) => store.getAllKeys())) ?? [];
    if (!key) return null;
    const bytes = await inStore("inpage-python", "memory", "readonly", (/** @type {IDBObjectStore} */ store) => store.get(key));
    /** @type {string} */
    const url = await new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(/** @type {string} */ (reader.result));
      reader.readAsDataURL(new Blob([bytes]));
    });
    return { key: String(key), base64: url.slice(url.indexOf(",") + 1) };
  }, "/web/router/");
  if (!kept) return;
  const whole = path.join(folder, FILE);
  writeFileSync(`${whole}.part`, Buffer.concat([Buffer.from(kept.key.padEnd(KEY)), Buffer.from(kept.base64, "base64")]));
  renameSync(`${whole}.part`, whole);
}
