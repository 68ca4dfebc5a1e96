// This tab's conversation has a name that outlives the page: a tab that the system ended keeps it, another tab has its own.

const KEY = "inpage-conversation";

/** @returns {string | undefined} undefined where the browser keeps nothing for this site */
export function conversationName() {
  try {
    return sessionStorage.getItem(KEY) ?? newConversation();
  } catch {
    return undefined;
  }
}

/** Begin another. @returns {string | undefined} its name */
export function newConversation() {
  try {
    const name = crypto.getRandomValues(new Uint32Array(3)).join("-");
    sessionStorage.setItem(KEY, name);
    return name;
  } catch {
    return undefined;
  }
}
