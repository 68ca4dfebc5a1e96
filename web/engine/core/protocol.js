/**
 * @file Types of what crosses between EngineClient and the engine worker. Next to no code: the client runs on pages and in
 * workers, the engine in workers only, and both name these.
 */

/** Likeliest tokens that can be told of one choice. */
export const MAX_TOP = 20;
/** Numbers in a report of one choice: logprob of the token, then MAX_TOP pairs of id and logprob, -1 where there are fewer. */
export const REPORT = 1 + 2 * MAX_TOP;

/**
 * @typedef {object} Policy how files are fetched
 * @property {number} connections files fetched at once
 * @property {number} attempts tries in a row without progress
 * @property {number} backoffMs before the second try; doubles with each, up to 30 times itself
 * @property {number} doubtMs without any byte on a connection: then the rest is asked for on a second one too
 * @property {number} stallMs without any byte, whatever is tried meanwhile: then it is an error
 *
 * @typedef {{code: string, message: string}} Warning what went wrong without failing the load, e.g. storage_full
 * @typedef {{phase: "kernels" | "weights" | "ready", loaded: number, total: number, fromCache: boolean, shard: number | null}} Progress
 *   bytes; fromCache: of the file that moved last
 *
 * @typedef {object} LoadOptions
 * @property {string} base URL of the artifact's folder
 * @property {unknown} manifest text of manifest.json, or what stands in it
 * @property {string} variant name of one of its variants
 * @property {number | null} [threads] compute threads, this one included; if not given, as many as measure fastest, at most
 *   one a core, one if not isolated
 * @property {number | null} [contextPages] KV pages to make room for at most; a whole context for every sequence if not given
 * @property {{initial: number, maximum: number}} [memory] WebAssembly: bytes at the start, and at most; what the weights need
 *   and what a module can address if not given
 * @property {string[] | null} [kernels] the kernel that runs of each list of `Info.alternatives`. Only these are then rehearsed
 *   (WebAssembly, where not all that would be timed is given and stored) or compiled (WebGPU) while weights arrive. Names that do not fit the plan are ignored
 * @property {boolean} [tune] WebGPU: whether kernels can be chosen; if not given, on all but software adapters
 * @property {boolean} [exam] WebGPU: whether the manifest's exam is sat; if not given, on all but software adapters
 * @property {GPUPowerPreference} [powerPreference] WebGPU: which adapter, where there are two; "high-performance" if not given
 * @property {boolean | "opfs" | "idb"} [cache] keep files in browser storage (default true); a name pins the kind
 * @property {string[]} [fetched] hashes of files that are stored only since a moment ago, or are under way: they count as fetched
 * @property {Partial<Policy>} [network]
 * @property {boolean} [profile] WebGPU: `profile` reads the GPU's own clock where it has one
 * @property {boolean} [debug] WebGPU: every launch a submit of its own, so that an error names the launch (slow)
 * @property {number} [sliceMs] WebGPU: about how long a burst goes on after an interrupt; 20 if not given
 * @typedef {object} AdapterFacts what WebGPU tells of the device
 * @property {string} vendor
 * @property {string} architecture
 * @property {string} description
 * @property {boolean} software it computes on the CPU
 * @typedef {object} Info
 * @property {string} backend as engines.js has it
 * @property {string} variant
 * @property {number} threads that decode
 * @property {number} prompt_threads that read prompts
 * @property {AdapterFacts | null} adapter of WebGPU, else null
 * @property {Record<string, number> | null} threads_measured steps a second by number of threads; null where the number was
 *   given or only one is possible
 * @property {string[][]} alternatives names of kernels that do the same, the one that runs if none is chosen first
 * @property {boolean} rehearsed all of them ran while weights arrived, so that the browser has compiled them well; false where
 *   nothing was to be timed
 * @property {number} vocab
 * @property {number} context positions a sequence may have
 * @property {number} width numbers that an encoder gives for a sequence; 0 for what writes
 * @property {number} page_tokens
 * @property {number} page_bytes
 * @property {number} blocks_per_sequence
 * @property {import("../format/plan.js").KvGroup[]} groups of layers with block tables of their own; none: all layers are one
 * @property {number} max_rows
 * @property {number} max_sequences
 * @property {number} max_logit_rows
 * @property {number} max_pages KV pages that memory can grow to
 * @property {number} weight_bytes
 * @property {number} arena_bytes arenas, and in a WebAssembly memory all else that is neither weights nor KV pages
 * @property {number} load_ms
 * @property {number} cached_bytes of the weights: what came from storage
 * @property {"opfs" | "idb" | null} storage
 * @property {boolean} isolated
 * @property {Warning[]} warnings e.g. storage_full
 * @typedef {{doorbell: {buffer: ArrayBufferLike, offset: number, bell: ArrayBufferLike} | null, info: Info}} Loaded
 *   the answer to a load; doorbell: the runtime's word, and the worker's own
 */

