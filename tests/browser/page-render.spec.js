/** @file How the chat page shows what a model writes: as Markdown, in few changes of the page, and never as anything else. */

import { expect, test } from "./support/chat_page.js";
import { HOSTILE } from "./support/hostile_markdown.js";

/** Element → attributes that the renderer means. Everything else is an escape. */
const MEANT = {
  DIV: ["class", "tabindex", "role", "aria-label"], P: ["class"], SPAN: ["class"], H3: [], H4: [], H5: [], H6: [], STRONG: [], EM: [], DEL: [], CODE: [], BR: [], HR: [], BLOCKQUOTE: [], UL: ["class"], OL: ["start", "class"], LI: ["class"],
  TABLE: [], THEAD: [], TBODY: [], TR: [], TH: ["class"], TD: ["class"], A: ["href", "rel", "target", "title"], FIGURE: ["class"], FIGCAPTION: ["class"], PRE: ["tabindex", "role", "aria-label"], DETAILS: ["class"], SUMMARY: [],
  BUTTON: ["class", "type", "aria-label", "title"], svg: ["viewBox", "aria-hidden"], path: ["d"],
};

const TEXT = `# Title

A paragraph with **bold**, *italic*, \`code\` & <b>html</b>, a [link](https://other.example/page) and <https://other.example/>.
Its second line, with an image: ![a cat](https://other.example/cat.png).

- one
- two

  still two
  1. deep
- [x] done

| left | right |
|:-----|------:|
| a<br>b | 1 |

\`\`\`python
def f(x):  # a comment
    return "text" + 12

\`\`\`

> quoted
> - list

Setext
======

~~~
tilde \`\`\` inside
~~~

last *line`;

test("two hundred hostile answers become no element that the renderer did not mean, and ask nothing of the network", async ({ page, open }) => {
  await open("");
  /** @type {string[]} */
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  expect(HOSTILE.length).toBeGreaterThanOrEqual(200);
  const wrong = await page.evaluate(
    async ([snippets, meant]) => {
      const { AnswerView } = await import(/** @type {string} */ ("/app/render/answer.js"));
      const { Prose } = await import(/** @type {string} */ ("/app/render/prose.js"));
      const { loadParser } = await import(/** @type {string} */ ("/app/render/lexed.js"));
      await loadParser();
      /** @type {string[]} */
      const wrong = [];
      /** @type {Element[]} */
      const elements = [];
      for (const text of snippets) {
        const view = new AnswerView();
        document.body.append(view.element);
        view.update(text, true);
        await Promise.resolve();
        await Promise.resolve();
        if (!view.writes) wrong.push(`not shown: ${text}`);
        // As it is written as well: cut anywhere.
        const cut = new Prose();
        document.body.append(cut.element);
        for (const end of [0.25, 0.5, 0.75, 1].map((part) => Math.ceil(text.length * part))) {
          cut.update(text.slice(0, end), false);
          cut.advance(Infinity);
          elements.push(...cut.element.querySelectorAll("*"));
        }
        elements.push(...view.element.querySelectorAll("*"));
        for (const each of elements.splice(0)) {
          const attributes = /** @type {Record<string, string[]>} */ (meant)[each.tagName];
          const more = attributes && [...each.attributes].find(({ name }) => !attributes.includes(name));
          const away = each instanceof HTMLAnchorElement && (!["http:", "https:", "mailto:"].includes(each.protocol) || each.rel !== "noopener noreferrer nofollow");
          if (!attributes || more || away) wrong.push(`${each.outerHTML.slice(0, 100)} of ${text.slice(0, 80)}`);
        }
        view.element.remove();
        cut.element.remove();
      }
      return [...wrong, ...("hacked" in globalThis ? ["it ran"] : [])];
    },
    /** @type {const} */ ([HOSTILE, MEANT]),
  );
  expect(wrong).toEqual([]);
  expect(asked.filter((url) => !url.startsWith("http://127.0.0.1:"))).toEqual([]);
});

/** What grows, and what stops growing, and looks for a while like something else. */
const GROWING = `- one
- two
- three
- four

- five, apart
- six

1. a
2. b
   - deep
   - deeper
3. [x] c
4. d
* another
* list
**bold** begins like a list

| a | b |
|---|--:|
${Array.from({ length: 9 }, (_, i) => `| ${i} | *${i}* |`).join("\n")}
| too | many | cells |
> a quote ends it

- a

  more
- b
- c
---
+ x
not x

| no table
|---`;

