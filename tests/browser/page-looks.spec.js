/**
 * @file The chat page as it is seen: every state on a desktop and on phones, in light and dark, for screen readers, in two
 * languages. With INPAGE_SLOW=1 the states are photographed into docs/page.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { answers, ask, expect, test } from "./support/chat_page.js";
import { TEXTS } from "../../web/app/texts.js";

/** @typedef {import("@playwright/test").Page} Page */

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const AXE = path.join(ROOT, "node_modules/axe-core/axe.min.js");
const PHONE = { width: 390, height: 844 };
/** A phone's scrollbars take no room, and it has no pointer that hovers. */
const DEVICES = { desktop: { viewport: { width: 1280, height: 800 } }, phone: { viewport: PHONE, isMobile: true, hasTouch: true } };
const SKY = `The sky is blue because air **scatters** short waves of light more than long ones ([Rayleigh](https://en.wikipedia.org/wiki/Rayleigh_scattering)).

| light | wavelength | scattered |
|:--|--:|:--|
| red | 700 nm | little |
| blue | 450 nm | much |

In numbers:

\`\`\`python
def scattered(wavelength, red=700):
    return (red / wavelength) ** 4  # by the fourth power

print(scattered(450))
\`\`\`

1. Blue light comes from *everywhere*.
2. Red light comes straight from the sun.`;

const [FIRST, SECOND, THIRD, LAST] = ["Hello!", "Why is the sky blue?", "Can it have another colour?", "And on Mars?"];

test.use({ actionTimeout: 20_000 });

/** @param {Page} page @param {string} state */
async function sound(page, state) {
  // Colours are those that stand after a transition.
  await page.evaluate(() => Promise.all(document.getAnimations().map((each) => (each instanceof CSSTransition ? each.finished.catch(() => {}) : null))));
  const found = await page.evaluate(
    async () => {
      const scope = /** @type {any} */ (globalThis);
      const { violations } = await scope.axe.run(document, { resultTypes: ["violations"] });
      const wide = document.documentElement.scrollWidth - innerWidth;
      return [...violations.map((/** @type {any} */ { id, nodes }) => `${id}: ${nodes.map((/** @type {any} */ { html }) => html.slice(0, 120)).join(" ")}`), ...(wide > 0 ? [`${wide} px too wide`] : [])];
    },
  );
  expect(found, state).toEqual([]);
}

/** @typedef {(state: string) => Promise<void>} Seen */

/**
 * Every state of the page.
 * @param {Page} page
 * @param {(query?: string, script?: object) => Promise<Page>} open
 * @param {Seen} seen
 */