/**
 * @typedef {object} Constraint what a sequence's answer is held to; its struct's mask is filled in before each choice
 * @property {number} sequence index among the structs
 * @property {string} id of the request, by which the engine knows it again
 * @property {"schema" | "regex" | "ebnf" | "tag"} kind a JSON schema, a regular expression, a grammar with the rule root, or the
 *   format of one of XGrammar's structural tags
 * @property {string} source its text
 * @property {Int32Array} tokens of the answer so far
 * @property {number} [helper] the grammar worker that knows it, as `EngineClient` says
 */

/**
 * @typedef {Pick<LoadOptions, "base" | "manifest" | "cache" | "network"> & {vocab: number, most: number}} GrammarOptions of a
 *   grammar worker; most: requests whose matchers are kept
 */

/**
 * @typedef {object} StepInput
 * @property {Int32Array} tokenIds [rows]
 * @property {Int32Array} positions [rows]
 * @property {Int32Array} rowSequence [rows]: row of blockTables that each row belongs to
 * @property {Int32Array} blockTables [sequences * blocks_per_sequence] page indices; unused entries may be anything. For an
 *   encoder: of each sequence its first row, how many it has, and how many come before the second segment
 * @property {Int32Array} logitRows [logit rows]: which rows get logits, at most max_logit_rows
 * @property {Int32Array} [targets] score logit rows 0..n-1 against these ids (-1: none)
 * @property {Int32Array} [sample] words of n inpage_sequence structs: choose a token for logit rows 0..n-1
 * @property {Int32Array} [bias] pairs (token id, float bits) that the structs refer to
 * @property {Uint32Array} [mask] token mask words that the structs refer to
 * @property {boolean} [wantLogits] also return the logits, copied
 * @property {Constraint[]} [constraints]
 * @property {Int32Array} [tops] [structs]: report each choice with so many of the likeliest tokens; -1: do not
 * @typedef {object} StepResult
 * @property {Int32Array} [sequences] the structs of `sample`, updated
 * @property {Int32Array} [scores] [targets.length * 3] words of inpage_score_row: argmax, nll (f), margin (f)
 * @property {Float32Array} [logits] [logit rows * vocab], or of an encoder [logit rows * width]
 * @property {Float64Array} [report] [structs * REPORT], where `tops` asks for it
 * @typedef {object} RunInput
 * @property {Int32Array} sequences words of n inpage_sequence structs
 * @property {number} n
 * @property {Int32Array} blockTables [n * blocks_per_sequence]
 * @property {number} maxSteps at most MAX_BURST are done
 * @property {number} [tellMs] tell what came while the burst runs: at first after every step, then about so often
 * @property {Int32Array} [bias]
 * @property {Uint32Array} [mask]
 * @property {Constraint[]} [constraints]
 * @property {Int32Array} [tops] [n], as in StepInput
 * @typedef {object} RunResult
 * @property {number} steps
 * @property {Int32Array} out [steps * n], -1: had finished
 * @property {Int32Array} sequences
 * @property {Float64Array} [report] [steps * n * REPORT], where `tops` asks for it
 * @property {Int32Array} [finished] [n]: that word of each struct
 * @typedef {{steps: number, out: Int32Array, finished: Int32Array, report?: Float64Array}} Slice a part of a burst; as in
 *   RunResult
 */

/**
 * @typedef {object} KernelTiming
 * @property {{name: string, most: number}[]} kernels chosen and timed in turn, by so many launches of them
 * @property {number} budgetMs none is begun after so long
 * @property {number} [threads] at most what was loaded with; those that compute now if not given
 */

/**
 * @typedef {object} ProfileInput
 * @property {number} rows decoding together where the plan takes so many sequences; else one sequence's next tokens
 * @property {number} [depth] tokens before them (default 0)
 * @property {number} [repeats] steps that are timed (default 20)
 * @property {number} [threads] at most what was loaded with; those that compute now if not given
 * @typedef {object} Profile
 * @property {number} rows
 * @property {number} sequences
 * @property {number} depth
 * @property {number} threads
 * @property {"gpu" | "wall"} [clock] WebGPU: timestamp queries, or the wall time of batches of dispatches
 * @property {number | null} [busy] WebGPU: the share of the time in which the GPU computes while steps follow one another; null
 *   without its clock
 * @property {number} step_us a whole step as it always runs, the median
 * @property {number} call_us what each launch's time includes for being timed alone
 * @property {number} rounds undisturbed steps that the launches' times are the means of
 * @property {string[]} kernels
 * @property {Int32Array} launch_kernel [launches] index of each launch's kernel
 * @property {Float64Array} launch_us [launches]
 * @property {Int32Array} [launch_workgroups] [launches] WebGPU
 */
