/**
 * @file `inpage/openai`: what npm's `openai` needs to ask this page's model.
 *
 *     const client = new OpenAI(openai(inpage));
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} baseURL
 * @property {string} apiKey sent and not read
 * @property {true} dangerouslyAllowBrowser this is about keys that a page would give away; there is none
 * @property {(input: any, init?: any) => Promise<any>} [fetch]
 */

/**
 * Options of a client; more can be added beside them. With an `InPage`, its router answers. Without one, the site's service
 * worker does (`InPage.register`), for pages that start no model themselves.
 * @param {{fetch: (input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}} [inpage]
 * @returns {ClientOptions}
 */
export function openai(inpage) {
  const options = /** @type {const} */ ({ apiKey: "-", dangerouslyAllowBrowser: true });
  if (!inpage) return { ...options, baseURL: new URL("v1", document.baseURI).href };
  return { ...options, baseURL: "http://inpage/v1", fetch: inpage.fetch };
}
