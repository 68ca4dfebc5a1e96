/** @file The chat page as a person uses it, over a scripted model: nothing typed is lost, and there is no dead end. */

import { readFileSync } from "node:fs";

import { answers, ask, asked, expect, messages, test } from "./support/chat_page.js";

/** @typedef {import("@playwright/test").Page} Page */

test.use({ actionTimeout: 20_000 });

/** @param {Page} page @param {number} count of answers that ended */
const ended = (page, count) => expect(page.locator(".message.assistant .actions")).toHaveCount(count);
/** @param {Page} page @param {string} name */
const open = (page, name) => page.locator("#conversations").getByText(name).click();
/** @param {Page} page @returns {Promise<string[]>} */
const listed = (page) => page.locator("#conversations .title").allTextContents();
/** @param {Page} page */
const box = (page) => page.getByLabel("Message", { exact: true });
/** What storage has of answers under way. @param {Page} page @returns {Promise<string>} */
const unfinished = (page) => page.evaluate(() => new Promise((resolve) => {
  const opening = indexedDB.open("inpage-unfinished", 1);
  opening.onsuccess = () => (opening.result.transaction("answers").objectStore("answers").getAll().onsuccess = (event) => resolve(/** @type {any} */ (event.target).result.join("")));
}));
/** The message at which the branch that is shown ends, as storage has it. @param {Page} page @param {string} title @returns {Promise<string>} */
const shown = (page, title) => page.evaluate((title) => new Promise((resolve) => {
  const opening = indexedDB.open("inpage-conversations", 1);
  opening.onsuccess = () => (opening.result.transaction("heads").objectStore("heads").getAll().onsuccess = (event) => {
    opening.result.close();
    resolve(/** @type {any} */ (event.target).result.find((/** @type {any} */ head) => head.title === title)?.leaf);
  });
}), title);
/** Until the script holds an answer. @param {Page} page */
const held = (page) => page.waitForFunction(() => /** @type {any} */ (globalThis).script.held);

test("a full context: the oldest turns leave the prompt and are marked, answers get shorter, and a question that is too long can be mended", async ({ page, open: visit }) => {
  // A word is a token, a message has four more: the system prompt has 6.
  await visit("?start&system=be%20brief&max_tokens=40&schema=x", { context: 60 });
  await expect(page.locator("#notice")).toContainText("The schema is no JSON"); // and answers are free text
  for (const n of [1, 2, 3]) {
    await ask(page, `say ${Array(12).fill(`w${n}`).join(" ")}`);
    await ended(page, n);
  }
  const prompts = await asked(page);
  const roles = prompts.map(({ messages: told }) => told.map((/** @type {any} */ { role, content }) => `${role} ${content.slice(-2)}`));
  expect(roles[0]).toEqual(["system ef", "user w1"]);
  // 6 + 17 + 16 + 17 = 56: a quarter of the context is not left for the answer, so the first turn goes.
  expect(roles[1]).toEqual(["system ef", "user w2"]);
  expect(roles[2]).toEqual(["system ef", "user w3"]);
  expect(prompts.map(({ params }) => params.max_tokens)).toEqual([37, 37, 37]); // 60 - 23, less than the 40 that were asked for
  await expect(page.locator(".left-out")).toHaveCount(4);
  await expect(page.locator(".divider")).toHaveText(/no longer reads what is above/);
  await expect(page.locator(".divider + .message .said")).toContainText("w3");

  await ask(page, Array(70).fill("long").join(" "));
  await expect(answers(page).nth(3)).toContainText("longer than the model can read");
  await expect(page.locator(".said").last()).toContainText("long long");
  await expect(page.locator("#error")).toBeHidden(); // it is told once, in the reader's language
  await ask(page, "say fine"); // it does not stand in the way of what follows
  await expect(answers(page).nth(4)).toContainText("fine");
  await page.locator(".message.user").nth(3).getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Your question").fill("say short");
  await page.getByRole("button", { name: "Ask again" }).click();
  await expect(answers(page).nth(3)).toContainText("short");
  await expect(answers(page)).toHaveCount(4); // a branch: the other is behind the arrows
  await expect(page.locator(".message.user").nth(3)).toContainText("2/2");
});

