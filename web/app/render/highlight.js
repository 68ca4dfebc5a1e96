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
/** Parts that are made in one frame; so many more until a line ends. */
const AT_ONCE = 150;
const MORE = 150;
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

/**
 * How far a place is highlighted: the last of its nodes is the source behind `at`.
 * @typedef {{source: string, pattern: RegExp, at: number}} Progress
 */
/** @type {WeakMap<Node, Progress>} */
const progress = new WeakMap();
/** What is highlighted in later frames, the first first. @type {Set<Node>} */
const waiting = new Set();

/**
 * The beginning at once, the rest by `highlightMore`: a long text has thousands of parts.
 * @param {HTMLElement} place with the code as its text
 * @param {string} language as the fence names it
 */
export function highlight(place, language) {
  const pattern = patternOf(language.toLowerCase());
  const source = place.textContent ?? "";
  if (!pattern || !source || source.length > LONGEST) return;
  progress.set(place, { source, pattern, at: 0 });
  if (step(place)) waiting.add(place);
}

/** @param {Node} place @returns {boolean} whether there may be more */
function step(place) {
  const now = progress.get(place);
  const code = place.lastChild;
  // Another text may stand there meanwhile.
  if (!now || !(code instanceof Text) || code.data !== now.source.slice(now.at)) return false;
  const { source, pattern, at: from } = now;
  /** @type {(Node | string)[]} */
  const parts = [];
  pattern.lastIndex = from;
  for (let found = pattern.exec(source); found; found = pattern.exec(source)) {
    const end = parts.length >= AT_ONCE ? source.lastIndexOf("\n", found.index - 1) + 1 : 0;
    if (end > now.at || parts.length >= AT_ONCE + MORE) {
      if (end > now.at) parts.push(source.slice(now.at, end));
      now.at = Math.max(now.at, end);
      break;
    }
    if (found.index > now.at) parts.push(source.slice(now.at, found.index));
    parts.push(part(found));
    now.at = found.index + found[0].length;
  }
  if (now.at === from) return false;
  code.replaceData(0, now.at - from, "");
  // Whole lines are a block of their own, so that lines that are made later leave its layout and its painting alone.
  if ((from === 0 || source[from - 1] === "\n") && source[now.at - 1] === "\n") {
    const lines = document.createElement("span");
    lines.className = "lines";
    lines.append(...parts);
    code.before(lines);
  } else code.before(...parts);
  return true;
}

/** @returns {boolean} whether there is more to highlight */
export function highlightMore() {
  for (const place of waiting) {
    if (place.isConnected && step(place)) break;
    waiting.delete(place); // done, or left
  }
  return waiting.size > 0;
}

/** @param {Node} before @param {Node} after @returns {boolean} whether both are the same code, and `before` is highlighted as far at least */
export function highlighted(before, after) {
  const [one, other] = [progress.get(before), progress.get(after)];
  return one !== undefined && other !== undefined && one.source === other.source && one.pattern === other.pattern && one.at >= other.at;
}

/** The nodes of one place stand in another now, where the rest is highlighted. @param {Node} to @param {Node} from */
export function moveHighlight(to, from) {
  const now = progress.get(from);
  waiting.delete(to);
  progress.delete(to);
  if (!now) return;
  progress.delete(from);
  progress.set(to, now);
  if (waiting.delete(from)) waiting.add(to);
}

/** @param {RegExpExecArray} found @returns {HTMLElement} */
function part(found) {
  const [kind] = Object.entries(found.groups ?? {}).find(([, value]) => value !== undefined) ?? [];
  const made = document.createElement("span");
  made.className = `hl-${kind}`;
  made.textContent = found[0];
  return made;
}
