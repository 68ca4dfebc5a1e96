/** @file What a page remembers of its device (web/router/notes.js), changed between two visits. */

/**
 * Let the page remember that a variant is ten times as fast as the fastest that it measured, as it would after a visit
 * on a device where that is so.
 * @param {import("@playwright/test").Page} page
 * @param {string} variant
 * @returns {Promise<void>}
 */
export function rememberFastest(page, variant) {
  return page.evaluate(async (variant) => {
    const done = (/** @type {IDBRequest} */ request) => new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    const database = await done(indexedDB.open("inpage-notes", 1));
    const store = database.transaction("notes", "readwrite").objectStore("notes");
    for (const key of await done(store.getAllKeys())) {
      const notes = JSON.parse(await done(store.get(key)));
      for (const { figures } of Object.values(notes.devices)) {
        const [fastest] = Object.values(figures).sort((a, b) => b.decode_tps - a.decode_tps);
        figures[variant] = { ...fastest, decode_tps: 10 * fastest.decode_tps, prefill_tps: 10 * fastest.prefill_tps };
      }
      await done(store.put(JSON.stringify(notes), key));
    }
    database.close();
  }, variant);
}
