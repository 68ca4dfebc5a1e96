/** @file Mutations of good documents, as mutate.py makes them: all of it follows from the seed. */

const DIGITS = "9".repeat(5000); // Python's `int` refuses more than 4,300
const NUMBERS = [
  0, -1, 1, 2, 255, 256, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, 2 ** 63, 0.5, -0, 1e308, -1e308, 5e-324, 1e15, -(2 ** 31),
];
const TEXTS = [
  "", " ", "\0", "\n", "a", "é", "😀", "\ud800", "\udfff x", "\u2028", "\ufeff", "\u{10ffff}", "null", "NaN", "Infinity", "1e999", "-0", DIGITS,
  `-${DIGITS}`, `1.${DIGITS}`, "٣", "x".repeat(5000), "<|im_end|>", "../../etc/passwd", "/", "__proto__", "constructor", "toString", "$ref", "#",
  "[".repeat(200), '{"a":'.repeat(200), "\\", "\\ud800", "http://[", "data:,x", "//x", "javascript:0", "%", "%zz", "a b", "é/ü",
];
const PLAIN = [null, true, false, [], {}, [[]], [null], { "": null }, { a: { b: {} } }];
const JSON_TEXTS = /** @type {const} */ (["0", "-1", "1e999", "-0", DIGITS, `1.${DIGITS}`, "null", "[]", "{}", '"\\ud800"', "[".repeat(150)]);

