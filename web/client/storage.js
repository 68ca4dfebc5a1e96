/**
 * @file What this origin keeps between visits, for a page that shows it or frees it: `InPage.storage`. It is the same for
 * all models and tabs of the origin; whatever goes is fetched or computed again.
 */

import { EngineError } from "../engine/format/errors.js";
import { cachedFiles, deleteCaches, deleteFolder, done, finished, folderFiles, openDatabase, persistStorage, siteData, storageSpace } from "../engine/host/site_data.js";
import { named } from "../engine/format/quoting.js";
import { unknown } from "./options.js";

/**
 * @typedef {"models" | "prefixes" | "answers" | "unfinished" | "python" | "measurements" | "site"} Kind models: their files;
 *   prefixes: exported ones; python: its memory after a start; measurements: how fast what ran here; site: what its service
 *   worker keeps for use offline
 * @typedef {{kind: Kind, entries: number, bytes: number | null}} Stored bytes: null where the browser does not tell
 */

/** Kind → the folder that its files lie in where there is no IndexedDB of them: see engine/storage/opfs.js. @type {Partial<Record<Kind, string>>} */
const FOLDERS = { models: "inpage-files", python: "inpage-memory" };
/** Kind → databases; what counts lies in the first store of the first. The last of python is an earlier version's. @type {Record<Kind, string[]>} */
const DATABASES = {
  models: ["inpage-files"],
  prefixes: ["inpage-kv"],
  answers: ["inpage-answers"],
  unfinished: ["inpage-unfinished"],
  python: ["inpage-memory", "inpage-starts", "inpage-python"],
  measurements: ["inpage-notes"],
  site: [],
};
/** Of caches: see ../offline.js. */
const CACHES = "inpage ";
const KINDS = /** @type {Kind[]} */ (Object.keys(DATABASES));

/** @returns {Promise<Stored[]>} of each kind, those that are empty too */
async function list() {
  return Promise.all(
    KINDS.map(async (kind) => {
      if (kind === "site") {
        const entries = await cachedFiles(CACHES);
        return { kind, entries, bytes: entries ? null : 0 };
      }
      const folder = FOLDERS[kind];
      const files = folder ? (await folderFiles(folder)).filter(({ name }) => name.endsWith(".bin")) : [];
      const rows = await inStores(DATABASES[kind][0], "readonly", ([first]) => first.count());
      const bytes = files.reduce((sum, { size }) => sum + size, 0);
      return { kind, entries: files.length + (rows ?? 0), bytes: rows ? null : bytes };
    }),
  );
}

/**
 * Forget one kind, or all. What a model at work needs is in memory already.
 * @param {Kind} [kind]
 * @returns {Promise<void>}
 * @throws {EngineError} invalid_request; error where another tab is writing what should go
 */
async function remove(kind) {
  if (kind !== undefined && !KINDS.includes(kind)) throw unknown("kind", typeof kind === "string" ? kind : named(kind), KINDS);
  try {
    for (const each of kind ? [kind] : KINDS) {
      if (each === "site") await deleteCaches(CACHES);
      const folder = FOLDERS[each];
      if (folder) await deleteFolder(folder);
      for (const name of DATABASES[each]) await inStores(name, "readwrite", (stores) => stores.map((store) => store.clear())[0]);
    }
  } catch (error) {
    throw new EngineError("error", `storage is in use: close other tabs of this site, or ask again later (${String(error)})`, "kind", error);
  }
}

/**
 * @template T
 * @param {string} name of a database
 * @param {IDBTransactionMode} mode
 * @param {(stores: IDBObjectStore[]) => IDBRequest<T>} ask
 * @returns {Promise<T | null>} null where there is none, or no IndexedDB
 */
async function inStores(name, mode, ask) {
  if (!siteData().idb) return null;
  const database = await openDatabase(name, () => {});
  try {
    const names = [...database.objectStoreNames];
    if (!names.length) return null;
    const transaction = database.transaction(names, mode);
    const result = await done(ask(names.map((each) => transaction.objectStore(each))));
    await finished(transaction);
    return result;
  } finally {
    database.close();
  }
}

export const storage = Object.freeze({
  list,
  delete: remove,
  /** Ask the browser not to clear what is kept when space runs low. @returns {Promise<boolean>} whether it agreed */
  persist: persistStorage,
  /** Bytes that this origin uses and may use; null where the browser does not tell. */
  estimate: storageSpace,
});
