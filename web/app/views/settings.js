/** @file How answers are made, as a form. Empty is the model's default. */

import { button, make } from "../dom.js";
import { LANGUAGES, t } from "../i18n.js";
import { NONE, NUMBERS, OURS, schemaFault, WHOLE } from "../settings.js";
import { sheet } from "./sheet.js";

/**
 * @typedef {import("../types.js").Settings} Settings
 * @typedef {import("../i18n.js").Key} Key
 */

const FIELDS = /** @type {const} */ (["temperature", "top_p", "max_tokens", "max_repeats", "seed"]);
/** What is taken where nothing is given, in the reader's language. */
const placeholders = () => ({ temperature: t("models_own"), top_p: t("models_own"), max_tokens: String(OURS.max_tokens), max_repeats: String(OURS.max_repeats), seed: t("random") });

/**
 * @param {Settings} now
 * @param {(settings: Settings) => void} save
 */
export function editSettings(now, save) {
  const { dialog, body } = sheet("settings", t("settings"));
  const form = make("form", "settings");
  form.noValidate = false;
  const system = area("system", now.system, 4);
  const schema = area("schema", now.schema, 3);
  const bad = make("p", "notice bad");
  bad.setAttribute("role", "alert");
  bad.hidden = true;
  /** @type {Map<(typeof FIELDS)[number], HTMLInputElement>} */
  const numbers = new Map();
  const grid = make("div", "grid");
  const defaults = placeholders();
  for (const name of FIELDS) {
    const field = make("input", "");
    field.type = "number";
    [field.min, field.max] = NUMBERS[name].map(String);
    field.step = WHOLE.includes(name) ? "1" : "any";
    field.inputMode = WHOLE.includes(name) ? "numeric" : "decimal";
    field.value = now[name] === null ? "" : String(now[name]);
    field.placeholder = defaults[name];
    numbers.set(name, field);
    grid.append(labelled(name, field));
  }
  const language = make("select", "");
  language.append(new Option(t("language_browser"), ""), ...Object.entries(LANGUAGES).map(([value, name]) => new Option(name, value)));
  language.value = now.lang ?? "";
  grid.append(labelled("language", language));
  const row = make("div", "row end acts");
  const reset = button(t("reset"), "plain", () => {
    for (const field of [system, schema, ...numbers.values()]) field.value = "";
  });
  row.append(reset, make("button", "primary", t("save")));
  form.append(labelled("system", system), grid, labelled("schema", schema), bad, row);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const why = schemaFault(schema.value);
    if (why) {
      bad.hidden = false;
      bad.textContent = t("schema_wrong", { why });
      schema.focus();
      return;
    }
    const given = Object.fromEntries(FIELDS.map((name) => [name, numbers.get(name)?.value ? Number(numbers.get(name)?.value) : null]));
    const { model, level, backend, threads } = now;
    save({ ...NONE, ...given, system: system.value, schema: schema.value, lang: language.value || null, model, level, backend, threads });
    dialog.close();
  });
  body.append(form);
}

/** @param {string} name @param {string} value @param {number} rows */
function area(name, value, rows) {
  const field = make("textarea", name === "schema" ? "mono" : "");
  field.rows = rows;
  field.value = value;
  return field;
}

/** @param {"system" | "schema" | "language" | (typeof FIELDS)[number]} name @param {HTMLElement} field */
function labelled(name, field) {
  const label = make("label", "field");
  label.append(make("span", "field-name", t(`set_${name}`)), field, make("span", "quiet small", t(`help_${name}`)));
  field.id = `set-${name}`;
  return label;
}
