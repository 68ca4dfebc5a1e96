// Small helpers over the page's elements.

/**
 * The element with an id, of the kind that the markup gives it.
 * @template {typeof HTMLElement} T
 * @param {string} id
 * @param {T} kind
 * @returns {InstanceType<T>}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return /** @type {InstanceType<T>} */ (found);
}

/**
 * A new element with a class and a text.
 * @param {string} tag
 * @param {string} className
 * @param {string} [text]
 */
export function make(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
