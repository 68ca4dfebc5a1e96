/**
 * @file What a caller hands to step and run, checked against the plan's maxima and the pages reserved, so that a wrong
 * batch is an invalid_request and never a write into someone else's KV pages.
 */

import { MAX_STOP, SEQUENCE, SEQUENCE_WORDS } from "../format/abi.js";
import { maskWords, MAX_BIAS_PAIRS } from "../format/batch_limits.js";
import { EngineError } from "../format/errors.js";

/**
 * @param {import("./protocol.js").StepInput} input
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} pages reserved
 * @returns {number} sequences in the batch
 */
export function checkBatch(input, plan, pages) {
  const { tokenIds, positions, rowSequence, blockTables, logitRows, targets, sample } = input;
  const { maxima, vocab } = plan;
  const rows = tokenIds.length;
  check(rows > 0 && rows <= maxima.rows, "tokenIds", `has ${rows} rows, must be 1 to ${maxima.rows}`);
  check(positions.length === rows, "positions", "must be as long as tokenIds");
  check(rowSequence.length === rows, "rowSequence", "must be as long as tokenIds");
  const sequences = countSequences(blockTables, plan);
  const { length: nLogits } = logitRows;
  check(nLogits <= maxima.logit_rows, "logitRows", `has ${nLogits} rows, at most ${maxima.logit_rows}`);

  const reach = new Int32Array(sequences).fill(-1);
  for (let row = 0; row < rows; row++) {
    check(within(tokenIds[row], vocab), "tokenIds", `row ${row}: no token has id ${tokenIds[row]}`);
    check(within(positions[row], maxima.context), "positions", `row ${row}: ${positions[row]} is outside the context`);
    check(within(rowSequence[row], sequences), "rowSequence", `row ${row}: no sequence ${rowSequence[row]}`);
    if (positions[row] > reach[rowSequence[row]]) reach[rowSequence[row]] = positions[row];
  }
  if (plan.paged) for (let i = 0; i < sequences; i++) checkPages(blockTables, i, reach[i] + 1, plan, pages);
  else checkWhole(input, sequences, maxima.context);
  check(plan.paged || !(sample?.length || targets?.length), "logitRows", "an encoder gives vectors, of which no token is chosen");
  for (let i = 0; i < nLogits; i++) check(within(logitRows[i], rows), "logitRows", `no row ${logitRows[i]}`);
  if (targets) {
    check(targets.length <= nLogits, "targets", "must not be longer than logitRows");
    for (const id of targets) check(id === -1 || within(id, vocab), "targets", `no token has id ${id}`);
  }
  if (sample) check(sample.length <= nLogits * SEQUENCE_WORDS, "sample", "must not have more sequences than logitRows");
  return sequences;
}

/**
 * @param {import("./protocol.js").RunInput} input
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} pages reserved
 */
export function checkTables(input, plan, pages) {
  const { sequences, n, blockTables, maxSteps } = input;
  check(plan.paged, "sequences", "an encoder has no bursts");
  check(Number.isInteger(maxSteps) && maxSteps > 0, "maxSteps", "must be at least 1");
  check(countSequences(blockTables, plan) === n, "blockTables", `must have a row for each of ${n} sequences`);
  check(sequences.length === n * SEQUENCE_WORDS, "sequences", `must hold ${n} structs`);
  check(n <= plan.maxima.logit_rows && n <= plan.maxima.rows, "n", "is more than the plan takes rows");
  for (let i = 0; i < n; i++) {
    const at = i * SEQUENCE_WORDS;
    if (sequences[at + SEQUENCE.finished] !== 0 || sequences[at + SEQUENCE.remaining] <= 0) continue;
    const token = sequences[at + SEQUENCE.token];
    const position = sequences[at + SEQUENCE.position];
    const reserved = sequences[at + SEQUENCE.reserved];
    check(within(token, plan.vocab), "sequences", `${i}: no token has id ${token}`);
    check(within(position, plan.maxima.context), "sequences", `${i}: position ${position} is outside the context`);
    check(reserved <= plan.maxima.context, "sequences", `${i}: reserved ${reserved} is outside the context`);
    checkPages(blockTables, i, reserved, plan, pages);
  }
}

