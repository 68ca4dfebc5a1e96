/** @file Python's memory as a page keeps it (web/router/kept_memory.js), for tests that look at it or spoil it. */

/**
 * Have it kept with what only chats need, as it is after a visit that lasted.
 * @param {import("@playwright/test").Page} page
 * @returns {Promise<boolean>} whether it is
 */
export function renewMemory(page) {
  return page.evaluate(async () => {
    const worker = new Worker("/web/router/memory_worker.js", { type: "module" });
    worker.postMessage({ bytes: null });
    const kept = await new Promise((resolve) => worker.addEventListener("message", ({ data }) => "kept" in Object(data) && resolve(data.kept)));
    worker.terminate();
    return kept;
  });
}

/**
 * As after a visit on which Python started without a snapshot.
 * @param {import("@playwright/test").Page} page
 * @param {number} ms that it took
 */
export function rememberPlainStart(page, ms) {
  return page.evaluate(async (ms) => {
    const opening = indexedDB.open("inpage-starts", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("memory");
    await new Promise((resolve) => (opening.onsuccess = resolve));
    const putting = opening.result.transaction("memory", "readwrite").objectStore("memory").put(ms, "plain");
    await new Promise((resolve) => (putting.onsuccess = resolve));
    opening.result.close();
  }, ms);
}

/**
 * What is kept, once something is whole: each by its name, which is its hash, and its length.
 * @param {import("@playwright/test").Page} page
 * @returns {Promise<Record<string, number>>}
 */
export function keptMemory(page) {
  return page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-memory", { create: true });
    /** @type {Record<string, number>} */
    const sizes = {};
    /** @type {string[]} */
    const names = [];
    for await (const [name, handle] of folder.entries()) {
      names.push(name);
      if (name.endsWith(".bin")) sizes[name.slice(0, -4)] = (await /** @type {FileSystemFileHandle} */ (handle).getFile()).size;
    }
    return Object.fromEntries(Object.entries(sizes).filter(([sha256]) => names.includes(`${sha256}.json`)));
  });
}

/**
 * Put what is kept through a change: so many flipped bits, "cut", or "hung".
 * @param {import("@playwright/test").Page} page
 * @param {string} change
 */
export function alterMemory(page, change) {
  return page.evaluate(async (change) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-memory");
    const names = [];
    for await (const name of folder.keys()) if (name.endsWith(".json")) names.push(name.slice(0, -5));
    const [sha256] = names;
    if (change === "hung") {
      const done = (/** @type {IDBRequest} */ request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
      const db = await done(indexedDB.open("inpage-starts", 1));
      await done(db.transaction("memory", "readwrite").objectStore("memory").put(Date.now() - 60_000, sha256));
      db.close();
      return;
    }
    const handle = await folder.getFileHandle(`${sha256}.bin`);
    let bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    let seed = 7;
    const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    for (let i = 0; i < Number(change); i++) bytes[Math.floor(random() * bytes.length)] ^= 1 << Math.floor(random() * 8);
    if (change === "cut") bytes = bytes.slice(0, bytes.length >> 1);
    const file = await handle.createWritable();
    await file.write(bytes);
    await file.close();
  }, change);
}
