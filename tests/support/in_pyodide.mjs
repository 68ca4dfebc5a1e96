/* Runs Python in Pyodide as the router worker does, only in Node: the package from py/, the JavaScript side from
 * web/router/host.js. The code comes on stdin as JSON {code, data}; `data` is there as a global, the value of the last
 * expression (a JSON text) goes to stdout. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { loadPyodide } from "../../web/vendor/pyodide/pyodide.js";
import * as host from "../../web/router/host.js";

const { code, data } = JSON.parse(readFileSync(0, "utf8"));
const pyodide = await loadPyodide({ indexURL: fileURLToPath(new URL("../../web/vendor/pyodide/", import.meta.url)) });
pyodide.registerJsModule("inpage_host", host);
pyodide.mountNodeFS("/py", fileURLToPath(new URL("../../py", import.meta.url)));
pyodide.mountNodeFS("/vendored", fileURLToPath(new URL("../../web/vendor/python", import.meta.url)));
pyodide.runPython("import sys; sys.path[:0] = ['/py', '/vendored']; sys.dont_write_bytecode = True");
pyodide.globals.set("data", data);
process.stdout.write(await pyodide.runPythonAsync(code));
