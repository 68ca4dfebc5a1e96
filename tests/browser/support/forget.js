/** @file In the page: whatever this origin stored is gone, for the next test in it. */

export async function forgetAll() {
  const root = await navigator.storage.getDirectory();
  for await (const name of root.keys()) await removed(root, name);
  for (const { name } of await indexedDB.databases()) {
    const asked = indexedDB.deleteDatabase(String(name));
    await new Promise((resolve, reject) => Object.assign(asked, { onsuccess: resolve, onerror: () => reject(asked.error) }));
  }
  for (const name of await caches.keys()) await caches.delete(name);
  localStorage.clear();
}

/** A worker that ended may hold a file for a moment. @param {FileSystemDirectoryHandle} root @param {string} name */
async function removed(root, name) {
  for (let left = 5000; ; left--) {
    try {
      await root.removeEntry(name, { recursive: true });
      return;
    } catch (error) {
      if (!left) throw error;
    }
  }
}