test("Markdown becomes elements, the same ones however it is cut into pieces", async ({ page, open }) => {
  await open("");
  const made = await page.evaluate(async ([text, ...more]) => {
    const { Prose } = await import(/** @type {string} */ ("/app/render/prose.js"));
    const { lexed, loadParser } = await import(/** @type {string} */ ("/app/render/lexed.js"));
    const { blocks } = await import(/** @type {string} */ ("/app/render/markdown.js"));
    await loadParser();
    const show = (/** @type {any} */ prose, /** @type {string} */ text, /** @type {boolean} */ whole, budget = Infinity) => {
      prose.update(text, whole);
      for (let steps = 0; prose.due && steps < text.length; steps++) prose.advance(budget);
    };
    const whole = new Prose();
    const differing = [];
    for (const each of [...more, text]) {
      const plain = document.createElement("div");
      plain.append(...blocks(lexed(each)));
      for (const [step, budget] of [[Infinity, Infinity], [Infinity, 1], [1, Infinity], [2, 1], [3, 9], [7, Infinity], [40, 30]]) {
        const cut = step === Infinity && budget === Infinity && each === text ? whole : new Prose();
        for (let at = step; at < each.length; at += step) show(cut, each.slice(0, at), false, budget);
        show(cut, each, true, budget);
        if (cut.element.innerHTML !== plain.innerHTML) differing.push([step, budget, cut.element.innerHTML, plain.innerHTML]);
      }
    }
    const all = (/** @type {string} */ selector) => Array.from(whole.element.querySelectorAll(selector), (each) => each.textContent);
    const [link] = whole.element.querySelectorAll("a");
    return {
      differing, headings: all("h3"), strong: all("strong"), code: all("p code"), items: all("li").length, cells: all("td"), head: all("th"), breaks: all("td br").length, places: all(".where"), links: all("a"),
      link: [link.href, link.rel, link.target], language: all(".code-language"), comment: all(".hl-comment"), words: all(".hl-word"), texts: all(".hl-text"), blocks: all("pre code"), html: all("p")[0],
      quote: all("blockquote li"), images: all("img").length, task: all(".task"),
    };
  }, [TEXT, GROWING]);
  expect(made).toMatchObject({
    differing: [], headings: ["Title", "Setext"], strong: ["bold"], code: ["code"], items: 5, cells: ["ab", "1"], head: ["left", "right"], breaks: 1, images: 0,
    places: [" (other.example)", " (other.example)"], links: ["link", "https://other.example/", "Image: a cat"], link: ["https://other.example/page", "noopener noreferrer nofollow", "_blank"],
    language: ["python", "Code"], comment: ["# a comment"], words: ["def", "return"], texts: ['"text"'], blocks: ['def f(x):  # a comment\n    return "text" + 12\n\n', "tilde ``` inside"], quote: ["list"],
  });
  expect(made.html).toContain("<b>html</b>");
  expect(made.task[0]).toContain("☑ done");
});

/** Each looks like something else before it is whole: a line like another block, a text like a link's. */
const UNDECIDED = [
  "1. e\n*Note:* x", "- b\n**Bold** x", "3. x\n->q", "d\nb\n-|x", "|-|\na|b\n-|", "p\n> q\n1.5 x", "| a |\n|---|\n| 1 |\n-x", "1. a\n\n2. b\n\n3. c", "- a \n#2",
  "* \n* **b", "- a\n1. b\n*c* d", "a|b\n-|-\n\n\nx", "p\n* one\n* two\n\n1. x\n\n2024 was",
];
/** Known at the end alone. */
const LATE = ["see [d][1]\n\n- a [1]\n- b\n\n| a |\n|---|\n| [1] |\n\n[1]: https://other.example/\n", "[1]: https://other.example/\n\na\n\n- [1]\n- b\n- c\n- d\n\n[1]"];

