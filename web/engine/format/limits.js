/**
 * @file How much of everything is read, and how large it may be, before it is refused: what is beyond is an
 * attack or damage, and memory must stay flat. Made by format/generate.py from format/limits.toml; change that.
 */

/** Bytes of each kind of file. */
export const FILE_BYTES = Object.freeze({
  manifest: 16777216,
  plan: 33554432,
  tokenizer: 67108864,
  kernels: 67108864,
  shard: 16777216,
  answers: 67108864,
  answer: 4194304,
  prefix: 67108864,
  note: 1048576,
  settings: 1048576,
  package: 16777216,
  python: 67108864,
  site: 1048576,
});
/** Of one request, its prompt or messages included. */
export const REQUEST_CHARS = 8388608;
/** That a chat template may make. */
export const RENDER_CHARS = 16777216;
/** Nodes of a chat template that are evaluated: its own share,. */
export const RENDER_STEPS = 200000;
/** And more for each message. */
export const RENDER_STEPS_PER_MESSAGE = 1000;
/** Of one list that it makes. */
export const RENDER_ITEMS = 1000000;
/** Of a prompt that is rendered and tokenized at once; a larger one beside the loop. */
export const ASIDE_CHARS = 16384;
/** Likewise. */
export const ASIDE_MESSAGES = 200;
/** Nothing in an artifact is larger, and every sum of such stays exact in a float64. */
export const BYTES = 1099511627776;
/** Offsets of tensors, shards and arena buffers are multiples of it. */
export const ALIGN = 256;
/** Rows interleaved in one block of layout rows16. */
export const BLOCK_ROWS = 16;
/** Characters of a text that is shown in one line. */
export const LINE = 500;
/** Of any list of an artifact. */
export const ENTRIES = 65536;
/** Version of a tokenizer's tables. */
export const TOKENIZER_TABLES = 1;
/** Of a token with a score: from each place of a text as many are looked up; SentencePiece makes 16 characters. */
export const UNIGRAM_BYTES = 256;
export const LAYERS = 4096;
export const KERNELS = 4096;
export const KERNEL_BUFFERS = 64;
/** Kernels of one list. */
export const ALTERNATIVES = 16;
export const ROWS = 65536;
export const SEQUENCES = 4096;
/** Tokens. */
export const CONTEXT = 16777216;
export const VOCAB = 16777216;
export const PAGE_TOKENS = 4096;
export const KV_GROUPS = 64;
/** Columns of the block table. */
export const BLOCKS = 1048576;
/** A number in a grid. */
export const EXTENT = 16777216;
/** Operators nested in one another in a grid. */
export const EXTENT_DEPTH = 4;
/** Of a dispatch, along one axis. */
export const WORKGROUPS = 65535;
/** Of a workgroup. */
export const INVOCATIONS = 256;
export const WORKGROUP_Z = 64;
/** Of a stage. */
export const STORAGE_BUFFERS = 8;
export const BINDING_BYTES = 134217728;
