/**
 * @file `node tests/fuzz/node/main.mjs --minutes 10`: every reader of JavaScript's in turn; `--documents 60` runs so many of
 * each, `--number` one. Readers run in a thread of their own, so that one that never ends is found.
 */

import { parseArgs } from "node:util";
import { inspect } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

import { documentOf, Fault, one } from "./harness.mjs";

const TURN = 200; // documents of a reader before the next one's
const SECONDS = 5;

const { values: given } = parseArgs({
  args: isMainThread ? process.argv.slice(2) : workerData.args,
  options: {
    minutes: { type: "string", default: "1" },
    seconds: { type: "string", default: String(SECONDS) },
    documents: { type: "string" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
    reader: { type: "string", multiple: true },
    number: { type: "string" },
    faulty: { type: "boolean", default: false },
  },
});
const seed = Number(given.seed);
/** @type {{READERS: import("./harness.mjs").Reader[]}} */
const { READERS } = await import(given.faulty ? "./faulty.mjs" : "./readers.mjs");
const chosen = READERS.filter(({ name }) => !given.reader || given.reader.includes(name));
/** Of each reader: how many documents were begun. Behind them: the reader that is at work. */
const counts = new Int32Array(isMainThread ? new SharedArrayBuffer(4 * (chosen.length + 1)) : workerData.counts);

/** @param {number} i @param {number} number */
function reproducer(i, number) {
  return `node tests/fuzz/node/main.mjs --reader ${chosen[i].name} --seed ${seed} --number ${number}${given.faulty ? " --faulty" : ""}`;
}

/** In the thread: until the time is over, or each has had its documents. */
async function work() {
  const end = Date.now() + Number(given.minutes) * 60_000;
  const most = chosen.map(({ share = 1 }) => (given.documents === undefined ? Infinity : Math.max(8, Math.floor(Number(given.documents) * share))));
  /** @param {string} fault */
  const tell = (fault) => parentPort?.postMessage({ i: counts[chosen.length], number: counts[counts[chosen.length]] - 1, fault });
  parentPort?.postMessage("begun");
  process.on("unhandledRejection", (error) => tell(`an unhandled rejection: ${inspect(error).slice(0, 2000)}`));
  for (let busy = true; busy && Date.now() < end; ) {
    busy = false;
    for (const [i, reader] of chosen.entries()) {
      counts[chosen.length] = i;
      const until = Date.now() + 5000;
      for (let n = 0; n < TURN && counts[i] < most[i] && Date.now() < Math.min(end, until); n++) {
        busy = true;
        const number = Atomics.add(counts, i, 1);
        try {
          await one(reader, seed, number);
        } catch (error) {
          if (!(error instanceof Fault)) throw error;
          tell(error.message);
        }
      }
      await new Promise(setImmediate); // lets what was left behind reject
    }
  }
}

/** In the main thread: starts that, and ends what does not end. @returns {Promise<number>} faults */
async function watch() {
  const faults = new Map();
  /** @param {number} i @param {number} number @param {string} fault */
  const told = (i, number, fault) => {
    const where = fault.split("\n").find((line) => /^\s+at .*\/web\//.test(line)) ?? fault.slice(0, 60);
    const kind = `${chosen[i].name} ${fault.slice(0, 22)} ${where}`;
    faults.set(kind, (faults.get(kind) ?? 0) + 1);
    if (faults.get(kind) === 1) console.log(`\nfuzz: ${chosen[i].name}: ${fault}\n  ${reproducer(i, number)}`);
  };
  const began = Date.now();
  let [last, cpu, wall] = ["", 0, 0];
  for (let ended = false; !ended; ) {
    const minutes = Math.max(0, Number(given.minutes) - (Date.now() - began) / 60_000);
    const worker = new Worker(new URL(import.meta.url), { workerData: { args: [...process.argv.slice(2), "--seed", given.seed, "--minutes", String(minutes)], counts: counts.buffer } });
    let begun = false; // what it takes to load the readers is none of theirs
    worker.on("message", (message) => {
      if (message === "begun") [begun, last] = [true, ""];
      else told(message.i, message.number, message.fault);
    });
    ended = await new Promise((resolve) => {
      const at = () => [counts[chosen.length], counts[counts[chosen.length]]];
      const timer = setInterval(() => {
        if (!begun) return;
        const used = process.cpuUsage();
        const [now, seconds] = [at().join(), (used.user + used.system) / 1e6];
        if (now !== last) [last, cpu, wall] = [now, seconds, Date.now()];
        if (seconds - cpu < Number(given.seconds) && Date.now() - wall < 12_000 * Number(given.seconds)) return;
        const [i, number] = at();
        told(i, number - 1, `no end within ${given.seconds} s`);
        begun = false;
        void worker.terminate();
      }, 100);
      worker.on("error", (error) => {
        const [i, number] = at();
        told(i, number - 1, `ended its thread: ${inspect(error).slice(0, 2000)}`);
      });
      worker.on("exit", (code) => {
        clearInterval(timer);
        resolve(code === 0);
      });
    });
  }
  const all = chosen.map(({ name }, i) => `${name} ${counts[i]}`);
  const sum = counts.subarray(0, chosen.length).reduce((total, n) => total + n, 0);
  console.log(`fuzz: ${sum} documents in JavaScript (${all.join(", ")}), ${faults.size} faults, seed ${seed}`);
  return faults.size;
}

if (given.number !== undefined) {
  for (const reader of chosen) {
    console.log(inspect(documentOf(reader, seed, Number(given.number)), { depth: 9 }).slice(0, 20_000));
    await one(reader, seed, Number(given.number));
  }
  process.exit(0);
} else if (isMainThread) process.exit((await watch()) ? 1 : 0);
else {
  await work();
  await new Promise((resolve) => setTimeout(resolve, 50)); // for what is posted
  process.exit(0); // whatever timers readers left behind
}