test("what looks like another block for a while is what it is at every cut, and at the end whatever came last", async ({ page, open }) => {
  await open("");
  const differing = await page.evaluate(async ([undecided, late]) => {
    const { Prose } = await import(/** @type {string} */ ("/app/render/prose.js"));
    const { lexed, loadParser } = await import(/** @type {string} */ ("/app/render/lexed.js"));
    const { blocks } = await import(/** @type {string} */ ("/app/render/markdown.js"));
    await loadParser();
    /** @type {string[][]} */
    const differing = [];
    const compare = (/** @type {any} */ prose, /** @type {string} */ text) => {
      const plain = document.createElement("div");
      plain.append(...blocks(lexed(text)));
      if (prose.element.innerHTML !== plain.innerHTML) differing.push([text, prose.element.innerHTML, plain.innerHTML]);
    };
    const show = (/** @type {any} */ prose, /** @type {string} */ text, /** @type {boolean} */ whole, budget = Infinity) => {
      prose.update(text, whole);
      for (let steps = 0; prose.due && steps < 100; steps++) prose.advance(budget);
    };
    for (const text of [...undecided, ...late]) {
      const grown = new Prose();
      for (let at = 1; at < text.length; at++) {
        show(grown, text.slice(0, at), false);
        if (undecided.includes(text)) compare(grown, text.slice(0, at));
        for (const budget of [1, Infinity]) {
          const cut = new Prose();
          show(cut, text.slice(0, at), false, budget);
          if (undecided.includes(text)) compare(cut, text.slice(0, at));
          show(cut, text, true, budget);
          compare(cut, text);
        }
      }
      show(grown, text, true);
      compare(grown, text);
    }
    return differing;
  }, [UNDECIDED, LATE]);
  expect(differing).toEqual([]);
});

test("code that comes in pieces is highlighted to its end, in a block and in a list", async ({ page, open }) => {
  await open("");
  const code = Array.from({ length: 150 }, (_, i) => `const a${i} = ${i}; // line\n`).join("");
  const listed = `- one\n\n  \`\`\`js\n${code.replaceAll(/^(?=.)/gm, "  ")}  \`\`\`\n\n- two\n- three`;
  const made = await page.evaluate(async (texts) => {
    const { Prose } = await import(/** @type {string} */ ("/app/render/prose.js"));
    const { loadParser } = await import(/** @type {string} */ ("/app/render/lexed.js"));
    const { highlightMore } = await import(/** @type {string} */ ("/app/render/highlight.js"));
    await loadParser();
    return texts.map(([text, step]) => {
      const prose = new Prose();
      document.body.append(prose.element);
      for (let at = Number(step); at < Number(step) + text.length; at += Number(step)) {
        prose.update(text.slice(0, at), at >= text.length);
        for (let steps = 0; prose.due && steps < 100; steps++) prose.advance(Infinity);
        highlightMore();
      }
      for (let steps = 0; highlightMore() && steps < 100; steps++);
      prose.element.remove();
      return [prose.element.querySelectorAll("code span:not(.lines)").length, prose.element.querySelectorAll(".lines > span").length > 300, prose.element.querySelector("code")?.textContent];
    });
  }, /** @type {[string, number][]} */ ([13, 4000, 1e6].flatMap((step) => [[`\`\`\`js\n${code}\`\`\`\n`, step], [`\`\`\`js\n${code}\`\`\`\n\nmore`, step], [listed, step]])));
  expect(made).toEqual(made.map(() => [450, true, code.trimEnd()]));
});

test("thoughts fold away, calls of tools and JSON answers are shown as such", async ({ page, open }) => {
  await open("");
  const shown = await page.evaluate(async () => {
    const { AnswerView } = await import(/** @type {string} */ ("/app/render/answer.js"));
    const { loadParser } = await import(/** @type {string} */ ("/app/render/lexed.js"));
    await loadParser();
    const show = async (/** @type {string} */ text, whole = true) => {
      const view = new AnswerView();
      view.update(text, whole);
      await new Promise((resolve) => requestAnimationFrame(resolve));
      return Array.from(view.element.children, (each) => `${each.tagName} ${each.className}: ${each.textContent}${each instanceof HTMLDetailsElement && each.open ? " open" : ""}`);
    };
    return {
      thought: await show("<think>\nHm *well*.\n</think>\n\nFour."), thinking: await show("<think>Hm", false), beginning: await show("<thi", false),
      call: await show('Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'), calling: await show('<tool_call>{"na', false), json: await show(' {"a": [1, 2]}\n'), half: await show('{"a": [1', false),
    };
  });
  expect(shown).toEqual({
    thought: ["DETAILS think: ThoughtsHm well.", "DIV prose: Four."], thinking: ["DETAILS think: Thinking …Hm"], beginning: [],
    call: ["DIV prose: Let me look.", 'DIV call: Calls the function weatherjson{\n  "name": "weather",\n  "arguments": {\n    "city": "Bonn"\n  }\n}'], calling: ['DIV call: Calls a function …json{"na'],
    json: ['FIGURE code: json{\n  "a": [\n    1,\n    2\n  ]\n}'], half: ['DIV prose: {"a": [1'],
  });
});

