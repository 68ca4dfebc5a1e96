/** @file How the chat page shows what a model writes: as Markdown, in few changes of the page, and never as anything else. */

import { expect, test } from "./support/chat_page.js";
import { HOSTILE } from "./support/hostile_markdown.js";

/** Element → attributes that the renderer means. Everything else is an escape. */
const MEANT = {
  DIV: ["class", "tabindex", "role", "aria-label"], P: ["class"], SPAN: ["class"], H3: [], H4: [], H5: [], H6: [], STRONG: [], EM: [], DEL: [], CODE: [], BR: [], HR: [], BLOCKQUOTE: [], UL: [], OL: ["start"], LI: ["class"],
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
      const { loadParser } = await import(/** @type {string} */ ("/app/render/prose.js"));
      await loadParser();
      /** @type {string[]} */
      const wrong = [];
      for (const text of snippets) {
        const view = new AnswerView();
        document.body.append(view.element);
        view.update(text, true);
        await Promise.resolve();
        await Promise.resolve();
        if (!view.writes) wrong.push(`not shown: ${text}`);
        for (const each of view.element.querySelectorAll("*")) {
          const attributes = /** @type {Record<string, string[]>} */ (meant)[each.tagName];
          const more = attributes && [...each.attributes].find(({ name }) => !attributes.includes(name));
          const away = each instanceof HTMLAnchorElement && (!["http:", "https:", "mailto:"].includes(each.protocol) || each.rel !== "noopener noreferrer nofollow");
          if (!attributes || more || away) wrong.push(`${each.outerHTML.slice(0, 100)} of ${text.slice(0, 80)}`);
        }
        view.element.remove();
      }
      return [...wrong, ...("hacked" in globalThis ? ["it ran"] : [])];
    },
    /** @type {const} */ ([HOSTILE, MEANT]),
  );
  expect(wrong).toEqual([]);
  expect(asked.filter((url) => !url.startsWith("http://127.0.0.1:"))).toEqual([]);
});

test("Markdown becomes elements, the same ones however it is cut into pieces", async ({ page, open }) => {
  await open("");
  const made = await page.evaluate(async (text) => {
    const { Prose, loadParser } = await import(/** @type {string} */ ("/app/render/prose.js"));
    await loadParser();
    const whole = new Prose();
    whole.update(text, true);
    const differing = [];
    for (const step of [1, 2, 3, 7, 40]) {
      const cut = new Prose();
      for (let at = step; at < text.length; at += step) cut.update(text.slice(0, at), false);
      cut.update(text, true);
      if (cut.element.innerHTML !== whole.element.innerHTML) differing.push([step, cut.element.innerHTML]);
    }
    const all = (/** @type {string} */ selector) => Array.from(whole.element.querySelectorAll(selector), (each) => each.textContent);
    const [link] = whole.element.querySelectorAll("a");
    return {
      differing, headings: all("h3"), strong: all("strong"), code: all("p code"), items: all("li").length, cells: all("td"), head: all("th"), breaks: all("td br").length, places: all(".where"), links: all("a"),
      link: [link.href, link.rel, link.target], language: all(".code-language"), comment: all(".hl-comment"), words: all(".hl-word"), texts: all(".hl-text"), blocks: all("pre code"), html: all("p")[0],
      quote: all("blockquote li"), images: all("img").length, task: all(".task"),
    };
  }, TEXT);
  expect(made).toMatchObject({
    differing: [], headings: ["Title", "Setext"], strong: ["bold"], code: ["code"], items: 5, cells: ["ab", "1"], head: ["left", "right"], breaks: 1, images: 0,
    places: [" (other.example)", " (other.example)"], links: ["link", "https://other.example/", "Image: a cat"], link: ["https://other.example/page", "noopener noreferrer nofollow", "_blank"],
    language: ["python", "Code"], comment: ["# a comment"], words: ["def", "return"], texts: ['"text"'], blocks: ['def f(x):  # a comment\n    return "text" + 12\n\n', "tilde ``` inside"], quote: ["list"],
  });
  expect(made.html).toContain("<b>html</b>");
  expect(made.task[0]).toContain("☑ done");
});

test("thoughts fold away, calls of tools and JSON answers are shown as such", async ({ page, open }) => {
  await open("");
  const shown = await page.evaluate(async () => {
    const { AnswerView } = await import(/** @type {string} */ ("/app/render/answer.js"));
    const { loadParser } = await import(/** @type {string} */ ("/app/render/prose.js"));
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

test("an answer of 5,000 tokens changes the page at most once a frame, and makes each settled block once", async ({ page, open }) => {
  await open("");
  const told = await page.evaluate(async (text) => {
    const { AnswerView } = await import(/** @type {string} */ ("/app/render/answer.js"));
    const { loadParser } = await import(/** @type {string} */ ("/app/render/prose.js"));
    await loadParser();
    const view = new AnswerView();
    document.body.append(view.element);
    let [made, frames, changed, most, tasks] = [0, 0, 0, 0, 0];
    new MutationObserver((records) => {
      changed++;
      for (const { addedNodes } of records) for (const node of addedNodes) made += node instanceof Element ? 1 + node.querySelectorAll("*").length : 0;
    }).observe(view.element, { childList: true, subtree: true, characterData: true });
    new PerformanceObserver((list) => (tasks = Math.max(tasks, ...list.getEntries().map(({ duration }) => duration)))).observe({ entryTypes: ["longtask"] });
    let going = true;
    const frame = () => {
      frames++;
      most = Math.max(most, changed);
      changed = 0;
      if (going) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    const words = text.match(/\s*\S+/g) ?? [];
    let [said, first] = ["", /** @type {Element | null} */ (null)];
    for (const [i, word] of words.entries()) {
      said += word;
      view.update(said, false);
      if (i === 300) first = view.element.querySelector("h4");
      if (i % 10 === 9) await new Promise((resolve) => setTimeout(resolve));
    }
    going = false;
    view.update(text, true);
    await new Promise((resolve) => requestAnimationFrame(resolve));
    const elements = view.element.querySelectorAll("*").length;
    return { words: words.length, writes: view.writes, frames, most, made, elements, same: first === view.element.querySelector("h4") && first !== null, tasks };
  }, long(5000));
  if (process.env.INPAGE_SLOW) console.log(JSON.stringify(told)); // tasks: the longest, in ms, on a quiet machine
  expect(told.words).toBeGreaterThanOrEqual(4999);
  expect(told.writes).toBeGreaterThan(10);
  expect(told.most).toBeLessThanOrEqual(1);
  expect(told.writes).toBeLessThanOrEqual(told.frames + 2);
  expect(told.same).toBe(true);
  // Made again is only the block that is written: were it all of them, it would be hundreds of times as many.
  expect(told.made).toBeLessThan(told.elements + told.writes * 40);
});
