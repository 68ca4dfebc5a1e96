/** @file The page as an app: installed, offline after one visit, and updated as a whole. */

import { InPage } from "../client/inpage.js";
import { element } from "./dom.js";
import { OFFLINE } from "./model/engine.js";

/** How often a page that stays open looks for a later version. */
const LOOK_MS = 3600 * 1000;

/** @typedef {Event & {prompt: () => Promise<unknown>}} InstallPrompt of Chromium */

/** Offered where the browser would take it. */
export function offerInstall() {
  const install = element("install", HTMLButtonElement);
  /** @type {InstallPrompt | null} */
  let prompt = null;
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault();
    prompt = /** @type {InstallPrompt} */ (event);
    install.hidden = false;
  });
  addEventListener("appinstalled", () => (install.hidden = true));
  install.addEventListener("click", () => {
    void prompt?.prompt();
    install.hidden = true;
  });
}

/**
 * Threads where the host sends no headers, and a later version that came meanwhile: before anything is loaded, as the page
 * is reloaded for them. Everywhere else the worker comes when the page has time.
 * @param {() => void} onUpdate
 */
export async function register(onUpdate) {
  const options = { ...OFFLINE, onUpdate };
  const now = !globalThis.crossOriginIsolated || workers()?.controller;
  if (now) await InPage.register(options).catch(() => {});
  else setTimeout(() => void InPage.register(options).catch(() => {}), 1000);
  let looked = Date.now();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || Date.now() - looked < LOOK_MS) return;
    looked = Date.now();
    void workers()?.getRegistration().then((found) => found?.update()).catch(() => {});
  });
}

/** @returns {ServiceWorkerContainer | null} */
function workers() {
  try {
    return navigator.serviceWorker ?? null;
  } catch {
    return null; // a sandboxed frame
  }
}
