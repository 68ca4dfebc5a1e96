/* Runs Python in Pyodide as the router worker does, only in Node: the package from py/, the JavaScript side from
 * web/router/host.js. Each line of stdin is a JSON {code, data}: the code runs with names of its own, `data` among them, and
 * the value of its last expression (a JSON text) is a line of stdout, {value}, or {error}. */
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { loadPyodide } from "../../web/vendor/pyodide/pyodide.js";
import * as host from "../../web/router/host.js";

const pyodide = await loadPyodide({ indexURL: fileURLToPath(new URL("../../web/vendor/pyodide/", import.meta.url)) });
pyodide.registerJsModule("inpage_host", host);
pyodide.mountNodeFS("/py", fileURLToPath(new URL("../../py", import.meta.url)));
pyodide.mountNodeFS("/vendored", fileURLToPath(new URL("../../web/vendor/python", import.meta.url)));
pyodide.runPython("import sys; sys.path[:0] = ['/py', '/vendored']; sys.dont_write_bytecode = True");
for await (const line of createInterface({ input: process.stdin })) {
  const { code, data } = JSON.parse(line);
  const globals = pyodide.toPy({ data, __name__: "__main__" });
  const said = await pyodide.runPythonAsync(code, { globals }).then((value) => ({ value }), ({ message }) => ({ error: message }));
  process.stdout.write(`${JSON.stringify(said)}\n`);
}