/** @param {number} tokens */
function long(tokens) {
  const parts = ["## Part N\n\n", "Some **words** of a paragraph that goes on for a while, with `code` in it.\n\n", "- an item\n- another item\n- a third\n\n", "```js\nconst n = N; // a line\nreturn n;\n```\n\n", "| a | b |\n|---|---|\n| N | 2 |\n\n"];
  let text = "";
  for (let n = 0; text.split(/\s+/).length < tokens; n++) text += parts[n % parts.length].replaceAll("N", String(n));
  return text;
}

/** @param {number} count @param {(i: number) => string} make */
const lines = (count, make) => Array.from({ length: count }, (_, i) => make(i)).join("");
/** Answers of a single block, which grows. */
const BLOCKS = {
  list: lines(700, (i) => `- item **${i}** of a list, with words\n`),
  apart: lines(400, (i) => `${i + 1}. item ${i} of a list\n\n   and more\n\n`),
  table: `| a | b | c |\n|---|---|---|\n${lines(600, (i) => `| ${i} | two words | *x* |\n`)}`,
  code: `\`\`\`js\n${lines(700, (i) => `const a${i} = f("text", ${i}); // line\n`)}\`\`\`\n`,
  json: `[${lines(700, (i) => `{"a": ${i}, "b": "text"},\n`)}1]`,
  quote: lines(700, (i) => `> line ${i} of a *quote*\n>\n`),
};

test("an answer of 5,000 tokens changes the page at most once a frame, and of a long block only its end", async ({ page, open }) => {
  await open("");
  /** @param {string} text @param {number} step words that come at once @param {boolean} whole all comes at once */
  const streamed = (text, step, whole = false) => page.evaluate(async ([text, step, whole]) => {
    const { AnswerView } = await import(/** @type {string} */ ("/app/render/answer.js"));
    const { loadParser } = await import(/** @type {string} */ ("/app/render/lexed.js"));
    await loadParser();
    const view = new AnswerView();
    document.body.append(view.element);
    let [touched, frames, changed, most, peak, tasks] = [0, 0, 0, 0, 0, 0];
    const observer = new MutationObserver((records) => {
      changed++;
      const nodes = new Set();
      for (const { addedNodes, removedNodes } of records) for (const node of [...addedNodes, ...removedNodes]) for (const each of [node, ...(node instanceof Element ? node.querySelectorAll("*") : [])]) nodes.add(each);
      touched += nodes.size;
      peak = Math.max(peak, nodes.size);
    });
    observer.observe(view.element, { childList: true, subtree: true, characterData: true });
    new PerformanceObserver((list) => (tasks = Math.max(tasks, ...list.getEntries().map(({ duration }) => duration)))).observe({ entryTypes: ["longtask"] });
    let going = true;
    const frame = () => {
      frames++;
      most = Math.max(most, changed);
      changed = 0;
      if (going) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    const words = /** @type {string} */ (text).match(/\s*\S+/g) ?? [];
    let said = "";
    for (const [i, word] of whole ? [] : words.entries()) {
      said += word;
      if (i % Number(step) !== Number(step) - 1) continue;
      view.update(said, false);
      await new Promise((resolve) => setTimeout(resolve));
    }
    view.update(text, true);
    // Until nothing changes any more.
    for (let writes = -1; writes !== view.writes; await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))) writes = view.writes;
    going = false;
    observer.disconnect();
    const told = { words: words.length, writes: view.writes, frames, most, peak, touched, elements: view.element.querySelectorAll("*").length, tasks };
    view.element.remove();
    return told;
  }, /** @type {const} */ ([text, step, whole]));
  /** @param {string} name @param {Awaited<ReturnType<typeof streamed>>} told */
  const sound = (name, told) => {
    if (process.env.INPAGE_SLOW) console.log(name, JSON.stringify(told)); // tasks: the longest, in ms, on a quiet machine
    expect(told.most, name).toBeLessThanOrEqual(1);
    expect(told.writes, name).toBeLessThanOrEqual(told.frames + 2);
    // Were a block of hundreds of items made again with each write, it would be thousands at once, and hundreds of thousands together.
    expect(told.peak, name).toBeLessThan(1500);
    expect(told.touched, name).toBeLessThan(4 * told.elements + told.writes * 60);
  };
  const mixed = await streamed(long(5000), 10);
  expect(mixed.words).toBeGreaterThanOrEqual(4999);
  expect(mixed.writes).toBeGreaterThan(10);
  sound("mixed", mixed);
  for (const [name, text] of Object.entries(BLOCKS)) sound(name, await streamed(text, 40));
  for (const [name, text] of Object.entries({ mixed: long(5000), ...BLOCKS })) sound(`${name}, at once`, await streamed(text, 1, true));
});