async function states(page, open, seen) {
  const narrow = (page.viewportSize()?.width ?? 0) < 900;
  const list = async () => {
    if (narrow) await page.locator("#open-list").click();
  };
  const close = () => page.keyboard.press("Escape");
  await open("", { waits: true, answers: { [FIRST]: "Hello! Ask me anything.", [SECOND]: SKY, [THIRD]: "<think>\nA short answer will do.\n</think>\n\nYes: at sunset it is red." }, holds: SECOND, dies: LAST });
  await expect(page.getByRole("button", { name: "Download 97 MB and start" })).toBeVisible();
  await seen("first");
  await ask(page, FIRST);
  await expect(page.locator("#notice")).toContainText("Your question is kept");
  await seen("waits");
  await page.getByRole("button", { name: "Download 97 MB and start" }).click();
  await expect(page.locator("#load-bytes")).toHaveText("40 MB of 97 MB");
  await seen("loading");
  await page.evaluate(() => /** @type {any} */ (globalThis).script.go());
  await expect(page.locator(".message.assistant .actions")).toHaveCount(1);
  await ask(page, SECOND);
  await page.waitForFunction(() => /** @type {any} */ (globalThis).script.held);
  await expect(answers(page).last()).toContainText("Rayleigh");
  await seen("writing");
  await page.evaluate(() => /** @type {any} */ (globalThis).script.release());
  await expect(page.locator(".message.assistant .actions")).toHaveCount(2);
  await expect(answers(page).last().locator("li")).toHaveCount(2);
  await seen("answer");
  await ask(page, THIRD);
  await expect(page.locator(".message.assistant .actions")).toHaveCount(3);
  await page.locator(".message.user").last().getByRole("button", { name: "Edit" }).click();
  await seen("edit");
  await close();
  await list();
  await page.locator("#conversations .menu summary").first().click();
  await seen("list");
  await close();
  if (narrow) await close();
  await page.locator("#engine").click();
  await expect(page.locator("#facts")).toContainText("tokens/s");
  await seen("details");
  await close();
  await page.locator("#model").click();
  await expect(page.locator("#models .fit").last()).toContainText("memory");
  await seen("models");
  await close();
  await page.locator("#open-settings").click();
  await seen("settings");
  await close();
  await list();
  await page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-files", { create: true });
    for (const [hash, bytes] of /** @type {const} */ ([["a", 300_000], ["b", 200_000]])) {
      const file = await (await folder.getFileHandle(`${hash.repeat(64)}.bin`, { create: true })).createWritable();
      await file.write(new Uint8Array(bytes));
      await file.close();
      if (hash === "a") await (await (await folder.getFileHandle(`${hash.repeat(64)}.json`, { create: true })).createWritable()).close();
    }
  });
  await page.locator("#open-storage").click();
  await expect(page.locator("#storage meter")).toBeVisible();
  await page.locator("#storage .stored-model summary").first().click();
  await seen("storage");
  await close();
  if (narrow) await close();
  await ask(page, LAST);
  await expect(page.getByRole("alert")).toContainText("has to be loaded again");
  await seen("failed");
}

for (const [name, colorScheme] of /** @type {const} */ ([["desktop", "light"], ["phone", "dark"]])) {
  test.describe(() => {
    test.use(DEVICES[name]);
    test(`every state is accessible and as wide as its window: ${name}, ${colorScheme}`, async ({ page, open }) => {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.addInitScript({ path: AXE });
      await states(page, open, (state) => sound(page, state));
    });
  });
}

/** @param {Page} darkroom a page without a policy @param {Buffer} png @returns {Promise<Buffer>} small */
async function webp(darkroom, png) {
  const url = await darkroom.evaluate(async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.72);
  }, `data:image/png;base64,${png.toString("base64")}`);
  return Buffer.from(url.slice(url.indexOf(",") + 1), "base64");
}

for (const [name, device] of process.env.INPAGE_SLOW ? Object.entries(DEVICES) : []) {
  test.describe(() => {
    test.use(device);
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      test(`photographs: ${name}, ${colorScheme}`, async ({ page, context, open }) => {
        const darkroom = await context.newPage();
        mkdirSync(path.join(ROOT, "docs/page"), { recursive: true });
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await page.clock.setFixedTime(new Date("2026-03-14T15:09:00")); // so that they are the same as before where nothing has changed
        await states(page, open, async (state) => {
          await page.mouse.move(0, 0);
          const photo = await page.screenshot({ animations: "disabled", caret: "hide" });
          writeFileSync(path.join(ROOT, `docs/page/${name}-${colorScheme}-${state}.webp`), await webp(darkroom, photo));
        });
      });
    }
  });
}

