/**
 * @file What this origin keeps between visits, for a page that shows it or frees it: `InPage.storage`. It is the same for
 * all models and tabs of the origin; whatever goes is fetched or computed again.
 */

import { EngineError } from "../engine/format/errors.js";
import { cachedFiles, deleteCaches, deleteFile, deleteFolder, done, finished, folderFiles, openDatabase, persistStorage, siteData, storageSpace } from "../engine/host/site_data.js";
import { named } from "../engine/format/quoting.js";
import { unknown } from "./options.js";

/**
 * @typedef {"models" | "prefixes" | "answers" | "unfinished" | "python" | "measurements" | "site"} Kind models: their files;
 *   prefixes: exported ones; python: its memory after a start; measurements: how fast what ran here; site: what its service
 *   worker keeps for use offline
 * @typedef {{sha256: string, bytes: number, whole: boolean}} StoredFile whole: false while it is being fetched
 * @typedef {{kind: Kind, entries: number, bytes: number | null}} Stored bytes: null where the browser does not tell
 */

/** Where files of models lie, in OPFS: engine/storage/opfs.js. */
const MODEL_FILES = "inpage-files";
/** Kind → the folder that its files lie in where there is no IndexedDB of them: see engine/storage/opfs.js. @type {Partial<Record<Kind, string>>} */
const FOLDERS = { models: MODEL_FILES, python: "inpage-memory" };
/** Kind → databases; what counts lies in the first store of the first. The last of python is an earlier version's. @type {Record<Kind, string[]>} */
const DATABASES = {
  models: ["inpage-files"],
  prefixes: ["inpage-kv"],
  answers: ["inpage-answers"],
  unfinished: ["inpage-unfinished"],
  python: ["inpage-memory", "inpage-starts", "inpage-python"],
  measurements: ["inpage-notes", "inpage-ahead"],
  site: [],
};
/** Of caches: see ../offline.js. */
const CACHES = "inpage ";
const KINDS = /** @type {Kind[]} */ (Object.keys(DATABASES));

/** @returns {Promise<Stored[]>} of each kind, those that are empty too; what the browser refuses to show counts as empty */
async function list() {
  return Promise.all(
    KINDS.map(async (kind) => {
      if (kind === "site") {
        const entries = await cachedFiles(CACHES);
        return { kind, entries, bytes: entries ? null : 0 };
      }
      const folder = FOLDERS[kind];
      const files = folder ? (await folderFiles(folder)).filter(({ name }) => name.endsWith(".bin")) : [];
      const rows = await inStores(DATABASES[kind][0], "readonly", ([first]) => first.count()).catch(() => null);
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
 * The files of models one by one: their names are their hashes, as a model's manifest has them.
 * @returns {Promise<StoredFile[]>}
 */
async function files() {
  const lying = await folderFiles(MODEL_FILES);
  const records = new Set(lying.filter(({ name }) => name.endsWith(".json")).map(({ name }) => name.slice(0, -5)));
  const found = lying.filter(({ name }) => name.endsWith(".bin")).map(({ name, size }) => ({ sha256: name.slice(0, -4), bytes: size }));
  const rows = (await inStores(DATABASES.models[0], "readonly", (stores) => recordsOf(stores).getAll()).catch(() => null)) ?? [];
  return [
    ...found.map((file) => ({ ...file, whole: records.has(file.sha256) })),
    ...rows.filter((row) => typeof row?.sha256 === "string").map(({ sha256, bytes }) => ({ sha256, bytes, whole: true })),
  ];
}

/** Of engine/storage/idb.js. @param {IDBObjectStore[]} stores */
function recordsOf(stores) {
  return stores.find(({ name }) => name === "records") ?? stores[0];
}

/**
 * Forget some files of models.
 * @param {string[]} hashes
 * @returns {Promise<void>}
 * @throws {EngineError} invalid_request; error where another tab is writing one of them
 */
async function deleteFiles(hashes) {
  if (!Array.isArray(hashes) || !hashes.every((each) => /^[0-9a-f]{64}$/.test(each))) {
    throw new EngineError("invalid_request", "hashes must be a list of SHA-256 hashes, as `files` gives them", "hashes");
  }
  try {
    // The record first: what is left is then no longer trusted.
    for (const sha256 of hashes) for (const end of ["json", "bin"]) await deleteFile(MODEL_FILES, `${sha256}.${end}`);
    for (const sha256 of hashes) {
      await inStores(DATABASES.models[0], "readwrite", (stores) => {
        recordsOf(stores).delete(sha256);
        return stores[0].delete(IDBKeyRange.bound([sha256], [sha256, []])); // the pieces
      });
    }
  } catch (error) {
    throw new EngineError("error", `storage is in use: close other tabs of this site, or ask again later (${String(error)})`, "hashes", error);
  }
}

/**
 * @template T
 * @param {string} name of a database
 * @param {IDBTransactionMode} mode
 * @param {(stores: IDBObjectStore[]) => IDBRequest<T>} ask
 * @returns {Promise<T | null>} null where there is none, or no IndexedDB; rejects where it refuses
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
  files,
  deleteFiles,
  /** Ask the browser not to clear what is kept when space runs low. @returns {Promise<boolean>} whether it agreed */
  persist: persistStorage,
  /** Bytes that this origin uses and may use; null where the browser does not tell. */
  estimate: storageSpace,
});
