// The chat page's beginning: what the site holds, what the address and this browser say, and which control does what.
import { siteDescription } from "./model/site.js";
import { element } from "./dom.js";
import { speak } from "./i18n.js";
import { Page } from "./page.js";
import { offerInstall, register } from "./pwa.js";
import { loadParser } from "./render/lexed.js";
import { fromAddress, readSettings, schemaFault } from "./settings.js";
import { storedSettings } from "./data/store.js";
import { Composer } from "./views/composer.js";
import { Notices } from "./views/notices.js";

const query = new URLSearchParams(location.search);
const composer = new Composer();

async function begin() {
  /** @type {() => void} */
  let tell = () => {};
  const shown = new Promise((resolve) => (tell = () => resolve(undefined)));
  // First: a later version that waits already is taken before anything is loaded.
  const registered = register(() => void shown.then(() => page.newVersion()));
  const given = fromAddress(query);
  speak(given.lang ?? null);
  const kept = readSettings(await storedSettings());
  const site = await siteDescription();
  const settings = { ...kept, ...given };
  const chosen = site.models.find(({ id }) => id === settings.model) ?? site.models[0];
  const level = chosen.levels.some(({ name }) => name === settings.level) ? settings.level : null;
  const page = new Page(site, { ...settings, model: chosen.id, level }, composer);
  bind(page);
  void loadParser();
  tell();
  await registered;
  await page.begin(query.has("start"));
  if (given.model && given.model !== chosen.id) page.unknown("unknown_model", given.model);
  else if (given.level && given.level !== level) page.unknown("unknown_level", given.level);
  const why = schemaFault(query.get("schema") ?? "");
  if (why) page.schemaWrong(why);
}

/** @param {Page} page */
function bind(page) {
  /** @type {Record<string, () => unknown>} */
  const clicks = {
    new: () => page.fresh(),
    "new-top": () => page.fresh(),
    model: () => page.pickModel(),
    engine: () => page.showDetails(),
    "open-settings": () => page.editSettings(),
    "open-storage": () => page.showStorage(),
    "export-all": () => page.exportAll(),
    import: () => file.click(),
  };
  const file = element("import-file", HTMLInputElement);
  file.addEventListener("change", () => {
    if (file.files?.[0]) void page.importFile(file.files[0]);
    file.value = "";
  });
  for (const [id, act] of Object.entries(clicks)) element(id, HTMLButtonElement).addEventListener("click", () => void act());
}

offerInstall();
begin().catch((error) => new Notices(() => location.reload()).error(error, true));
