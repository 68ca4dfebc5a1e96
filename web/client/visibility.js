/**
 * @file Whether anyone sees the page, for the router: what it keeps for prompts to come it gives back when the page was
 * hidden for long, or is frozen, before the system ends the tab for its memory.
 */

/** @typedef {{hidden: boolean, frozen: boolean}} Seen */

/**
 * @param {(seen: Seen) => void} tell whenever it changes
 * @returns {() => void} ends it
 */
export function onVisibility(tell) {
  const page = /** @type {Document | undefined} */ (globalThis.document);
  const changed = () => tell({ hidden: page?.visibilityState === "hidden", frozen: false });
  const froze = () => tell({ hidden: true, frozen: true });
  page?.addEventListener("visibilitychange", changed);
  page?.addEventListener("freeze", froze);
  page?.addEventListener("resume", changed);
  return () => {
    page?.removeEventListener("visibilitychange", changed);
    page?.removeEventListener("freeze", froze);
    page?.removeEventListener("resume", changed);
  };
}
