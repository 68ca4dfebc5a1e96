/**
 * @file `inpage/react`: a model for the life of a component.
 *
 *     const { inpage, error, progress } = useInPage({ model: "smollm2-135m-instruct" });
 *
 * Under StrictMode React mounts, unmounts and mounts again: components that ask for the same model share one start, which
 * is given up only when no component wants it for a moment.
 */

import { useEffect, useMemo, useState } from "react";

import { InPage } from "../client/inpage.js";
import "./inpage.js";

/** How long a model is kept that no component wants: longer than from one page of an app to the next. */
const KEPT_MS = 2000;

/**
 * @typedef {import("../client/types.js").Progress} Progress
 * @typedef {import("../client/types.js").StartOptions} StartOptions
 * @typedef {import("../engine/format/errors.js").EngineError} EngineError
 * @typedef {object} State
 * @property {InPage | null} inpage null until it has started
 * @property {EngineError | null} error why it cannot start
 * @property {Progress | null} progress
 * @typedef {object} Shared
 * @property {State} state
 * @property {number} users
 * @property {ReturnType<typeof setTimeout> | undefined} timer
 * @property {Set<(state: State) => void>} listeners
 */

/** @type {State} */
const NOTHING = { inpage: null, error: null, progress: null };
/** @type {Map<string, Shared>} */
const shared = new Map();

/**
 * The model of these options: started when the first component asks, unloaded soon after the last has gone. Options count
 * by their content, so they may be written in place; functions in them are those of the first component.
 * @param {StartOptions} options
 * @returns {State}
 */
export function useInPage(options) {
  const key = keyOf(options);
  const given = useMemo(() => options, [key]);
  const [state, setState] = useState(NOTHING);
  useEffect(() => {
    const found = shared.get(key) ?? begin(key, given);
    clearTimeout(found.timer);
    found.users++;
    found.listeners.add(setState);
    setState(found.state);
    return () => {
      found.listeners.delete(setState);
      if (--found.users === 0) found.timer = setTimeout(() => found.users || end(key, found), KEPT_MS);
    };
  }, [key, given]);
  return state;
}

/** @param {StartOptions} options */
function keyOf(options) {
  try {
    return JSON.stringify(options);
  } catch {
    return "no JSON"; // `InPage.start` says what is wrong with them
  }
}

/** @param {string} key @param {StartOptions} options @returns {Shared} */
function begin(key, options) {
  const stop = new AbortController();
  /** @type {Shared} */
  const made = { state: NOTHING, users: 0, timer: undefined, listeners: new Set() };
  shared.set(key, made);
  stops.set(made, stop);
  /** @param {Partial<State>} change */
  const tell = (change) => {
    made.state = { ...made.state, ...change };
    for (const listener of made.listeners) listener(made.state);
  };
  const onProgress = (/** @type {Progress} */ progress) => {
    options.onProgress?.(progress);
    tell({ progress });
  };
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  InPage.start({ ...options, onProgress, signal }).then(
    (inpage) => tell({ inpage }),
    (error) => {
      if (shared.get(key) === made) shared.delete(key); // the next component tries again
      tell({ error });
    },
  );
  return made;
}

/** @type {WeakMap<Shared, AbortController>} */
const stops = new WeakMap();

/** @param {string} key @param {Shared} found */
function end(key, found) {
  if (shared.get(key) === found) shared.delete(key);
  stops.get(found)?.abort();
  found.state.inpage?.unload().catch(() => undefined);
}