test("a question asked while loading or in failure is kept, answered when it can be, also after a reload, and stands in the next prompt", async ({ page, open: visit }) => {
  await visit("?start&model=nope&threads=3", { fails: 1, waits: true });
  await expect(page.locator("#notice")).toContainText("This site has no model “nope”: Small-135M is taken. It has small, large.");
  await ask(page, "say one");
  await expect(answers(page)).toHaveCount(1);
  await page.evaluate(() => /** @type {any} */ (globalThis).script.go());
  await expect(page.getByRole("alert")).toContainText("The download broke off. What has arrived is kept");
  await page.locator("#import-file").setInputFiles({ name: "x", mimeType: "text/plain", buffer: Buffer.from("{") });
  await page.getByRole("alert").filter({ hasText: "is no JSON" }).getByRole("button", { name: "Dismiss" }).click();
  await expect(page.getByRole("alert")).toContainText("The download broke off");
  await page.getByRole("button", { name: "Try again" }).click();
  await expect(page.getByRole("alert")).toBeHidden();
  await box(page).fill("typed and not sent");
  await page.reload(); // while it loads
  await expect(box(page)).toHaveValue("typed and not sent");
  await expect(page.locator(".said")).toHaveText(["say one"]);
  await page.evaluate(() => /** @type {any} */ (globalThis).script.go());
  await expect(page.getByRole("alert")).toBeVisible(); // the script fails once a page
  await expect(page.locator("#notice")).toContainText("as this visit asks for it (threads=3)");
  await page.getByRole("button", { name: "Use the fastest" }).click();
  expect(new URL(page.url()).searchParams.has("threads")).toBe(false);
  await expect.poll(() => page.evaluate(() => /** @type {any} */ (globalThis).script.starts.at(-1).threads ?? null)).toBe(null);
  await page.evaluate(() => /** @type {any} */ (globalThis).script.go());
  await expect(answers(page)).toContainText("one");
  await ended(page, 1);

  // What failed in mid-answer can be asked again, and what was asked meanwhile is in the next prompt.
  await ask(page, "die");
  await expect(page.getByRole("alert")).toContainText("has to be loaded again");
  await ask(page, "say two");
  await page.locator(".message.user").first().getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Your question").fill("typed while it loads");
  await page.getByRole("button", { name: "Try again" }).click();
  await page.evaluate(() => /** @type {any} */ (globalThis).script.go());
  await ended(page, 3);
  await expect(page.getByLabel("Your question")).toHaveValue("typed while it loads");
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.locator(".said")).toHaveText(["say one", "die", "say two"]);
  const last = (await asked(page)).at(-1);
  expect(last.messages.map((/** @type {any} */ { content }) => content)).toEqual(["say one", "one", "die\n\nsay two"]);
  expect(last.params).toMatchObject({ max_repeats: 8, max_tokens: 1024 });
});

