/** @file What disks, browsers and people do to the files that a page keeps (web/engine/storage/{idb,opfs}.js), in both
 * stores. */

/** Of any file's bytes. */
export const BYTES = /** @type {const} */ (["flip", "zero", "swap", "cut", "empty", "gone"]);
/** Of what only one store has: records as files, pieces as values. */
export const MORE = { opfs: /** @type {const} */ (["folder", "long"]), idb: /** @type {const} */ (["text", "null", "shorter piece"]) };
/** Of the record that says a file is whole; those of earlier versions had no sum. */
export const RECORDS = {
  opfs: /** @type {const} */ (["no sum", "sum", "gone", "garbage", "null", "other", "length", "folder", "huge", "nested"]),
  idb: /** @type {const} */ (["sum", "gone", "garbage", "other", "length", "no sum"]),
};

/**
 * @param {import("@playwright/test").Page} page
 * @param {"opfs" | "idb"} kind
 * @param {{sha256: string, bytes: number}} file
 * @param {string} fault
 * @param {boolean} [record] of the record instead of the bytes
 * @returns {Promise<void>}
 */
export function damage(page, kind, { sha256, bytes }, fault, record = false) {
  return page.evaluate(kind === "opfs" ? inOpfs : inIdb, { sha256, bytes, fault, record });
}

/** @typedef {{sha256: string, bytes: number, fault: string, record: boolean}} What */

/** In the page. @param {What} what */
async function inOpfs({ sha256, bytes, fault, record }) {
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-files");
  const name = `${sha256}.${record ? "json" : "bin"}`;
  const old = new Uint8Array(await (await (await folder.getFileHandle(name)).getFile()).arrayBuffer());
  await folder.removeEntry(name);
  if (fault === "gone") return;
  if (fault === "folder") {
    const made = await folder.getDirectoryHandle(name, { create: true });
    await made.getFileHandle("inside", { create: true });
    return;
  }
  const at = old.length >> 1;
  const said = () => JSON.parse(new TextDecoder().decode(old));
  /** @type {Record<string, () => Uint8Array<ArrayBuffer> | string>} */
  const changed = {
    flip: () => old.map((byte, i) => (i === at ? byte ^ 1 : byte)),
    zero: () => old.map((byte, i) => (i >= at && i < at + 4096 ? 0 : byte)),
    swap: () => old.toReversed(),
    cut: () => old.slice(0, at),
    empty: () => new Uint8Array(0),
    long: () => new Uint8Array([...old.subarray(0, at), ...old]),
    garbage: () => "{not json",
    null: () => "null",
    sum: () => JSON.stringify({ ...said(), xxh32: (said().xxh32 ^ 1) >>> 0 }),
    "no sum": () => JSON.stringify({ sha256, bytes }),
    other: () => JSON.stringify({ ...said(), sha256: "0".repeat(64) }),
    length: () => JSON.stringify({ ...said(), bytes: bytes + 1 }),
    huge: () => `${JSON.stringify(said())}${" ".repeat(20_000_000)}`,
    nested: () => "[".repeat(100_000),
  };
  const writable = await (await folder.getFileHandle(name, { create: true })).createWritable();
  await writable.write(changed[fault]());
  await writable.close();
}

/** In the page. @param {What} what */
async function inIdb({ sha256, bytes, fault, record }) {
  /** @type {(request: IDBRequest) => Promise<any>} */
  const done = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const db = await done(indexedDB.open("inpage-files", 1));
  const store = (/** @type {string} */ name) => db.transaction(name, "readwrite").objectStore(name);
  if (record) {
    if (fault === "gone") await done(store("records").delete(sha256));
    else {
      const said = await done(store("records").get(sha256));
      const changed = {
        sum: { ...said, xxh32: (said.xxh32 ^ 1) >>> 0 },
        "no sum": { sha256, bytes },
        garbage: { ...said, bytes: "many" },
        other: { sha256 },
        length: { ...said, bytes: bytes + 1 },
      };
      await done(store("records").put(changed[/** @type {keyof typeof changed} */ (fault)]));
    }
  } else if (fault === "gone") await done(store("pieces").delete([sha256, 0]));
  else {
    const old = new Uint8Array(await done(store("pieces").get([sha256, 0])));
    const at = old.length >> 1;
    /** @type {Record<string, () => unknown>} */
    const changed = {
      flip: () => old.map((byte, i) => (i === at ? byte ^ 1 : byte)).buffer,
      zero: () => old.map((byte, i) => (i >= at && i < at + 4096 ? 0 : byte)).buffer,
      swap: () => old.toReversed().buffer,
      cut: () => old.slice(0, at).buffer,
      empty: () => new ArrayBuffer(0),
      text: () => "text",
      null: () => null,
      "shorter piece": () => old.slice(0, -1).buffer,
    };
    await done(store("pieces").put(changed[fault](), [sha256, 0]));
  }
  db.close();
}
