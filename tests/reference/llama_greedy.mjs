/* Reads {jobs: [{file, text, steps}]} from a file and writes to another for each job {prompt, tokens, margins, ends}: what
 * llama.cpp makes of the text, control tokens included, and goes on with greedily, with how far the second best logit is
 * behind; an end of the answer is the last token. Run in a folder with node-llama-cpp. */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFileSync, writeFileSync } from "node:fs";

const require = createRequire(`${process.cwd()}/`);
const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const { jobs } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "disabled" });
const found = [];
for (const { file, text, steps } of jobs) {
  const model = await llama.loadModel({ modelPath: file });
  const context = await model.createContext({ contextSize: 256, threads: 1, flashAttention: false });
  const sequence = context.getSequence();
  const prompt = Array.from(model.tokenize(text, true));
  const all = Array.from({ length: model.fileInfo.metadata.tokenizer.ggml.tokens.length }, (_, id) => id);
  const ends = all.filter((id) => model._model.isEogToken(id));
  const [tokens, margins] = [[], []];
  let feed = prompt;
  while (tokens.length < steps && !ends.includes(tokens.at(-1))) {
    const last = feed.length - 1;
    const asked = feed.map((id, i) => (i === last ? [id, { generateNext: { probabilities: true } }] : id));
    const { probabilities } = (await sequence.controlledEvaluate(asked))[last].next;
    const [[best, first], [, second]] = [...probabilities].sort((a, b) => b[1] - a[1]);
    tokens.push(best);
    margins.push(Number(Math.log(first / second).toFixed(3)));
    feed = [best];
  }
  found.push({ prompt, tokens, margins, ends });
  await context.dispose();
  await model.dispose();
}
writeFileSync(process.argv[3], JSON.stringify(found));
process.exit(0);
