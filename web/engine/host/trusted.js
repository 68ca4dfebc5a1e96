/**
 * @file URLs of scripts, as a page under `require-trusted-types-for 'script'` wants them: by the policy "inpage", which its
 * `trusted-types` has to allow. Elsewhere they are what they were.
 */

/** @typedef {{createScriptURL: (url: string) => string}} Policy */

/** @type {Policy | null | undefined} */
let policy;

/**
 * @param {URL} url of our own
 * @returns {URL | string}
 */
export function trusted(url) {
  if (policy === undefined) policy = made();
  return policy ? policy.createScriptURL(url.href) : url;
}

/** @returns {Policy | null} */
function made() {
  const { trustedTypes } = /** @type {{trustedTypes?: {createPolicy: (name: string, rules: Policy) => Policy}}} */ (/** @type {unknown} */ (globalThis));
  try {
    return trustedTypes?.createPolicy("inpage", { createScriptURL: (url) => url }) ?? null;
  } catch {
    return null; // not allowed: then the browser says so where the URL is used
  }
}
