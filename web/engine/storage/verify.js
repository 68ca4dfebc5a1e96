/**
 * @file Weights that came from storage are hashed where that keeps no visitor waiting, in a worker of its own: ahead, while
 * Python starts, or, where they are too many for that, behind, while answers run. A shard that turns out to be damaged
 * only then is removed from storage and ends the engine; the next load fetches it.
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
  return { verifyBytes: distrusted ? Infinity : verifyBytes, verified: verifiedAhead() };
}

/** @type {import("../host/workers.js").Started | null} */
let scout = null;
/** @type {string[]} hashes of files that it found whole */
let whole = [];

/**
 * Begin to hash what a model has in storage; its load goes on where this is then.
 * @param {string} artifact URL of its folder
 */
export function verifyAhead(artifact) {
  const { worker, end } = (scout = start(() => undefined));
  worker.onmessage = ({ data }) => {
    if (data.whole) whole.push(data.whole);
    else end();
  };
  worker.postMessage({ artifact });
}

/** What was found whole a moment ago; for one load. @returns {string[]} */
function verifiedAhead() {
  const found = whole;
  scout?.end();
  [scout, whole] = [null, []];
  return found;
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