/** @param {string} text @returns {() => number} in [0, 1) */
export function random(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ (letter.codePointAt(0) ?? 0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @param {number} depth @param {boolean} list */
function nested(depth, list) {
  /** @type {any} */
  let value = 1;
  for (let i = 0; i < depth; i++) value = list ? [value] : { a: value };
  return value;
}

/** Of any depth. What is no plain list or object stays what it is. @param {any} value */
function copied(value) {
  const root = [value];
  /** @type {any[]} */
  const left = [root];
  for (let holder = left.pop(); holder; holder = left.pop()) {
    for (const key of Object.keys(holder)) {
      const inner = holder[key];
      if (isPlain(inner)) left.push((holder[key] = Array.isArray(inner) ? inner.slice() : { ...inner }));
    }
  }
  return root[0];
}

/** Objects that mutations put in and that no code here may touch. */
const wild = new WeakSet();

/** @param {unknown} value */
function isPlain(value) {
  if (typeof value !== "object" || value === null || wild.has(value)) return false;
  return Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype;
}

/** What no JSON text can hold, or reads otherwise than it looks. @type {(() => unknown)[]} */
const WILD = [
  () => 5n, () => 10n ** 400n, () => Symbol("x"), () => () => 1, () => undefined, () => NaN, () => Infinity, () => -Infinity, () => new Date(0),
  () => new Date(NaN), () => new Map([[1, 2]]), () => new Set([1]), () => /x/, () => new URL("http://a/"), () => Promise.resolve(1),
  () => new Uint8Array(9), () => Float32Array.of(0.5), () => BigInt64Array.of(5n), () => new DataView(new ArrayBuffer(4)), () => new ArrayBuffer(8),
  () => new Array(4e9), () => Object.assign(new Array(2 ** 20 + 5), { 7: "x" }), () => Object.create(null), () => new String("x"), () => Object(5),
  () => new (class Own {
    text = "x";
  })(), () => ({ toJSON: () => ({ toJSON: () => 1 }) }), () => ({ toJSON: () => 5n }), () => ({ toJSON: () => fail() }), () => ({ toString: () => fail() }),
  () => Object.defineProperty({}, "a", { enumerable: true, get: fail }), () => Object.defineProperty([1, 2], "1", { get: fail }),
  () => new Proxy({}, { ownKeys: fail }), () => new Proxy([], { get: fail }), () => new Proxy({}, { get: fail, getPrototypeOf: fail, has: fail }),
  () => new Proxy([], { get: (_, key) => (key === "length" ? 2 ** 40 : "x") }), () => new Proxy([], { get: () => "abc" }),
  () => new Proxy({ role: "user", content: "x" }, {}), () => new Proxy(["a"], {}), revoked, cyclic, shared, () => globalThis, () => new Error("x".repeat(5000)),
  () => ({ get [Symbol.toStringTag]() {
    return fail();
  } }), () => new Uint32Array(2 ** 21), () => fail, () => new AbortController().signal, () => new WeakMap(), () => (function* () {})(),
];

/** @returns {never} */
function fail() {
  throw [new TypeError("x".repeat(5000)), null, 5n, Symbol("thrown"), { toString: 5 }, new RangeError("Invalid array length")][fails++ % 6];
}
let fails = 0;

function revoked() {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

function cyclic() {
  /** @type {any} */
  const value = { list: [] };
  value.list.push(value, value);
  return value;
}

/** As many paths as a list of 2 ** 60 has. */
function shared() {
  /** @type {any} */
  let value = "x";
  for (let i = 0; i < 60; i++) value = [value, value];
  return value;
}

export class Mutator {
  #next;
  #wild;

  /** @param {() => number} next @param {boolean} isWild values that no JSON text can hold come too */
  constructor(next, isWild) {
    this.#next = next;
    this.#wild = isWild;
  }

  /** A whole number below. @param {number} n */
  draw(n) {
    return Math.floor(this.#next() * n);
  }

  /** @template T @param {readonly T[]} items @returns {T} */
  choice(items) {
    return items[this.draw(items.length)];
  }

  /** @param {number} share */
  chance(share) {
    return this.#next() < share;
  }

  /** A copy with some changes. @param {any} document @param {any[]} [others] whose parts may be put in @returns {any} */
  value(document, others = []) {
    const holder = [copied(document)];
    for (let i = this.choice([1, 1, 1, 2, 2, 3, 6]); i > 0; i--) this.#change(holder, others);
    return holder[0];
  }

  /** JSON text of a changed document; some texts are changed once more, as text. @param {any} document @param {any[]} [others] */
  json(document, others = []) {
    const isWild = this.#wild;
    this.#wild = false;
    let text = JSON.stringify(this.value(document, others));
    this.#wild = isWild;
    if (this.chance(0.15)) text = text.replace(/\d+/, () => this.choice(JSON_TEXTS));
    return this.chance(0.25) ? this.text(text) : text;
  }

  /** @param {string} text */
  text(text) {
    for (let i = this.choice([1, 1, 2, 4, 8]); i > 0; i--) {
      const [a, b] = this.#span(text.length);
      const [head, middle, tail] = [text.slice(0, a), text.slice(a, b), text.slice(b)];
      const how = this.draw(7);
      if (how === 0) text = head + tail;
      else if (how === 1) text = head + this.choice(TEXTS) + this.choice([middle, ""]) + tail;
      else if (how === 2) text = head + middle.repeat(this.choice([2, 3, 30])) + tail;
      else if (how === 3) text = head + String.fromCharCode(this.choice([0, 9, 34, 92, 123, 125, 0xd800, 0x2028])) + middle + tail;
      else if (how === 4) text = head;
      else if (how === 5) text = head + this.choice([..."0123456789"]).repeat(this.choice([1, 20, 5000])) + middle + tail;
      else text = head + tail.slice(0, tail.length >> 1);
    }
    return text;
  }

  /** @param {Uint8Array} data @returns {Uint8Array<ArrayBuffer>} */
  bytes(data) {
    let out = [...data];
    for (let i = this.choice([1, 1, 2, 4, 16]); i > 0; i--) {
      const [a, b] = this.#span(out.length);
      const how = this.draw(7);
      if (how === 0) out.splice(a, b - a);
      else if (how === 1) out.splice(a, 0, ...Array.from({ length: this.choice([1, 2, 8]) }, () => this.draw(256)));
      else if (how === 2) out = out.slice(0, a);
      else if (how === 3) for (let k = a; k < Math.min(out.length, a + this.choice([1, 2, 4, 8])); k++) out[k] = this.choice([0, 0x7f, 0x80, 0xff]);
      else if (how === 4) out.splice(b, 0, ...out.slice(a, b));
      else if (out.length) out[Math.min(a, out.length - 1)] ^= 1 << this.draw(8);
    }
    return Uint8Array.from(out);
  }

  /** @param {number} length @returns {[number, number]} */
  #span(length) {
    const a = this.draw(length + 1);
    return [a, Math.min(length, a + this.choice([0, 1, 1, 2, 4, 8, 40]))];
  }

  atom() {
    const kind = this.draw(this.#wild ? 16 : 10);
    if (kind < 3) return this.choice(NUMBERS);
    if (kind < 7) return this.choice(TEXTS);
    if (kind === 7) return nested(this.choice([20, 70, 101, this.#wild ? 3000 : 150]), this.chance(0.5));
    if (kind < 10) return copied(this.choice(PLAIN));
    const made = this.choice(WILD)();
    if (typeof made === "object" && made !== null) wild.add(made);
    return made;
  }

  /** @param {any[]} root @param {any[]} others */
  #change(root, others) {
    const found = places(root);
    const [holder, key] = this.chance(0.02) ? found[0] : this.choice(found);
    const old = holder[key];
    const inside = holder !== root;
    const how = this.draw(inside ? 7 : 4);
    if (how < 2) holder[key] = this.atom();
    else if (how === 2) this.#near(holder, key, old);
    else if (how === 3) {
      const source = [copied(others.length ? this.choice(others) : isPlain(holder) ? holder : old)];
      const [where, at] = this.choice(places(source));
      holder[key] = where[at];
    } else if (how === 4) {
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
    } else if (how === 5) {
      if (Array.isArray(holder)) holder.splice(Number(key), 0, copied(old));
      else set(holder, this.choice(TEXTS), copied(old));
    } else if (!Array.isArray(holder)) {
      delete holder[key];
      set(holder, this.text(key), old);
    }
  }

  /** A value of the same kind. @param {any} holder @param {string} key @param {any} old */
  #near(holder, key, old) {
    if (typeof old === "boolean" || old === null) holder[key] = !old;
    else if (typeof old === "number") holder[key] = this.choice([old + 1, old - 1, -old, old / 2, ...NUMBERS]);
    else if (typeof old === "string") holder[key] = this.text(old);
    else if (isPlain(old) && Array.isArray(old)) {
      const times = this.choice([0, 2, 20]);
      holder[key] = old.length < 100 ? Array.from({ length: times }, () => old).flat() : old.slice(0, 1);
    } else if (isPlain(old)) set(old, this.choice([...TEXTS, "type", "id", "name"]), this.atom());
    else holder[key] = this.atom();
  }
}

/** Also where the name is `__proto__`. @param {any} holder @param {string} key @param {unknown} value */
function set(holder, key, value) {
  Object.defineProperty(holder, key, { value, enumerable: true, configurable: true, writable: true });
}

/** Every place of a document: what holds it, and its key there. @param {any[]} root @returns {[any, string][]} */
function places(root) {
  /** @type {[any, string][]} */
  const found = [];
  const seen = new Set();
  /** @type {any[]} */
  const left = [root];
  for (let holder = left.pop(); holder && found.length < 20_000; holder = left.pop()) {
    if (seen.has(holder)) continue;
    seen.add(holder);
    for (const key of Object.keys(holder)) {
      found.push([holder, key]);
      if (isPlain(holder[key])) left.push(holder[key]);
    }
  }
  return found;
}
