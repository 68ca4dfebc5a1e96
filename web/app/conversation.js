// This tab's conversation has a name that outlives the page: a tab that the system ended keeps it, another tab has its own.

import { keepTabValue, tabValue } from "../engine/host/site_data.js";

const KEY = "inpage-conversation";

/** @returns {string | undefined} undefined where the browser keeps nothing for this site */
export function conversationName() {
  return tabValue(KEY) ?? newConversation();
}

/** Begin another. @returns {string | undefined} its name */
export function newConversation() {
  const name = crypto.getRandomValues(new Uint32Array(3)).join("-");
  return keepTabValue(KEY, name) ? name : undefined;
}
