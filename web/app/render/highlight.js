/**
 * @file Light highlighting of code: comments, texts, numbers and words, which is what helps reading. Not a parser: one
 * pass of one pattern, whose parts cannot match the same place in many ways.
 */

const C_LIKE = "break case catch class const continue default do else enum export extends false final finally for function if implements import in instanceof interface let new null of package private protected public return static super switch this throw throws true try typeof undefined var void while yield async await";
/** @type {Record<string, {words: string, comment: string}>} */
const LANGUAGES = {
  js: { words: C_LIKE, comment: "//" },
  c: { words: `${C_LIKE} auto bool char double float int long namespace short signed sizeof struct template typedef union unsigned using virtual nullptr include define string`, comment: "//" },
  go: { words: "break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var string int error bool", comment: "//" },
  rust: { words: "as async await break const continue crate dyn else enum false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while", comment: "//" },
  python: { words: "and as assert async await break class continue def del elif else except False finally for from global if import in is lambda None nonlocal not or pass raise return self True try while with yield match case", comment: "#" },
  sh: { words: "if then else elif fi for while until do done case esac function in return export local echo exit cd set source", comment: "#" },
  sql: { words: "select from where insert into values update set delete create table drop alter index join left right inner outer on group by order having limit offset distinct as and or not null primary key references union all case when then else end", comment: "--" },
  data: { words: "true false null yes no", comment: "#" },
  css: { words: "important media supports import from to", comment: "" },
};
/** @type {Record<string, string>} */
const ALIASES = {
  javascript: "js", ts: "js", typescript: "js", jsx: "js", tsx: "js", java: "c", cpp: "c", "c++": "c", cs: "c", csharp: "c", kotlin: "c", swift: "c", php: "c",
  py: "python", python3: "python", rs: "rust", golang: "go", bash: "sh", shell: "sh", zsh: "sh", console: "sh", json: "data", yaml: "data", yml: "data", toml: "data", scss: "css",
};
/** Longer code is shown plain. */
const LONGEST = 40_000;
/** Parts that are made in one frame. */
const AT_ONCE = 200;
/** @type {Map<string, RegExp>} */
const patterns = new Map();

/** @param {string} language @returns {RegExp | null} */
function patternOf(language) {
  const name = ALIASES[language] ?? language;
  if (!Object.hasOwn(LANGUAGES, name)) return null;
  let pattern = patterns.get(name);
  if (!pattern) {
    const { words, comment } = LANGUAGES[name];
    const line = comment ? `|${comment}[^\\n]*` : "";
    const text = `"(?:[^"\\\\\\n]|\\\\.)*"|'(?:[^'\\\\\\n]|\\\\.)*'|\`(?:[^\`\\\\]|\\\\[^])*\``;
    const key = `\\b(?:${words.split(" ").join("|")})\\b`;
    pattern = new RegExp(`(?<comment>/\\*[^]*?\\*/${line})|(?<text>${text})|(?<number>\\b\\d[\\w.]*)|(?<word>${key})`, name === "sql" ? "gi" : "g");
    patterns.set(name, pattern);
  }
  return pattern;
}

/** What is highlighted in later frames, the first first. @type {(() => boolean)[]} */
const waiting = [];

/**
 * The beginning at once, the rest by `highlightMore`: a long text has thousands of parts.
 * @param {HTMLElement} place with the code as its text
 * @param {string} language as the fence names it
 */
export function highlight(place, language) {
  const pattern = patternOf(language.toLowerCase());
  const code = /** @type {Text | null} */ (place.firstChild);
  if (!pattern || !code || code.length > LONGEST) return;
  const found = code.data.matchAll(pattern);
  let at = 0;
  /** @returns {boolean} whether there is more */
  const step = () => {
    const from = at;
    if (code.data !== source.slice(at)) return false; // another text stands there meanwhile
    /** @type {(Node | string)[]} */
    const parts = [];
    for (let count = 0; count < AT_ONCE; count++) {
      const { done, value } = found.next();
      if (done) break;
      if (value.index > at) parts.push(source.slice(at, value.index));
      parts.push(part(value));
      at = value.index + value[0].length;
    }
    if (at === from) return false;
    code.replaceData(0, at - from, "");
    code.before(...parts);
    return true;
  };
  const source = code.data;
  if (step()) waiting.push(() => place.isConnected && step());
}

/** @returns {boolean} whether there is more to highlight */
export function highlightMore() {
  const [first] = waiting;
  if (first && !first()) waiting.shift();
  return waiting.length > 0;
}

/** @param {RegExpExecArray} found @returns {HTMLElement} */
function part(found) {
  const [kind] = Object.entries(found.groups ?? {}).find(([, value]) => value !== undefined) ?? [];
  const made = document.createElement("span");
  made.className = `hl-${kind}`;
  made.textContent = found[0];
  return made;
}
