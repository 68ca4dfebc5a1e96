/**
 * @file Storage in the origin private file system: `<sha256>.bin` holds the bytes, `<sha256>.json` the record that says
 * they are complete. Written through synchronous access handles (workers only), as the bytes arrive; reading goes
 * straight to the place in wasm memory.
 */

import { integer, object } from "../format/check.js";
import { parsed } from "../format/json.js";
import { originFolder } from "../host/site_data.js";

/**
 * FileSystemSyncAccessHandle, as far as it is used. Named here because only workers' type libraries know it.
 * @typedef {object} SyncHandle
 * @property {(target: Uint8Array, options: {at: number}) => number} read
 * @property {(bytes: Uint8Array, options: {at: number}) => number} write
 * @property {(size: number) => void} truncate
 * @property {() => number} getSize
 * @property {() => void} flush
 * @property {() => void} close
 * @typedef {FileSystemFileHandle & {createSyncAccessHandle(options: {mode: "read-only" | "readwrite"}): Promise<SyncHandle>}} SyncFile
 */

/** Bytes per read where only asynchronous file access is possible. */
const SLICE = 4 * 2 ** 20;
/** A record is shorter; what is not was not written here. */
const MAX_RECORD = 1024;
/** How long to wait for a handle of a worker that ended, and how often to look. */
const RELEASE_MS = 50;
const RELEASE_TRIES = 20;

/**
 * @param {string} name of its folder
 * @returns {Promise<import("./storage.js").RawStore>} rejects where OPFS or its sync handles are missing or refused
 */
export async function openOpfs(name) {
  if (!("createSyncAccessHandle" in FileSystemFileHandle.prototype)) throw new Error("no sync handles");
  const root = await originFolder();
  const folder = await root.getDirectoryHandle(name, { create: true });

  return {
    kind: "opfs",
    needsLock: true,
    has: async (sha256, bytes) => {
      const found = await committed(folder, sha256);
      return found?.bytes === bytes && (await found.handle.getFile()).size === bytes;
    },
    read: async (sha256, place) => {
      const found = await committed(folder, sha256);
      const target = found && place(found.bytes);
      return found && target && (await readInto(found.handle, target)) ? { target, xxh32: found.xxh32 } : null;
    },
    writer: (sha256, bytes) => openWriter(folder, sha256, bytes),
    delete: async (sha256) => {
      await remove(folder, `${sha256}.json`); // the record first: what is left is then no longer trusted
      await remove(folder, `${sha256}.bin`);
    },
    list: async () => {
      const files = [];
      for await (const [name, { kind }] of folder.entries()) {
        if (name.endsWith(".bin") && kind === "file") files.push(name.slice(0, -4));
      }
      return files;
    },
  };
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} sha256
 * @returns {Promise<{handle: FileSystemFileHandle, bytes: number, xxh32: number} | null>} the data file, and what its record says
 */
async function committed(folder, sha256) {
  try {
    const file = await (await folder.getFileHandle(`${sha256}.json`)).getFile();
    const record = file.size > MAX_RECORD ? null : readRecord(await file.text(), sha256);
    return record && { ...record, handle: await folder.getFileHandle(`${sha256}.bin`) };
  } catch (error) {
    if (isNoFile(error)) return null; // absent, or a folder in its place
    throw error;
  }
}

/**
 * @param {string} text
 * @param {string} sha256
 * @returns {{bytes: number, xxh32: number} | null} null also for one that was cut off by a crash
 */
export function readRecord(text, sha256) {
  try {
    const said = object(parsed(text, "record"), "record");
    if (said.sha256 !== sha256) return null;
    return { bytes: integer(said.bytes, "bytes", 0, Number.MAX_SAFE_INTEGER), xxh32: integer(said.xxh32, "xxh32", 0, 2 ** 32 - 1) };
  } catch {
    return null;
  }
}

