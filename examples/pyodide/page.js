/** @file Python in the page itself: Pyodide, our package, and three lines of Python. */

import { loadPyodide } from "../../vendor/pyodide/pyodide.js";
import * as host from "../../router/host.js";

const pyodide = await loadPyodide();
// Three lines install the package: what Python needs of JavaScript, and its files.
pyodide.registerJsModule("inpage_host", host);
const archive = await fetch("../../inpage.zip");
pyodide.unpackArchive(await archive.arrayBuffer(), "zip");

await pyodide.runPythonAsync(`
from inpage import Router
from js import document

answer, state = document.getElementById("answer"), document.getElementById("state")
router = await Router.load("../../models/smollm2-135m-instruct/")
async for piece in router.chat("Why is the sky blue?", max_tokens=60, temperature=0):
    answer.append(piece.text)
state.textContent = router.explain().splitlines()[0]
`);
