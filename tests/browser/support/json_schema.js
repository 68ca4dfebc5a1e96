/** @file A small checker of JSON against a schema, for the keywords that the tests use; it refuses those it does not know. */

/** @type {Record<string, (value: any) => boolean>} */
const TYPES = {
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  array: Array.isArray,
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number",
  integer: Number.isInteger,
  boolean: (value) => typeof value === "boolean",
  null: (value) => value === null,
};

/**
 * @param {any} value
 * @param {any} schema
 * @param {string} [at]
 * @returns {string[]} what is wrong
 */
export function problems(value, schema, at = "$") {
  const { type, enum: allowed, properties = {}, required = [], additionalProperties, items, ...rest } = schema;
  const { minItems = 0, maxItems = Infinity, minimum = -Infinity, maximum = Infinity, maxLength = Infinity, ...unknown } = rest;
  if (Object.keys(unknown).length) throw new Error(`the checker does not know ${Object.keys(unknown).join(", ")}`);
  if (allowed && !allowed.includes(value)) return [`${at}: ${value} is none of ${allowed}`];
  if (type && ![type].flat().some((each) => TYPES[each](value))) return [`${at}: ${JSON.stringify(value)} is no ${type}`];
  const found = [];
  if (typeof value === "number" && !(value >= minimum && value <= maximum)) found.push(`${at}: ${value} is out of range`);
  if (typeof value === "string" && [...value].length > maxLength) found.push(`${at}: longer than ${maxLength}`);
  if (Array.isArray(value)) {
    if (value.length < minItems || value.length > maxItems) found.push(`${at}: ${value.length} items`);
    if (items) found.push(...value.flatMap((item, i) => problems(item, items, `${at}[${i}]`)));
  } else if (TYPES.object(value)) {
    for (const name of required) if (!(name in value)) found.push(`${at}: no ${name}`);
    for (const [name, item] of Object.entries(value)) {
      if (properties[name]) found.push(...problems(item, properties[name], `${at}.${name}`));
      else if (additionalProperties === false) found.push(`${at}: ${name} is too much`);
    }
  }
  return found;
}