test("nothing lies under the foot on a phone, upright, on its side, at 320 pixels, and with the dialogs open", async ({ page, open }) => {
  // The first screen begins at its beginning, though it has no room; in the header nothing lies over its buttons.
  await page.setViewportSize({ width: 667, height: 320 });
  await open("");
  const start = page.getByRole("button", { name: "Download 97 MB and start" });
  await expect(start).toBeVisible();
  await expect(page.getByRole("heading", { level: 2 })).toBeInViewport({ ratio: 1 });
  for (const id of ["new-top", "open-settings", "engine", "model"]) await page.locator(`#${id}`).click({ trial: true });
  await start.click();
  await page.setViewportSize(PHONE);
  await ask(page, `say ${SKY}\n\n${SKY}`);
  await expect(page.locator(".message.assistant .actions")).toHaveCount(1);
  await expect(answers(page).locator("li")).toHaveCount(4);
  /** How far the last line's end is above the foot, and how much of the conversation is seen. */
  const places = () => page.evaluate(() => {
    const [last, foot, scroll] = [".message.assistant .actions", "footer", "#scroll"].map((each) => /** @type {Element} */ (document.querySelector(each)).getBoundingClientRect());
    return { above: foot.top - last.bottom, height: scroll.height, inside: foot.bottom <= innerHeight && document.documentElement.scrollWidth <= innerWidth };
  });
  expect((await places()).above).toBeGreaterThanOrEqual(0);
  for (const [viewport, least] of /** @type {const} */ ([[{ width: 667, height: 320 }, 180], [{ width: 320, height: 568 }, 350], [PHONE, 600]])) {
    await page.setViewportSize(viewport);
    await expect.poll(async () => (await places()).above).toBeGreaterThanOrEqual(0);
    const { height, inside } = await places();
    expect(height, JSON.stringify(viewport)).toBeGreaterThan(least);
    expect(inside).toBe(true);
    for (const id of ["engine", "model", "open-settings"]) {
      await page.locator(`#${id}`).click();
      const [dialog, button] = [await page.locator("dialog").boundingBox(), await page.getByRole("button", { name: "Close" }).boundingBox()];
      for (const box of [dialog, button]) {
        expect(box && box.x >= 0 && box.y >= 0 && box.x + box.width <= viewport.width + 0.5 && box.y + box.height <= viewport.height + 0.5, `${id} ${JSON.stringify(viewport)}`).toBe(true);
      }
      await page.keyboard.press("Escape");
    }
    expect((await places()).height).toBe(height); // a dialog pushes nothing
  }
  // Who reads further up is left there.
  await page.locator("#scroll").evaluate((scroll) => (scroll.scrollTop = 0));
  await expect(page.getByRole("button", { name: "To the end" })).toBeVisible();
  await page.setViewportSize({ width: 390, height: 700 });
  expect(await page.locator("#scroll").evaluate(({ scrollTop }) => scrollTop)).toBe(0);
  await page.getByRole("button", { name: "To the end" }).click();
  await expect.poll(async () => (await places()).above).toBeGreaterThanOrEqual(0);
});

