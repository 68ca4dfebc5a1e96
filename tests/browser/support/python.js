/**
 * @file Python of a page's own router worker, for tests that ask the router where Python asks it: the worker's script as it
 * is served, with Python shown to the test.
 */

const START = "return pyodide.pyimport(";
const SHOWN = "globalThis.python = pyodide;\n  return globalThis.handle = pyodide.pyimport(";

/** @param {import("@playwright/test").Page} page before it makes a router worker @returns {Promise<void>} */
export async function showPython(page) {
  await page.route("**/router/worker.js", async (route) => {
    const response = await route.fetch();
    const script = await response.text();
    if (!script.includes(START)) throw new Error(`router/worker.js has no ${START}`);
    await route.fulfill({ response, body: script.replace(START, SHOWN) });
  });
}

/**
 * Runs Python beside the router. `router` is the default model's, `data` what was given; the last expression's value comes
 * back by JSON.
 * @param {import("@playwright/test").Page} page whose Python is shown, with its model loaded
 * @param {string} code
 * @param {unknown} data
 * @returns {Promise<any>}
 */
export async function inPython(page, code, data) {
  const worker = page.workers().findLast((worker) => worker.url().endsWith("/router/worker.js"));
  if (!worker) throw new Error("the page has no router worker");
  const answer = await worker.evaluate(
    async ([code, data]) => {
      const { python, handle } = /** @type {any} */ (globalThis);
      const names = python.globals.get("dict")();
      names.set("page", handle.__self__);
      names.set("data", data);
      python.runPython("import json; data = json.loads(data); router = page._models.routers()[page._models.default]", { globals: names });
      return python.runPythonAsync(code, { globals: names });
    },
    /** @type {const} */ ([code, JSON.stringify(data)]),
  );
  return JSON.parse(answer);
}