/**
 * What a step without a KV cache is told: which of its rows are whose. Kernels follow it.
 * @param {import("./protocol.js").StepInput} input
 * @param {number} sequences
 * @param {number} context kernels have room for so many scores of a row
 */
function checkWhole({ positions, rowSequence, blockTables }, sequences, context) {
  const rows = positions.length;
  let counted = 0;
  for (let i = 0; i < sequences; i++) {
    const [first, count, segment] = blockTables.subarray(3 * i, 3 * i + 3);
    const fine = first >= 0 && count > 0 && first <= rows - count && segment >= 0 && segment <= count;
    check(fine, "blockTables", `sequence ${i}: rows ${first} to ${first + count - 1}, ${segment} before the second segment`);
    check(count <= context, "blockTables", `sequence ${i} has ${count} rows, the context ${context}`);
    counted += count;
  }
  // As each row is its sequence's, below, none is two sequences'.
  check(counted === rows, "blockTables", `has ${counted} rows of sequences, the step ${rows}`);
  for (let row = 0; row < rows; row++) {
    const first = blockTables[3 * rowSequence[row]];
    const own = row >= first && row < first + blockTables[3 * rowSequence[row] + 1];
    check(own && positions[row] === row - first, "positions", `row ${row} is not its sequence's at ${positions[row]}`);
  }
}

/**
 * The structs' references into the bias and mask tables, and what they count.
 * @param {Int32Array} sequences
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} biasWords
 * @param {number} maskWordsGiven
 */
export function checkSequences(sequences, plan, biasWords, maskWordsGiven) {
  const n = sequences.length / SEQUENCE_WORDS;
  const words = maskWords(plan.vocab);
  check(Number.isInteger(n) && n <= plan.maxima.sequences, "sequences", `must be 0 to ${plan.maxima.sequences} structs`);
  check(biasWords <= MAX_BIAS_PAIRS * 2, "bias", `has more than ${MAX_BIAS_PAIRS} pairs`);
  check(maskWordsGiven <= plan.maxima.sequences * words, "mask", `has more than ${plan.maxima.sequences} masks`);
  for (let i = 0; i < n; i++) {
    const at = i * SEQUENCE_WORDS;
    const nBias = sequences[at + SEQUENCE.n_bias];
    const bias = sequences[at + SEQUENCE.bias];
    const mask = sequences[at + SEQUENCE.mask];
    check(within(sequences[at + SEQUENCE.n_stop], MAX_STOP + 1), "sequences", `${i}: at most ${MAX_STOP} stop ids`);
    check(sequences[at + SEQUENCE.n_history] >= 0, "sequences", `${i}: n_history is negative`);
    check(nBias === 0 || (nBias > 0 && bias >= 0 && (bias + nBias) * 2 <= biasWords), "bias", `${i}: outside the table`);
    check(mask === -1 || (mask >= 0 && mask + words <= maskWordsGiven), "mask", `${i}: outside the table`);
  }
}

/**
 * @param {Int32Array} blockTables
 * @param {import("../format/plan.js").Plan} plan
 * @returns {number}
 */
function countSequences(blockTables, { blocksPerSequence, maxima }) {
  const n = blockTables.length / blocksPerSequence;
  const fine = Number.isInteger(n) && n > 0 && n <= maxima.sequences;
  check(fine, "blockTables", `must be 1 to ${maxima.sequences} rows of ${blocksPerSequence}`);
  return n;
}

/**
 * @param {Int32Array} blockTables
 * @param {number} sequence
 * @param {number} tokens of it, at most the context: entries of its row that hold these will be followed
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} pages
 */
function checkPages(blockTables, sequence, tokens, plan, pages) {
  for (const { first, pageTokens } of plan.blockTables) {
    const end = first + Math.ceil(tokens / pageTokens);
    for (let i = first; i < end; i++) {
      const page = blockTables[sequence * plan.blocksPerSequence + i];
      check(within(page, pages), "blockTables", `sequence ${sequence}, block ${i}: page ${page} of ${pages} reserved`);
    }
  }
}

/**
 * @param {number} value
 * @param {number} end exclusive
 */
function within(value, end) {
  return value >= 0 && value < end;
}

/**
 * @param {boolean} fine
 * @param {string} field
 * @param {string} message
 */
function check(fine, field, message) {
  if (!fine) throw new EngineError("invalid_request", `${field}: ${message}`, field);
}
