/**
 * @file Whatever a browser counts as a site's data: channels between its workers, locks, IndexedDB, the origin private file
 * system. With cookies blocked, in a sandboxed frame or on plain http any of it may be absent, throw when it is touched,
 * reject, or never answer. Nothing else touches it (ESLint sees to that): here no property throws, no rejection is left
 * unhandled, and no wait is without a limit, so that inpage loads and answers without any of it.
 */

/** How long to wait for storage that does not answer. A browser that works takes milliseconds. */
export const ANSWER_MS = 3000;
/** Writing megabytes to a slow disk takes longer. */
export const WRITE_MS = 8000;

/** @typedef {{post: (message: unknown) => void, close: () => void}} Channel */

/** @type {Channel} */
const NO_CHANNEL = { post: () => undefined, close: () => undefined };

/**
 * @template T
 * @param {() => T} action
 * @returns {T | null} null where it throws
 */
function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/** @returns {{opfs: boolean, idb: boolean, locks: boolean}} what there is, though it may still refuse */
export function siteData() {
  return {
    opfs: attempt(() => typeof navigator.storage.getDirectory === "function") ?? false,
    idb: attempt(() => typeof indexedDB === "object" && indexedDB !== null) ?? false,
    locks: attempt(() => typeof navigator.locks.request === "function") ?? false,
  };
}

/**
 * @template T
 * @param {T | PromiseLike<T>} promise
 * @param {number} ms
 * @param {string} what for the error
 * @returns {Promise<T>} rejects with a TimeoutError where there is no answer in time
 */
export async function answered(promise, ms, what) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DOMException(`${what} does not answer`, "TimeoutError")), ms);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([promise, silence]));
  } finally {
    clearTimeout(timer);
  }
}

/** @param {unknown} error @returns {boolean} whether there was no answer in time */
export function isSilence(error) {
  return error instanceof DOMException && error.name === "TimeoutError";
}

/** @returns {boolean} whether channels can be opened */
export function hasChannels() {
  return attempt(() => (new BroadcastChannel("inpage-probe").close(), true)) ?? false;
}

/**
 * A channel to whoever opened the same name. Without channels nothing is heard: what they carry must not be all that
 * anything waits for.
 * @param {string} name
 * @param {(message: unknown) => void} [heard]
 * @returns {Channel}
 */
export function openChannel(name, heard) {
  const channel = attempt(() => new BroadcastChannel(name));
  if (!channel) return NO_CHANNEL;
  if (heard) channel.onmessage = (event) => heard(event.data);
  return { post: (message) => void attempt(() => channel.postMessage(message)), close: () => channel.close() };
}

/**
 * Hold a lock for as long as this page or worker lives, or until it is given back.
 * @param {string} name
 * @param {() => void} held not called where there are no locks
 * @returns {() => void} gives it back
 */
export function holdLock(name, held) {
  let release = () => {};
  const ended = new Promise((resolve) => (release = () => resolve(undefined)));
  request(name, {}, () => {
    held();
    return ended;
  }).catch(() => undefined);
  return release;
}

/** @returns {Promise<Set<string> | null>} names of the locks that are held; null where there are no locks */
export async function heldLocks() {
  const found = await ask(() => navigator.locks.query());
  return found && new Set(found.held?.map(({ name }) => name ?? ""));
}

/**
 * Wait until a lock that another worker holds can be had: that worker is gone then.
 * @param {string} name
 * @param {() => void} free
 */
export function whenFree(name, free) {
  request(name, {}, free).catch(() => undefined);
}

/**
 * A lock that one tab of the origin has at a time, to be waited for, tried or taken away.
 * @param {string} name
 * @param {Pick<LockOptions, "ifAvailable" | "steal" | "signal">} how
 * @param {() => void} lost called when another tab took it away
 * @returns {Promise<(() => void) | null>} gives it back; null where it is not available, or the signal ended the waiting;
 *   rejects where there are no locks, and where a lock that need not be waited for does not come
 */
export async function takeLock(name, how, lost) {
  let late = false;
  const taken = new Promise((resolve, reject) => {
    let held = false;
    request(name, how, (lock) => {
      if (!lock || late) return resolve(null);
      held = true;
      return new Promise((release) => resolve(() => release(undefined)));
    }).catch((error) => (held ? lost() : how.signal?.aborted ? resolve(null) : reject(error)));
  });
  try {
    return await (how.ifAvailable || how.steal ? answered(taken, ANSWER_MS, "locks") : taken);
  } catch (error) {
    late = true;
    throw error;
  }
}

/** @type {Promise<boolean> | null} */
let probed = null;

/** @returns {Promise<boolean>} whether there are locks, and they answer */
export function locksAnswer() {
  probed ??= answered(request(`inpage-probe-${Math.random()}`, { ifAvailable: true }, () => true), ANSWER_MS, "locks").catch(() => false);
  return probed;
}

/**
 * Run `body` while holding a lock across all tabs of the origin.
 * @template T
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {number} ms how long to wait for another tab
 * @param {(held: boolean) => Promise<T>} body held: false where locks are absent, refused, or another tab kept it too long
 * @returns {Promise<T>}
 */
