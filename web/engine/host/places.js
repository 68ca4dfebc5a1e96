/**
 * @file Where the files of inpage lie that no import names: workers, WebAssembly, Python. On a site they lie as they do in
 * the sources. A bundler gives each a name of its own (web/npm/inpage.js): then the page knows, and every worker finds
 * all of them behind the `#` of its own URL.
 */

import { EngineError } from "../format/errors.js";

/** From here, or from the file into which a site's scripts were bundled (py/inpage/cli/scripts.py). @type {string} */
const UP = /** @type {any} */ (import.meta).up ?? "../../";

/** A package has none: no bundler is to look for it. */
const ROOT = import.meta.resolve?.(UP);

/** In the package, as tools/package.py names it. */
const ARCHIVE = "/files/inpage.zip";

/** Before the places, behind the `#`: a worker that somebody else made may have something there too. */
const MARK = "#inpage=";

/** Name in the sources → URL. Null where all lie as in the sources. @type {Record<string, string> | null} */
let places = told();

/**
 * @param {string} file as the sources name it
 * @returns {URL}
 * @throws {EngineError} unsupported where this site was made without it
 */
export function place(file) {
  const url = places ? places[file] : ROOT && ROOT + file;
  if (url) return absolute(url);
  const mend = file.includes("grammar") ? 'import "inpage/grammar", beside "inpage"' : "install the whole package";
  throw new EngineError("unsupported", `this site was made without ${file}: ${mend}`, file);
}

/** Next's bundler gives paths where others give whole URLs. @param {string} url @returns {URL} */
function absolute(url) {
  return new URL(url, globalThis.location?.href);
}

/** @param {Record<string, string>} more */
export function provide(more) {
  places = { ...places, ...more };
}

/** The folder that has them all, on a site and where the package was copied; null where a bundler scattered them. */
export function together() {
  if (!places) return ROOT ?? null;
  const [archive, worker] = ["inpage.zip", "router/worker.js"].map((file) => absolute(places?.[file] ?? "").pathname);
  return archive.endsWith(ARCHIVE) && worker.endsWith("/files/router.js") ? archive.slice(0, 1 - ARCHIVE.length) : null;
}

/** @returns {string[]} their URLs; none where they lie as in the sources */
export function scattered() {
  return Object.values(places ?? {}).map((url) => absolute(url).href);
}

/** A worker's URL, with what that worker must be told. @param {URL | string} url @returns {URL} */
export function forWorker(url) {
  const whole = new URL(url, globalThis.location.href);
  if (places) {
    const all = Object.entries(places).map(([file, url]) => [file, absolute(url).href]);
    whole.hash = MARK + encodeURIComponent(JSON.stringify(Object.fromEntries(all)));
  }
  return whole;
}

/** What whoever made this worker said. */
function told() {
  const hash = "document" in globalThis ? "" : (globalThis.location?.hash ?? "");
  return hash.startsWith(MARK) ? JSON.parse(decodeURIComponent(hash.slice(MARK.length))) : null;
}
