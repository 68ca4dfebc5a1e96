// Small helpers over the page's elements.
import { t } from "./i18n.js";

const ICONS = /** @type {const} */ ({
  copy: "M9 9h10v11H9zM5 15V4h10",
  done: "M5 12.5 10 17l9-10",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
  again: "M19 12a7 7 0 1 1-2-4.9M19 4v4h-4",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  forward: "M5 5l7 7-7 7M13 5l7 7-7 7",
  close: "M6 6l12 12M18 6 6 18",
});

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
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T | string} tag
 * @param {string} className
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return /** @type {HTMLElementTagNameMap[T]} */ (/** @type {unknown} */ (made));
}

/** @param {keyof typeof ICONS} name */
export function icon(name) {
  const SVG = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("viewBox", "0 0 24 24");
  made.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  made.append(path);
  return made;
}

/**
 * A button that is an icon.
 * @param {keyof typeof ICONS} name
 * @param {string} label
 * @param {() => void} act
 */
export function iconButton(name, label, act) {
  const made = button("", "icon", act);
  made.append(icon(name));
  made.ariaLabel = label;
  made.title = label;
  return made;
}

/** @param {string} text @param {string} className @param {() => void} act */
export function button(text, className, act) {
  const made = make("button", className, text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

/** @param {() => string} text @param {string} label */
export function copyButton(text, label) {
  const made = iconButton("copy", label, async () => {
    const worked = await copied(text());
    made.replaceChildren(icon(worked ? "done" : "copy"));
    made.title = made.ariaLabel = worked ? t("copied") : t("cannot_copy");
    setTimeout(() => {
      made.replaceChildren(icon("copy"));
      made.title = made.ariaLabel = label;
    }, 1500);
  });
  return made;
}

/** @param {string} text @returns {Promise<boolean>} whether it lies in the clipboard */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // refused, or a page over plain http
  }
}

/** @param {string} text @param {string} name @param {string} type */
export function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = make("a", "");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