export async function withLock(name, signal, ms, body) {
  if (!(await locksAnswer())) return body(false);
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), ms);
  let started = false;
  try {
    return await request(name, { signal: AbortSignal.any([signal, timeout.signal]) }, () => {
      started = true;
      clearTimeout(timer);
      return body(true);
    });
  } catch (error) {
    if (started || signal.aborted) throw error;
    return body(false);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @template T
 * @param {string} name
 * @param {LockOptions} options
 * @param {(lock: Lock | null) => T | PromiseLike<T>} body
 * @returns {Promise<T>} rejects where locks are absent or refused
 */
async function request(name, options, body) {
  return /** @type {Promise<T>} */ (navigator.locks.request(name, options, body));
}

/** `indexedDB.open` was silent once: no later call of this worker waits for it. */
let silent = false;

/**
 * @param {string} name
 * @param {(database: IDBDatabase) => void} upgrade makes the stores of version 1
 * @param {number} [ms]
 * @returns {Promise<IDBDatabase>} rejects where IndexedDB is missing, refuses, or does not answer
 */
export async function openDatabase(name, upgrade, ms = ANSWER_MS) {
  if (silent) throw new DOMException("IndexedDB does not answer", "TimeoutError");
  let late = false;
  /** @type {(again: boolean) => Promise<IDBDatabase>} */
  const open = async (again) => {
    const opening = indexedDB.open(name, 1);
    opening.onupgradeneeded = () => upgrade(opening.result);
    const database = await settled(opening);
    silent = false;
    if (late) database.close();
    // Another tab that upgrades or deletes the database must not wait for this one.
    database.onversionchange = () => database.close();
    if (database.objectStoreNames.length > 0 || again || late) return database;
    // A database without its stores never gets them: begin it anew.
    database.close();
    await settled(indexedDB.deleteDatabase(name));
    return open(true);
  };
  try {
    return await answered(open(false), ms, "IndexedDB");
  } catch (error) {
    late = isSilence(error);
    silent ||= late;
    throw error;
  }
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
export function done(request) {
  return answered(settled(request), ANSWER_MS, "IndexedDB");
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @param {IDBTransaction} transaction
 * @param {number} [ms]
 * @returns {Promise<void>}
 */
export function finished(transaction, ms = WRITE_MS) {
  const result = new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(undefined);
    transaction.onabort = () => reject(transaction.error);
  });
  return answered(/** @type {Promise<void>} */ (result), ms, "IndexedDB");
}

/** @returns {Promise<FileSystemDirectoryHandle>} rejects where OPFS is missing, refuses, or does not answer */
export async function originFolder() {
  return answered(navigator.storage.getDirectory(), ANSWER_MS, "the origin's file system");
}

/** @typedef {{usage: number | null, quota: number | null, persisted: boolean}} Space */

/** @returns {Promise<Space>} bytes that this origin uses and may use; null where the browser does not tell */
export async function storageSpace() {
  const [estimate, persisted] = await Promise.all([
    ask(() => navigator.storage.estimate()),
    ask(() => navigator.storage.persisted()),
  ]);
  return { usage: estimate?.usage ?? null, quota: estimate?.quota ?? null, persisted: persisted ?? false };
}

/** @returns {Promise<boolean>} whether the browser keeps this origin's data when space runs low */
export async function persistStorage() {
  return (await ask(() => /** @type {StorageManager & {persist(): Promise<boolean>}} */ (navigator.storage).persist())) ?? false;
}

/** @param {string} name of a folder in the origin's file system @returns {Promise<{name: string, size: number}[]>} */
export async function folderFiles(name) {
  try {
    const folder = await answered((await originFolder()).getDirectoryHandle(name), ANSWER_MS, "the origin's file system");
    const files = [];
    for await (const handle of folder.values()) {
      if (handle.kind === "file") files.push({ name: handle.name, size: (await /** @type {FileSystemFileHandle} */ (handle).getFile()).size });
    }
    return files;
  } catch {
    return []; // there is none
  }
}

/** @param {string} name @returns {Promise<void>} rejects where a file in it is being written */
export async function deleteFolder(name) {
  const root = await originFolder().catch(() => null);
  try {
    await root?.removeEntry(name, { recursive: true });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "NotFoundError")) throw error;
  }
}

/** @param {string} folder of the origin's file system @param {string} name @returns {Promise<void>} rejects where it is being written, and where there is no answer */
export async function deleteFile(folder, name) {
  const root = await originFolder();
  try {
    await answered(root.getDirectoryHandle(folder).then((within) => within.removeEntry(name)), ANSWER_MS, "the origin's file system");
  } catch (error) {
    if (!(error instanceof DOMException && ["NotFoundError", "SecurityError"].includes(error.name))) throw error;
  }
}

/** @param {string} prefix of caches' names @returns {Promise<number>} how many files they have */
export async function cachedFiles(prefix) {
  let files = 0;
  for (const name of (await ask(() => caches.keys())) ?? []) {
    if (name.startsWith(prefix)) files += (await ask(async () => (await caches.open(name)).keys()))?.length ?? 0;
  }
  return files;
}

/** @param {string} prefix of caches' names @returns {Promise<void>} */
export async function deleteCaches(prefix) {
  for (const name of (await ask(() => caches.keys())) ?? []) if (name.startsWith(prefix)) await ask(() => caches.delete(name));
}

/** A page has it, a worker does not. */
const page = /** @type {{sessionStorage: {getItem(key: string): string | null, setItem(key: string, value: string): void, removeItem(key: string): void}}} */ (/** @type {unknown} */ (globalThis));

/**
 * What this tab keeps over reloads, and after the system ended it.
 * @param {string} key
 * @returns {string | null} null where nothing was kept, or can be
 */
export function tabValue(key) {
  return attempt(() => page.sessionStorage.getItem(key));
}

/** @param {string} key @param {string} value @returns {boolean} whether it is kept */
export function keepTabValue(key, value) {
  return attempt(() => (page.sessionStorage.setItem(key, value), true)) ?? false;
}

/** @param {string} key */
export function dropTabValue(key) {
  attempt(() => page.sessionStorage.removeItem(key));
}

/**
 * @template T
 * @param {() => Promise<T>} action
 * @returns {Promise<T | null>}
 */
async function ask(action) {
  try {
    return await answered(action(), ANSWER_MS, "storage");
  } catch {
    return null;
  }
}
