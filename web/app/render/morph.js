/** @file Nodes in place of others, with as few changes of the page as may be: what is the same stays, and with it what a person has selected there. */

import { highlighted, moveHighlight } from "./highlight.js";

/**
 * @param {Node} parent
 * @param {ChildNode[]} before its children, one after the other
 * @param {ChildNode[]} after what should stand in their place
 * @returns {ChildNode[]} what stands there now
 */
export function replaced(parent, before, after) {
  const behind = before.at(-1)?.nextSibling ?? null;
  const now = after.map((node, i) => {
    if (i >= before.length) return parent.insertBefore(node, behind);
    return matched(before[i], node);
  });
  for (const node of before.slice(after.length)) node.remove();
  return now;
}

/** @param {ChildNode} before @param {ChildNode} after @returns {ChildNode} which of them stands there now */
export function matched(before, after) {
  if (before.isEqualNode(after) || highlighted(before, after)) return before;
  if (before instanceof Text && after instanceof Text) {
    if (after.data.startsWith(before.data)) before.appendData(after.data.slice(before.data.length));
    else before.data = after.data;
    return before;
  }
  if (before instanceof Element && after instanceof Element && before.cloneNode(false).isEqualNode(after.cloneNode(false))) {
    replaced(before, [...before.childNodes], [...after.childNodes]);
    moveHighlight(before, after);
    return before;
  }
  before.replaceWith(after);
  return after;
}
