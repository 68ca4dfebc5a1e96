/**
 * @file Tokenizer and chat template over their libraries, for host.js in the router worker and for text_worker.js, which
 * does the same beside it. A template is untrusted: what it may do is counted.
 */

import { Interpreter, Template } from "../vendor/jinja/jinja.js";
import { Tokenizer } from "../vendor/tokenizers/tokenizers.js";
import { object } from "../engine/format/check.js";
import { EngineError, invalidArtifact } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";
import { RENDER_CHARS, RENDER_ITEMS, RENDER_STEPS, RENDER_STEPS_PER_MESSAGE } from "../engine/format/limits.js";

/** @typedef {{ids: Int32Array, counts: Int32Array}} Encoded ids of several texts behind each other, and how many each has */

/**
 * @typedef {{model?: {vocab?: unknown, merges?: unknown}} & Record<string, unknown>} Description a tokenizer.json, parsed
 */

/**
 * A tokenizer.json, parsed once. Its outline goes to Python, which has it made as it says then.
 * @param {string} text
 * @param {number} characters at most
 * @param {number} items values at most
 * @param {number} depth at most
 * @returns {{outline: string, described(changed: string): Description}} outline: all of it but merges, and of the
 *   vocabulary the longest text with the largest id, all of it where tokens spell bytes out; described: `changed`, an
 *   outline with changes and more tokens, and the rest as it was
 */
export function outlined(text, characters, items, depth) {
  const whole = /** @type {Description} */ (object(parsed(text, "tokenizer.file", { characters, items, depth }), "tokenizer.file"));
  const model = whole.model ? object(whole.model, "tokenizer.model") : undefined;
  if (!model) return { outline: text, described: (changed) => JSON.parse(changed) };
  const { vocab, merges } = model;
  const list = Array.isArray(vocab);
  const named = list ? {} : object(vocab ?? {}, "tokenizer.model.vocab");
  const texts = list ? vocab.map((entry) => entry?.[0]) : Object.keys(named);
  const longest = longestOf(texts);
  const ids = Object.values(named).map(Number);
  const short = list ? [[longest, 0]] : { [longest]: ids.reduce((most, id) => Math.max(most, id), 0) };
  const spelled = JSON.stringify(whole.decoder ?? null).includes('"ByteFallback"');
  const outline = { ...whole, model: { ...model, vocab: spelled ? vocab : short, merges: [] } };
  return {
    outline: JSON.stringify(outline),
    described: (changed) => {
      const description = JSON.parse(changed);
      const all = list ? vocab : { ...description.model.vocab, .../** @type {object} */ (vocab) };
      return { ...description, model: { ...description.model, vocab: all, merges } };
    },
  };
}

/** By characters, as Python counts them. @param {unknown[]} texts @returns {string} */
function longestOf(texts) {
  let longest = "";
  let most = 0;
  for (const text of texts) {
    if (typeof text !== "string") throw invalidArtifact("must hold texts", "tokenizer.model.vocab");
    if (text.length <= most) continue;
    const count = [...text].length;
    if (count > most) [longest, most] = [text, count];
  }
  return longest;
}

/**
 * @param {Description} description
 * @returns {{encode(texts: string[]): Encoded, decode(ids: number[]): string}}
 */
export function tokenizer(description) {
  const library = new Tokenizer(description, {});
  return {
    encode: (texts) => {
      const lists = texts.map((text) => library.encode(text, { add_special_tokens: false }).ids);
      return { ids: Int32Array.from(lists.flat()), counts: Int32Array.from(lists, (ids) => ids.length) };
    },
    decode: (ids) => library.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false }),
  };
}

/**
 * @param {string} source of a chat template
 * @returns {(variables: string) => string} variables as JSON
 */
export function template(source) {
  const parsed = new Template(source);
  return (variables) => {
    const given = JSON.parse(variables);
    const outer = budget;
    budget = { steps: RENDER_STEPS + RENDER_STEPS_PER_MESSAGE * (given.messages?.length ?? 0), range: null };
    try {
      return parsed.render(given);
    } finally {
      budget = outer;
    }
  };
}

/** What the render under way may still do; `range` is its global function. @type {{steps: number, range: unknown} | null} */
let budget = null;

/** Characters, and items of a list that is made, that cost as much as a step. */
const STEP_CHARS = 64;
const STEP_ITEMS = 8;
const STEPS_A_TURN = 10;

/** @param {string} what @returns {EngineError} */
function tooMuch(what) {
  return new EngineError("artifact_invalid", `chat_template: it makes ${what} of these messages: it does not end, or is damaged`, "chat_template");
}

// The library has no bounds of its own, and its own entry point makes the interpreter: so its methods are wrapped.
const interpreter = /** @type {any} */ (Interpreter.prototype);
const { run, evaluate, evaluateBlock, evaluateCallExpression } = interpreter;

interpreter.run = function (/** @type {unknown} */ program) {
  if (budget) budget.range = this.global.lookupVariable("range").value;
  return run.call(this, program);
};

/** @param {number} steps */
function spend(steps) {
  if (budget && (budget.steps -= steps) < 0) throw tooMuch("too many steps");
}

// A turn of a loop is a block, even where it is empty, and makes maps of what it knows.
interpreter.evaluateBlock = function (/** @type {unknown} */ statements, /** @type {unknown} */ environment) {
  spend(STEPS_A_TURN);
  return evaluateBlock.call(this, statements, environment);
};

interpreter.evaluate = function (/** @type {unknown} */ statement, /** @type {unknown} */ environment) {
  spend(1);
  const found = evaluate.call(this, statement, environment);
  const { value } = found;
  if (budget && typeof value === "string") {
    spend(Math.floor(value.length / STEP_CHARS));
    if (value.length > RENDER_CHARS) throw tooMuch(`more than ${RENDER_CHARS} characters`);
  } else if (budget && Array.isArray(value) && value.length > RENDER_ITEMS) throw tooMuch("too long a list");
  return found;
};

interpreter.evaluateCallExpression = function (/** @type {any} */ expression, /** @type {unknown} */ environment) {
  if (budget && evaluate.call(this, expression.callee, environment).value === budget.range) {
    const [args] = this.evaluateArguments(expression.args, environment);
    const [first, second] = args.map((/** @type {{value: unknown}} */ { value }) => Number(value));
    const [start, stop] = second === undefined ? [0, first] : [first, second];
    const items = Math.abs(stop - start);
    if (items > RENDER_ITEMS) throw tooMuch("too long a list");
    spend(items / STEP_ITEMS);
  }
  return evaluateCallExpression.call(this, expression, environment);
};