/**
 * @param {FileSystemFileHandle} handle
 * @param {Uint8Array} target
 * @returns {Promise<boolean>} whether the file is as long
 */
async function readInto(handle, target) {
  let access;
  try {
    // "read-only" lets several tabs read at once; browsers that do not know it take the handle for themselves.
    access = await createAccess(handle, "read-only");
    return access.getSize() === target.length && access.read(target, { at: 0 }) === target.length;
  } catch {
    const file = await handle.getFile();
    if (file.size !== target.length) return false;
    for (let at = 0; at < target.length; at += SLICE) {
      target.set(new Uint8Array(await file.slice(at, at + SLICE).arrayBuffer()), at);
    }
    return true;
  } finally {
    access?.close();
  }
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} sha256
 * @param {number} bytes
 * @returns {ReturnType<import("./storage.js").RawStore["writer"]>}
 */
async function openWriter(folder, sha256, bytes) {
  const handle = await fileIn(folder, `${sha256}.bin`);
  const access = await accessToWrite(handle);
  if (access.getSize() > bytes) access.truncate(0);
  return {
    length: access.getSize(),
    resume: (target) => access.read(target.subarray(0, access.getSize()), { at: 0 }),
    write: (chunk, offset) => writeAll(access, chunk, offset),
    truncate: () => access.truncate(0),
    commit: async (_, xxh32) => {
      access.flush();
      access.close();
      await writeRecord(folder, { sha256, bytes, xxh32 });
    },
    close: () => access.close(),
    discard: async () => {
      access.close();
      await remove(folder, `${sha256}.bin`);
    },
  };
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {{sha256: string, bytes: number, xxh32: number}} record
 */
async function writeRecord(folder, record) {
  const handle = await fileIn(folder, `${record.sha256}.json`);
  const access = await accessToWrite(handle);
  try {
    access.truncate(0);
    writeAll(access, new TextEncoder().encode(JSON.stringify(record)), 0);
    access.flush();
  } finally {
    access.close();
  }
}

/**
 * A full disk may show as a short write instead of an exception.
 * @param {SyncHandle} access
 * @param {Uint8Array} bytes
 * @param {number} at
 */
export function writeAll(access, bytes, at) {
  const written = access.write(bytes, { at });
  if (written < bytes.length) throw new DOMException("a short write", "QuotaExceededError");
}

/**
 * @param {FileSystemFileHandle} handle
 * @param {"read-only" | "readwrite"} mode
 * @returns {Promise<SyncHandle>}
 */
export function createAccess(handle, mode) {
  return /** @type {SyncFile} */ (/** @type {unknown} */ (handle)).createSyncAccessHandle({ mode });
}

/**
 * To write: who comes here has the file's lock (storage.js), so another handle is that of a worker which has just ended,
 * with its tab or by itself, and will be released.
 * @param {FileSystemFileHandle} handle
 * @returns {Promise<SyncHandle>}
 */
async function accessToWrite(handle) {
  for (let tries = 1; ; tries++) {
    try {
      return await createAccess(handle, "readwrite");
    } catch (error) {
      const taken = error instanceof DOMException && error.name === "NoModificationAllowedError";
      if (!taken || tries === RELEASE_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, RELEASE_MS));
    }
  }
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 */
async function remove(folder, name) {
  try {
    await folder.removeEntry(name, { recursive: true });
  } catch (error) {
    if (!isNoFile(error)) throw error;
  }
}

/**
 * The file, made where it is not there, whatever else has its name.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 * @returns {Promise<FileSystemFileHandle>}
 */
async function fileIn(folder, name) {
  try {
    return await folder.getFileHandle(name, { create: true });
  } catch (error) {
    if (!isNoFile(error)) throw error;
    await remove(folder, name);
    return folder.getFileHandle(name, { create: true });
  }
}

/** @param {unknown} error */
function isNoFile(error) {
  return error instanceof Error && (error.name === "NotFoundError" || error.name === "TypeMismatchError");
}