test("the box keeps what is typed while an answer runs; an answer that was stopped, or cut by its limit, goes on", async ({ page, open: visit }) => {
  await visit("?start&max_tokens=3");
  await ask(page, "hold a b c d e f g h");
  await expect(answers(page)).toContainText("c");
  await expect(answers(page)).toContainText("cut off: the answer reached its limit");
  await page.getByRole("button", { name: "Continue" }).click();
  await expect(answers(page).locator("p")).toHaveText(["a b c d"]); // in the middle of a paragraph
  expect((await asked(page))[1].params.resume).toEqual([3, 4, 5]);
  // A reload in the second part keeps the first.
  await expect.poll(() => unfinished(page)).toContain('"tokens":[6]');
  await page.reload();
  await held(page);
  await expect(answers(page).locator("p")).toHaveText(["a b c d"]);
  await expect(page.getByRole("button", { name: "Stop" })).toBeVisible();
  await ask(page, "never sent");
  await expect(box(page)).toHaveValue("never sent");
  // Escape means something else in the search, over the list, and while a word is composed.
  await page.getByLabel("Search").press("Escape");
  await box(page).evaluate((text) => text.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", isComposing: true, bubbles: true })));
  await page.setViewportSize({ width: 390, height: 844 });
  await page.locator("#open-list").click();
  await page.keyboard.press("Escape");
  await expect(page.locator("body")).not.toHaveClass(/side-open/);
  await expect(page.getByRole("button", { name: "Stop" })).toBeVisible();
  await page.setViewportSize({ width: 1280, height: 720 });
  await page.keyboard.press("Escape");
  await expect(answers(page)).toContainText("stopped");
  await expect(box(page)).toHaveValue("never sent");
  await page.getByRole("button", { name: "Continue" }).click();
  await page.evaluate(() => /** @type {any} */ (globalThis).script.release());
  await expect.poll(async () => (await messages(page)).at(-1).text).toBe("a b c d e f g");
  await expect(page.locator(".message")).toHaveCount(2);

  // Another model in mid-answer: it stops, stays, and is not lengthened by a model that does not know its tokens.
  await box(page).fill("hold u v w x");
  await page.keyboard.press("Enter");
  await expect(answers(page).nth(1)).toContainText("u v");
  await page.locator("#model").click();
  await page.getByRole("button", { name: "Download 4.1 GB and use: Large-7B q4_1" }).click();
  await expect(answers(page).nth(1)).toContainText("stopped");
  await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
  await expect(page.getByRole("button", { name: "Continue" })).toHaveCount(0);
  await expect(page.getByRole("alert")).toBeHidden();
  await ask(page, "say and so on");
  await expect(answers(page).nth(2)).toContainText("and so on");
  expect((await asked(page)).at(-1).messages.map((/** @type {any} */ { role }) => role)).toEqual(["user", "assistant", "user", "assistant", "user"]);
});

test("an answer goes on after a reload, where it was and with its seed; another tab does not take it up, and shows it", async ({ page, context, chatUrl, open: visit }) => {
  await visit("?start&seed=11");
  await ask(page, "hold one two three four five six");
  await expect(answers(page)).toContainText("one two three");
  // What there is by now was written before the page goes.
  await expect.poll(() => unfinished(page)).toContain("three");
  const other = await context.newPage();
  await other.goto(`${chatUrl}?start`);
  await open(other, "hold one two");
  await expect(answers(other)).toContainText("one two three");
  expect(await asked(other)).toEqual([]);
  await page.reload();
  await expect(answers(page)).toContainText("one two three");
  // Whichever of the two tabs had it first after the reload goes on with it.
  await expect.poll(async () => {
    for (const each of [page, other]) await each.evaluate(() => /** @type {any} */ (globalThis).script.release());
    return page.locator(".message.assistant .actions").count();
  }).toBe(1);
  expect([...(await asked(page)), ...(await asked(other))]).toEqual([]); // resumed, not asked
  const last = (await messages(page)).at(-1);
  expect(last).toMatchObject({ text: "one two three four five six", status: "done", tokens: [3, 4, 5, 6, 7, 8], seed: 11 });
  await expect(answers(other)).toContainText("five six"); // the other tab hears of it
  // Both ask at once in the same conversation: one after the other, or in two branches; nothing is lost.
  await Promise.all([ask(page, "say left"), ask(other, "say right")]);
  await expect.poll(async () => (await messages(page)).filter(({ status }) => status === "done").map(({ text }) => text).sort()).toEqual(
    ["hold one two three four five six", "left", "one two three four five six", "right", "say left", "say right"]);
  await page.reload();
  await expect(page.locator(".said").first()).toHaveText("hold one two three four five six");
  // Deleted in one tab while another answers it, it stays deleted.
  await ask(page, "hold p q r s");
  await held(page);
  await other.getByLabel("More about: hold one two").click();
  await other.getByRole("button", { name: "Delete" }).click();
  await expect(page.locator(".message")).toHaveCount(0);
  await ask(page, "say on");
  await ended(page, 1);
  await expect.poll(async () => (await messages(page)).map(({ text, status }) => `${text} ${status}`)).toEqual(["say on done", "on done"]);
});

test("many conversations: found, renamed, deleted and brought back, asked again with the variants kept", async ({ page, open: visit }) => {
  await visit();
  for (const word of ["apple", "banana", "cherry"]) {
    await ask(page, `say about ${word}`);
    await ended(page, 1);
    await page.getByRole("button", { name: "New chat" }).click();
    await expect(page.getByRole("heading", { level: 2 })).toBeVisible();
  }
  await expect.poll(() => listed(page)).toEqual(["say about cherry", "say about banana", "say about apple"]);
  await page.getByLabel("Search").fill("BANANA about");
  await expect(page.locator("#conversations .title")).toHaveText(["say about banana"]);
  await page.getByLabel("Search").fill("plum");
  await expect(page.locator("#no-conversations:visible")).toHaveText("Nothing found.");
  await page.getByLabel("Search").fill("");
  await expect(page.locator("#conversations .title")).toHaveCount(3);
  await open(page, "say about banana");
  await page.getByLabel("More about: say about banana").click();
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByLabel("Title of the conversation").fill("Yellow");
  await page.keyboard.press("Enter");
  await expect(page.locator("#conversations .current .title")).toHaveText("Yellow");

  await page.getByRole("button", { name: "Answer again" }).click();
  await expect(answers(page)).toContainText("2/2");
  await page.getByRole("button", { name: "The variant before" }).click();
  await expect(answers(page)).toContainText("1/2");
  await page.locator(".message.user").getByRole("button", { name: "Edit" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.locator(".said")).toHaveCount(1);
  await expect(answers(page)).toContainText("1/2");
  // The choice is in storage as well before the page goes.
  const [variant] = (await messages(page)).filter(({ text }) => text === "about banana");
  await expect.poll(() => shown(page, "Yellow")).toBe(variant.id);
  await page.reload();
  await expect(answers(page)).toContainText("1/2");
  await expect(page).toHaveTitle("Yellow · inpage");

  await page.getByLabel("More about: Yellow").click();
  await page.getByRole("button", { name: "Delete" }).click();
  await expect(page.locator(".message")).toHaveCount(0);
  await expect.poll(() => listed(page)).toEqual(["say about cherry", "say about apple"]);
  expect((await messages(page)).filter(({ text }) => text.includes("banana"))).toEqual([]);
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(answers(page)).toContainText("1/2");
  await page.reload();
  await expect(answers(page)).toContainText("1/2");

  // Deleted while it is answered, it does not come back with the answer's end, and comes back whole.
  await ask(page, "hold v w x y");
  await held(page);
  await page.getByLabel("More about: Yellow").click();
  await page.getByRole("button", { name: "Delete" }).click();
  await expect(page.locator(".message")).toHaveCount(0);
  await ask(page, "say meanwhile");
  await ended(page, 1);
  await expect.poll(async () => (await messages(page)).at(-1)).toMatchObject({ text: "meanwhile", status: "done" });
  expect((await messages(page)).filter(({ text }) => /banana|v w/.test(text))).toEqual([]);
  await page.getByRole("button", { name: "Undo" }).click();
  await open(page, "Yellow");
  await expect(answers(page).first()).toContainText("1/2");
  await expect(answers(page).last()).toContainText("v w");
  await expect(answers(page).last()).toContainText("stopped");

  // Of two that are called for one after the other, the later one is shown, though the first has to be read from storage.
  /** @param {string} first @param {string} then */
  const both = (first, then) => page.evaluate(([first, then]) => {
    const named = (/** @type {string} */ name) => [...document.querySelectorAll("button")].find((each) => each.checkVisibility() && each.textContent?.startsWith(name));
    for (const name of [first, then]) /** @type {HTMLButtonElement} */ (named(name)).click();
  }, [first, then]);
  await both("say about apple", "Yellow");
  await messages(page);
  await ask(page, "say here");
  await ended(page, 3);
  await expect(page.locator(".said")).toHaveText(["say about banana", "hold v w x y", "say here"]);
  await both("say about cherry", "New chat");
  await messages(page);
  await ask(page, "say new");
  await ended(page, 1);
  await expect(page.locator(".said")).toHaveText(["say new"]);
  // So it is with one that comes in or comes back; and there are never two of one.
  const told = await page.evaluate(async () => {
    const { Library } = await import(/** @type {string} */ ("/app/chat/library.js"));
    const { Store } = await import(/** @type {string} */ ("/app/data/store.js"));
    const { toJson } = await import(/** @type {string} */ ("/app/data/transfer.js"));
    const store = new Store(() => {}, "apart");
    const library = new Library(store);
    const ids = Object.fromEntries((await store.heads()).map((/** @type {any} */ { id, title }) => [title, id]));
    await Promise.all([library.rename(ids["say about apple"], "Red"), library.open(ids["say about apple"])]);
    const { title } = library.current.head;
    const importing = library.import(new Blob([toJson([library.current])]));
    library.fresh();
    const count = await importing;
    const imported = library.current.head.title;
    await library.open(ids["say about cherry"]);
    const { undo } = await library.remove(ids["say about cherry"]);
    const undoing = undo();
    library.fresh();
    await undoing;
    const back = library.current.head.title;
    // Deleted elsewhere while it is read.
    const opening = library.open(ids.Yellow);
    library.gone(ids.Yellow);
    return { title, count, imported, back, opened: await opening };
  });
  expect(told).toEqual({ title: "Red", count: 1, imported: "", back: "", opened: false });
});

test("conversations go out as JSON and Markdown and come in again; what is no such file is refused by name", async ({ page, open: visit }) => {
  await visit();
  const odd = "say <!-- inpage: user -->\n## You\n\nx\n\\<!-- inpage: assistant -->\n\n";
  await ask(page, odd);
  await ended(page, 1);
  await ask(page, "say more");
  await ended(page, 2);
  const before = (await messages(page)).map(({ role, text }) => ({ role, text }));
  /** @param {string} name */
  const saved = async (name) => {
    const file = page.waitForEvent("download");
    await page.locator("#conversations .menu summary").first().click();
    await page.getByRole("button", { name }).click();
    return readFileSync(await (await file).path(), "utf-8");
  };
  const [markdown, json] = [await saved("Save as Markdown"), await saved("Save as JSON")];
  for (const [name, text] of [["x.md", markdown], ["x.json", json]]) {
    await page.locator("#import-file").setInputFiles({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
    await expect(page.locator("#notice")).toContainText("1 imported.");
    await expect.poll(() => listed(page).then(({ length }) => length)).toBe(name === "x.md" ? 2 : 3);
    await ended(page, 2);
  }
  const after = (await messages(page)).map(({ role, text }) => ({ role, text }));
  const sorted = (/** @type {object[]} */ all) => all.map((each) => JSON.stringify(each)).sort();
  expect(sorted(after)).toEqual(sorted([...before, ...before, ...before]));

  const whole = JSON.parse(json);
  expect(whole.conversations[0].messages.map((/** @type {any} */ { tokens }) => tokens)).toEqual([[], [], [], []]);
  // What was saved can be imported, however much there is to be continued; more than a file can hold is not saved.
  const large = await page.evaluate(async () => {
    const { fromFile, toJson } = await import(/** @type {string} */ ("/app/data/transfer.js"));
    const { Conversation } = await import(/** @type {string} */ ("/app/chat/tree.js"));
    const made = Conversation.fresh();
    made.add({ role: "assistant", text: "x", parent: null, status: "cut", tokens: Array(2 ** 20 + 1).fill(12345) });
    const { length } = fromFile(toJson([made]))[0].all()[0].tokens;
    for (let n = 0; n < 17; n++) made.add({ role: "user", text: "x".repeat(4 << 20), parent: null });
    try {
      return [length, toJson([made]).length];
    } catch (error) {
      return [length, /** @type {any} */ (error).field];
    }
  });
  expect(large).toEqual([2 ** 20 + 1, "conversations"]);
  const broken = {
    "no turns": "# Title\n\ntext", "is no JSON": "{", "kind is not": '{"kind": "other"}', "version is not 1": JSON.stringify({ ...whole, version: 2 }),
    "conversations must be a list": JSON.stringify({ ...whole, conversations: {} }), "conversations[0] must have id": JSON.stringify({ ...whole, conversations: [{}] }),
    "conversations[0].messages[0] must have": JSON.stringify({ ...whole, conversations: [{ ...whole.conversations[0], messages: [{ ...whole.conversations[0].messages[0], role: "system" }] }] }),
    "has an id twice": JSON.stringify({ ...whole, conversations: [{ ...whole.conversations[0], messages: [...whole.conversations[0].messages, ...whole.conversations[0].messages] }] }),
    "nested more than": "[".repeat(5000),
  };
  for (const [why, text] of Object.entries(broken)) {
    await page.locator("#import-file").setInputFiles({ name: "x", mimeType: "text/plain", buffer: Buffer.from(text) });
    await expect(page.getByRole("alert")).toContainText(why);
  }
  expect(await listed(page)).toHaveLength(3);
});

test("damaged records, storage that is cleared in mid-chat, and a browser that keeps nothing do not break the page", async ({ page, open: visit }) => {
  await visit();
  await ask(page, "say sound");
  await ended(page, 1);
  await page.evaluate(async () => {
    /** @type {IDBDatabase} */
    const database = await new Promise((resolve) => (indexedDB.open("inpage-conversations", 1).onsuccess = (event) => resolve(/** @type {any} */ (event.target).result)));
    const writing = database.transaction(["heads", "messages", "settings"], "readwrite");
    const [heads, rows, settings] = ["heads", "messages", "settings"].map((name) => writing.objectStore(name));
    const time = Date.now();
    const damaged = [null, 7, "x", [], {}, { id: "a" }, { id: 7, title: {}, created: "x", updated: NaN }, { id: "../x", title: "t", created: 1, updated: 1 }, { id: "b", title: "x".repeat(9999), created: 1, updated: 1 }];
    for (const [i, value] of damaged.entries()) heads.put(value, `bad${i}`);
    heads.put({ id: "ring", title: "a ring", created: time, updated: time, leaf: "r1" }, "ring");
    const message = { role: "user", text: "ring", created: time, status: "done", model: 5, tokens: "x", seed: {}, note: null };
    rows.put({ ...message, id: "r1", parent: "r2" }, ["ring", "r1"]);
    rows.put({ ...message, id: "r2", parent: "r1", created: time + 1 }, ["ring", "r2"]);
    rows.put({ ...message, id: "r3", parent: "none", created: time + 2 }, ["ring", "r3"]);
    for (const [i, value] of [...damaged, { ...message, id: "r4", parent: null, text: {} }, { ...message, id: "r5", parent: null, status: "x" }].entries()) rows.put(value, ["ring", `bad${i}`]);
    settings.put({ temperature: "hot", system: 7, lang: {}, max_tokens: -1 }, "all");
    await new Promise((resolve) => (writing.oncomplete = resolve));
    database.close();
  });
  await page.reload();
  await expect(answers(page)).toContainText("sound");
  await expect.poll(() => listed(page)).toEqual(["a ring", "say sound"]);
  await open(page, "a ring");
  await expect(page.locator(".said").first()).toHaveText("ring");
  await open(page, "say sound");
  // Another program clears everything: what is on the screen is written again with the next message.
  await page.evaluate(() => new Promise((resolve) => (indexedDB.deleteDatabase("inpage-conversations").onsuccess = resolve)));
  await ask(page, "say again");
  await ended(page, 2);
  await expect.poll(async () => (await messages(page)).map(({ text }) => text)).toEqual(["say sound", "sound", "say again", "again"]);
  await page.reload();
  await expect(answers(page)).toHaveCount(2);
  // What could not be written is written with what comes next; until then the page says that it is not kept.
  await page.evaluate(() => {
    const { put } = IDBObjectStore.prototype;
    Object.assign(globalThis, { mend: () => (IDBObjectStore.prototype.put = put) });
    IDBObjectStore.prototype.put = () => {
      throw new DOMException("no room", "QuotaExceededError");
    };
  });
  await ask(page, "say refused");
  await ended(page, 3);
  await expect(page.locator("#notice")).toContainText("This browser keeps nothing for this page");
  await page.evaluate(() => /** @type {any} */ (globalThis).mend());
  await page.getByRole("button", { name: "New chat" }).click();
  await ask(page, "say next");
  await expect.poll(async () => (await messages(page)).map(({ text }) => text)).toEqual(["say sound", "sound", "say again", "again", "say refused", "refused", "say next", "next"]);
  await expect(page.locator("#notice")).toBeHidden();
  // None at all: the page says so, and works.
  await page.addInitScript(() => Object.defineProperty(globalThis, "indexedDB", { get: () => undefined, configurable: true }));
  await page.reload();
  await expect(page.locator("#notice")).toContainText("This browser keeps nothing for this page");
  await ask(page, "say lost");
  await expect(answers(page)).toContainText("lost");
  await ask(page, "say kept until it closes");
  await ended(page, 2);
  // One that is there and refuses.
  await page.evaluate(() => Object.defineProperty(globalThis, "indexedDB", { value: { open: () => { throw new DOMException("refused", "SecurityError"); } } }));
  await page.locator("#open-storage").click();
  await expect(page.locator("#storage")).toContainText("No model is stored.");
});
