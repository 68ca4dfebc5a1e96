/**
 * @file Weights that came from storage are hashed where that keeps no visitor waiting, in a worker of its own: ahead, while
 * Python starts, when what is not stored is fetched too; or, where they are too many for that, behind, while answers run. A
 * shard that turns out to be damaged only then is removed from storage and ends the engine; the next load fetches it.
 */

import { place } from "../host/places.js";
import { openChannel } from "../host/site_data.js";
import { startWorker } from "../host/workers.js";

/** On which tabs say what they found damaged: a shard may have been fetched again before another tab looks at it. */
const CHANNEL = "inpage-damaged";

/** @typedef {{end: () => void}} Verifying */

let distrusted = false;

/**
 * What the next load may believe of storage. Once weights that were not hashed before were damaged, all are: whatever else
 * is damaged then costs no further answer.
 * @param {Pick<import("../core/protocol.js").LoadOptions, "verifyBytes">} options
 */
export function trust({ verifyBytes }) {
  return { verifyBytes: distrusted ? Infinity : verifyBytes, ...broughtAhead() };
}

/** @type {import("../host/workers.js").Started | null} */
let scout = null;
/** @type {{verified: string[], fetched: string[]}} hashes of files that it found or made whole, and that it fetches */
let ahead = { verified: [], fetched: [] };

/**
 * Begin to hash what a model has in storage, and to fetch what it has not; its load goes on where this is then.
 * @param {string} base URL of its folder
 * @param {string} manifest its text
 */
export function bringAhead(base, manifest) {
  const { worker, end } = (scout = start(() => undefined));
  const { verified, fetched } = ahead;
  worker.onmessage = ({ data }) => {
    if (data.whole) verified.push(data.whole);
    else if (data.fetching) fetched.push(data.fetching);
    else end();
  };
  worker.postMessage({ base, manifest });
}

/** What was found or made whole a moment ago; for one load. It still ends what it is at, which the load waits for. */
function broughtAhead() {
  const brought = ahead;
  scout?.worker.postMessage({ stop: true });
  [scout, ahead] = [null, { verified: [], fetched: [] }];
  return { verified: [...brought.verified], fetched: [...brought.fetched] };
}

/** @param {() => void} lost */
function start(lost) {
  return startWorker(place("engine/storage/verify_worker.js"), "verify", lost);
}

/**
 * @param {import("../format/manifest.js").FileEntry[]} files
 * @param {import("../core/protocol.js").LoadOptions["cache"]} cache where they lie
 * @param {(why: string) => void} damaged called at most once
 * @returns {Verifying | null}
 */
export function verifyBehind(files, cache, damaged) {
  if (!files.length) return null;
  const { worker, end: endWorker } = start(() => end());
  const channel = openChannel(CHANNEL, (sha256) => {
    const file = files.find((each) => each.sha256 === sha256);
    if (file) found(file);
  });
  const end = () => {
    endWorker();
    channel.close();
  };
  /** @param {import("../format/manifest.js").FileEntry} file */
  const found = (file) => {
    end();
    distrusted = true;
    damaged(`${file.file} was damaged in browser storage and is fetched again; what was computed with it is void: ask again`);
  };
  worker.onmessage = ({ data }) => {
    if (data.damaged) channel.post(data.damaged.sha256);
    if (data.damaged) found(data.damaged);
    else end();
  };
  worker.postMessage({ files, cache });
  return { end };
}
