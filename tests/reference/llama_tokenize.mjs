/* Reads {files: [paths], texts, ids} from a file and writes to another for each file {plain, parsed, decoded, ends, control}: what
 * llama.cpp makes of the texts, control tokens being text or not, the text of each list of ids, the tokens that end an
 * answer and those that control. Run in a folder with node-llama-cpp. */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFileSync, writeFileSync } from "node:fs";

const require = createRequire(`${process.cwd()}/`);
const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const given = JSON.parse(readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "disabled" });
const found = [];
for (const modelPath of given.files) {
  const model = await llama.loadModel({ modelPath, vocabOnly: true });
  const ids = (special) => given.texts.map((text) => Array.from(model.tokenize(text, special)));
  const all = Array.from({ length: model.fileInfo.metadata.tokenizer.ggml.tokens.length }, (_, id) => id);
  const ends = all.filter((id) => model._model.isEogToken(id));
  const control = all.filter((id) => model.getTokenAttributes(id).control);
  found.push({ ends, control, plain: ids(false), parsed: ids(true), decoded: given.ids.map((some) => model.detokenize(some, false)) });
  await model.dispose();
}
writeFileSync(process.argv[3], JSON.stringify(found));
process.exit(0);
