/**
 * @file `import "inpage/grammar"`: answers held to a schema, a regular expression or a grammar. The library is a megabyte,
 * which a site without it does not carry; it is loaded when a request first asks for it.
 */

import { provide } from "../engine/host/places.js";

provide({
  "engine/grammar/grammar_worker.js": new URL("./grammar/worker.js", import.meta.url).href,
  "vendor/xgrammar/xgrammar.js": new URL("./grammar/xgrammar.js", import.meta.url).href,
});