test("plain words: what runs, what is slow, what can be chosen; settings are in the request, and but for what a person wrote in the address", async ({ page, open }) => {
  const candidates = [
    { variant: "webgpu-f32", backend: "webgpu", running: true, can_run: true, reason: "", decode_tps: 0.13, prefill_tps: 2, fault: "" },
    { variant: "wasm-relaxed", backend: "wasm", running: false, can_run: true, reason: "", decode_tps: 12.4, prefill_tps: 40, fault: "" },
    { variant: "native", backend: "native", running: false, can_run: false, reason: "runs in CPython only", decode_tps: null, prefill_tps: null, fault: "" },
  ];
  await page.addInitScript(() => Object.defineProperty(Navigator.prototype, "deviceMemory", { get: () => 8 }));
  /** @type {string[]} */
  const sent = [];
  page.on("request", (request) => sent.push(request.isNavigationRequest() ? "" : JSON.stringify([request.url(), request.headers()])));
  await open("?start&backend=webgpu&system=by%20hand", { info: { backend: "webgpu", variant: "webgpu-f32", candidates } });
  await expect(page.locator("#engine")).toHaveText("Graphics card");
  await expect(page.locator("#notice")).toContainText("writes only 0.1 tokens a second. The processor is likely to be faster.");
  await page.locator("#engine").click();
  await expect(page.locator("#details .plainly")).toHaveText("It runs on your graphics card. It writes about 0.1 tokens a second. Your processor was measured too: 12 tokens a second.");
  expect(await page.getByLabel("Run on").locator("option").allTextContents()).toEqual(["the fastest, as measured", "webgpu-f32 · 0.1 tokens/s", "wasm-relaxed · 12 tokens/s"]);
  await expect(page.locator("#details td").filter({ hasText: "runs in CPython only" })).toBeVisible();
  await page.keyboard.press("Escape");
  // Twice: the second start waits as well until what ran before is gone.
  await page.getByRole("button", { name: "Use the fastest" }).evaluate((button) => [1, 2].forEach(() => /** @type {HTMLElement} */ (button).click()));
  await expect(page.locator("#engine")).toHaveAttribute("data-state", "ready");
  await expect.poll(() => page.evaluate(() => /** @type {any} */ (globalThis).script.starts.at(-1).backend ?? null)).toBe(null);
  expect(new URL(page.url()).searchParams.has("backend")).toBe(false);

  await page.locator("#open-settings").click();
  await expect(page.getByLabel("System prompt")).toHaveValue("by hand");
  await page.getByLabel("System prompt").fill("be kind");
  await expect(page.getByLabel("Temperature")).toHaveAttribute("placeholder", "the model's own");
  await expect(page.getByLabel("Temperature")).toHaveAttribute("max", "2"); // of the router
  await page.getByLabel("Temperature").fill("0.2");
  await page.getByLabel("Length").fill("50");
  await page.getByLabel("JSON schema").fill("{");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await expect(page.locator("#settings [role=alert]")).toContainText("The schema is no JSON");
  await page.getByLabel("JSON schema").fill('{"type": "object"}');
  await page.getByRole("button", { name: "Save", exact: true }).click();
  expect(Object.fromEntries(new URL(page.url()).searchParams)).toEqual({ start: "", temperature: "0.2", max_tokens: "50", model: "small" });
  await ask(page, 'say {"a": 1}');
  await expect(answers(page).locator(".code-language")).toHaveText("json");
  const [request] = await page.evaluate(() => /** @type {any} */ (globalThis).script.asked);
  expect(request).toMatchObject({ messages: [{ role: "system", content: "be kind" }, {}], params: { temperature: 0.2, max_tokens: 50, max_repeats: 8, schema: { type: "object" } } });
  expect(request.params).not.toHaveProperty("top_p"); // the model's own

  await page.locator("#model").click();
  const large = page.locator("#models .card").filter({ hasText: "Large-7B · q4_14.1 GB · perplexity 2.7 % above the original’s · reads 32,768 tokens · MIT" });
  await expect(page.locator("#models .fit")).toHaveClass(["fit fits", "fit not", "fit tight"]);
  await expect(large.locator(".fit")).toContainText("It will be tight: it takes about 4.5 GB of memory");
  await large.getByRole("button", { name: "Download 4.1 GB and use" }).click();
  await expect(page.locator("#model-name")).toHaveText("Large-7B · q4_1");
  await expect.poll(() => page.evaluate(() => /** @type {any} */ (globalThis).script.starts.at(-1).model)).toBe("large#q4_1");
  await expect(page.locator(".message")).toHaveCount(2);
  expect(new URL(page.url()).searchParams.get("level")).toBe("q4_1");
  // What was chosen is there on the next visit, without the address.
  await page.goto(page.url().split("?")[0]);
  await expect(page.locator("#model-name")).toHaveText("Large-7B · q4_1");
  await page.locator("#open-settings").click();
  await expect(page.getByLabel("System prompt")).toHaveValue("be kind");
  await expect(page.getByLabel("JSON schema")).toHaveValue('{"type": "object"}');
  // No server was told, not even by where a request comes from.
  expect(sent.length).toBeGreaterThan(20);
  expect(sent.filter((each) => /by(%20|\+| )hand|be(%20|\+| )kind|schema=/.test(each))).toEqual([]);
});

