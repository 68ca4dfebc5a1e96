/** @file A dialog: beside the conversation on a desktop, from below on a phone. Escape and a click beside it close it. */

import { iconButton, make } from "../dom.js";
import { t } from "../i18n.js";

/**
 * @param {string} id
 * @param {string} title
 * @param {() => void} [closed]
 * @returns {{dialog: HTMLDialogElement, body: HTMLElement}} shown
 */
export function sheet(id, title, closed = () => {}) {
  document.getElementById(id)?.remove();
  const dialog = make("dialog", "sheet");
  dialog.id = id;
  const head = make("div", "sheet-head");
  const name = make("h2", "", title);
  name.id = `${id}-title`;
  dialog.setAttribute("aria-labelledby", name.id);
  head.append(name, iconButton("close", t("close"), () => dialog.close()));
  const body = make("div", "sheet-body");
  dialog.append(head, body);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, body };
}