test("English and German have the same words with the same places to fill, and the page is German where it is asked for", async ({ page, open }) => {
  const holes = (/** @type {string} */ text) => (text.match(/\{\w+\}/g) ?? []).sort();
  expect(Object.keys(TEXTS.de)).toEqual(Object.keys(TEXTS.en));
  for (const [key, english] of Object.entries(TEXTS.en)) {
    const german = TEXTS.de[/** @type {keyof typeof TEXTS.de} */ (key)];
    expect(german.trim(), key).not.toBe("");
    expect(holes(german), key).toEqual(holes(english));
  }
  await open("?start&lang=de");
  expect(await page.evaluate(() => document.documentElement.lang)).toBe("de");
  await expect(page.getByRole("heading", { level: 2 })).toHaveText(TEXTS.de.hello);
  await expect(page.locator("#engine")).toHaveText("Prozessor · 2 Threads");
  await expect(page.getByLabel("Nachricht", { exact: true })).toHaveAttribute("placeholder", "Frag etwas");
  // Of the markup nothing stays English.
  const same = Object.values(TEXTS.en).filter((text) => Object.values(TEXTS.de).includes(text));
  const shown = await page.evaluate(() => [...document.querySelectorAll("[data-t], [data-label]")].map((each) => [each.getAttribute("data-t") ?? "", each.textContent?.trim() ?? "", each.ariaLabel ?? ""]));
  const english = new Set(Object.values(TEXTS.en).filter((text) => !same.includes(text)));
  expect(shown.filter(([, text, label]) => english.has(text) || english.has(label))).toEqual([]);
});

test("the storage screen lists files by model, level and part, and deletes those of one", async ({ page, chatServer, open }) => {
  const [small, level] = ["a", "b"].map((letter) => letter.repeat(64));
  /** @param {string} sha256 @param {object} more */
  const manifest = (sha256, more = {}) => Buffer.from(JSON.stringify({ weights: { bytes: 1000, shards: [{ file: "weights/0.bin", offset: 0, bytes: 600, sha256 }, { file: "weights/1.bin", offset: 600, bytes: 400, sha256: "f".repeat(64) }] }, ...more }));
  chatServer.fault("/models/small/manifest.json", { status: 200, body: manifest(small), always: true });
  chatServer.fault("/models/large/manifest.json", { status: 200, body: manifest("e".repeat(64), { levels: [{ name: "q8_0" }, { name: "q4_1", manifest: { file: "manifest-q4_1.json" } }] }), always: true });
  chatServer.fault("/models/large/manifest-q4_1.json", { status: 200, body: manifest(level), always: true });
  await open("");
  await page.evaluate(async (names) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-files", { create: true });
    for (const name of names) {
      const file = await (await folder.getFileHandle(name, { create: true })).createWritable();
      await file.write(new Uint8Array(name.endsWith(".bin") ? 600 : 2));
      await file.close();
    }
  }, [`${small}.bin`, `${small}.json`, `${level}.bin`, `${"c".repeat(64)}.bin`]);
  await page.reload();
  await page.locator("#open-storage").click();
  const groups = page.locator("#storage .stored-model");
  await expect(groups.locator("summary")).toHaveText(["Small-135M0.0 MB of 0.0 MB", "Large-7B · q4_10.0 MB of 0.0 MB", "Of other models0.0 MB"]);
  await groups.nth(1).locator("summary").click();
  await expect(groups.nth(1).locator("li")).toHaveText([/^Part 1 · 0\.0 MB · not whole yet · bbbbbbbbbbbb$/]);
  await page.getByRole("button", { name: "Delete: Large-7B · q4_1" }).click();
  await expect(groups).toHaveCount(2);
  const left = await page.evaluate(async () => {
    const { storage } = await import(/** @type {string} */ ("/client/storage.js"));
    const wrong = await storage.deleteFiles(["../x"]).catch((/** @type {any} */ { code, field }) => ({ code, field }));
    return [(await storage.files()).map((/** @type {any} */ { sha256, bytes, whole }) => [sha256[0], bytes, whole]).sort(), wrong];
  });
  expect(left).toEqual([[["a", 600, true], ["c", 600, false]], { code: "invalid_request", field: "hashes" }]);
});
