/**
 * @file Types of the JavaScript face. No code.
 */

/**
 * @typedef {{role: string, content?: string | {type: string, text?: string}[] | null, tool_calls?: object[],
 *   tool_call_id?: string, name?: string}} Message
 *   in OpenAI's shapes; role: "system" or "developer", "user", "assistant", "tool"
 * @typedef {object} Progress
 * @property {"python" | "manifest" | "tokenizer" | "kernels" | "weights" | "ready"} phase
 * @property {number} [loaded] bytes
 * @property {number} [total] bytes
 * @property {boolean} [fromCache]
 * @property {string} [model] whose load it is, where it is not the start's
 * @typedef {object} ModelOptions
 * @property {string} model id of a model of the site (models/<id>/), or the URL of an artifact's folder, ending in "/",
 *   whose last part is then its name
 * @property {string} [backend] pins a backend ("wasm") or a variant ("wasm-simd")
 * @property {number} [threads] compute threads; all cores if not given, one where the page is not isolated
 * @property {number} [replicas] engines of the model, as far as memory allows
 * @property {boolean} [pinned] never unloaded once it is loaded
 * @typedef {ModelOptions & StartMore} StartOptions
 * @typedef {object} StartMore
 * @property {string | URL} [base] URL of the site's folder; the page's own if not given
 * @property {ModelOptions[]} [models] more models, loaded when a request names them
 * @property {Record<string, Record<string, unknown>>} [settings] see py/inpage/settings.py, e.g. `{models: {max_loaded: 2}}`
 * @property {(event: Progress) => void} [onProgress] also while the router is started again
 * @property {(info: Info) => void} [onChange] another engine runs, or something was measured
 * @property {(leak: Leak) => void} [onLeak] memory grows without end; the console has it too
 * @property {boolean} [shared] use the router of another tab of this origin that was started with the same options, and let
 *   other tabs use this one's; see docs/embedding.md. False if not given
 * @property {AbortSignal} [signal] gives the start up: it rejects with code "cancelled"
 * @typedef {object} Leak
 * @property {string} suspicion a sentence for people
 * @property {{what: string, before: number, now: number}[]} growers bytes, by how much they grew
 * @property {{type: string, count: number}[]} objects of Python, that came after the load
 * @property {Record<string, number>} held bytes now
 * @property {Record<string, unknown>} operations what each kind of operation left behind
 * @property {Record<string, number>[]} samples
 * @property {{bytes: number, parts: {bytes: number, types: string[], scopes: string[]}[]} | null} heap of the page, by what
 *   holds it; null where it is not isolated, or the browser does not say
 * @typedef {object} ModelState
 * @property {string} name
 * @property {"loading" | "loaded" | "unloading"} state
 * @property {boolean} pinned
 * @property {number} requests in flight
 * @property {number} bytes that it holds now
 * @property {number | null} granted bytes that it may hold, with a memory budget
 * @property {string} variant
 * @property {number} context
 * @property {number} idle seconds since its last request ended
 * @property {string} level which precision runs, of several
 * @property {string} lesser why it is not the best; empty where it is
 * @typedef {{status: "healthy" | "degraded" | "unhealthy", reasons: string[], memory_bytes: number,
 *   memory_budget: number | null, models: Record<string, string>}} Health
 * @typedef {object} Info
 * @property {string} model
 * @property {string} name
 * @property {string} revision
 * @property {string} license
 * @property {string} backend
 * @property {string} variant
 * @property {number} threads
 * @property {string} why a sentence for people
 * @property {string} sentence all backends and their speeds, for people
 * @property {string} kernels which of the kernels that do the same run here, for people; empty where none were timed
 * @property {boolean} kernels_settled whether these stay; else they are timed once more after a while without a request
 * @property {Candidate[]} candidates every variant of the artifact
 * @property {number} load_ms
 * @property {number} context tokens that prompt and answer can have together
 * @property {number} vocab
 * @property {number} max_sequences how many requests decode together
 * @property {number} weight_bytes
 * @property {number} arena_bytes
 * @property {number} kv_bytes
 * @property {{used: number, kept: number, reserved: number, limit: number}} kv_pages kept: for prompts that begin alike
 * @property {{active: number, waiting: number}} requests
 * @property {number} replicas engines that run
 * @property {string[]} warnings what is less than it could be, for people: a context made to fit into a phone's memory
 * @typedef {object} Candidate
 * @property {string} variant
 * @property {string} backend
 * @property {boolean} running
 * @property {boolean} can_run
 * @property {string} reason
 * @property {number | null} decode_tps tokens a second, as measured on this device
 * @property {number | null} prefill_tps
 * @property {string} fault what went wrong with it lately; empty where nothing did
 * @typedef {object} Failover an engine (or "router") that died in mid-answer
 * @property {string} from variant
 * @property {string} to
 * @property {string} reason
 * @property {number} gap_ms until the answer went on
 * @typedef {object} Params
 * @property {string} [model] the model that answers; the one of the start if not given
 * @property {number} [max_tokens] to the end of the context if not given
 * @property {number} [temperature] 0 is greedy; this and the four below: the settings' or the model's own if not given
 * @property {number} [top_p]
 * @property {number} [top_k]
 * @property {number} [min_p]
 * @property {number} [repetition_penalty]
 * @property {number} [presence_penalty]
 * @property {number} [frequency_penalty]
 * @property {number} [seed] repeats an answer; a random one is drawn, and reported, if not given
 * @property {Record<number, number>} [logit_bias]
 * @property {Ids} [resume] token ids that an earlier run of the same request gave: the answer goes on after them
 * @property {string | string[]} [stop] the answer ends where one of these would begin
 * @property {number} [timeout] seconds after which it rejects with code "timeout"
 * @property {string} [client] any name: clients take turns, each with all of its requests
 * @property {number} [priority] 0 if not given; higher goes first
 * @property {boolean} [cache] false: compute the answer even where a kept one would do
 * @property {string | string[]} [tags] names by which kept answers can be forgotten
 * @property {object | string} [schema] JSON schema: the answer is one line of JSON that follows it
 * @property {string} [regex] the whole answer matches it
 * @property {string} [grammar] EBNF with a rule `root` that the answer follows
 * @property {object[]} [tools] functions that the model may call, in OpenAI's shape, as the two that follow
 * @property {string | object} [tool_choice]
 * @property {boolean} [parallel_tool_calls]
 * @property {number | boolean} [logprobs] 0 to 20: report each token, with so many of the likeliest; true: with
 *   `top_logprobs` of them
 * @property {number} [top_logprobs]
 * @property {object} [response_format] OpenAI's, as `schema`
 * @property {number} [max_completion_tokens] `max_tokens` by its newer name
 * @property {object} [stream_options] taken as OpenAI's; usage is told at the end in any case
 * @property {string} [user] `client` by OpenAI's name
 * @property {number} [max_repeats] so many copies of one passage behind each other, of 32 tokens in all at least, end the
 *   answer; 0, and if not given: none do
 * @property {string} [keep] a name, such as a conversation's: while the answer runs, what it takes to resume it lies in
 *   this browser's storage, for when the system ends the page; see `InPage.unfinished`
 * @property {AbortSignal} [signal] ends the answer with `finish_reason` "cancelled"
 * @typedef {object} Unfinished an answer whose page was ended while it ran
 * @property {string} id
 * @property {string} keep
 * @property {number} began when, in milliseconds since 1970
 * @property {string} [model]
 * @property {string | Message[]} [messages] what was asked, as `chat` took it
 * @property {string | number[]} [prompt] as `complete` took it
 * @property {string} text of the answer so far
 * @property {number} tokens of it
 * @typedef {object} Completion
 * @property {number[]} prompt_ids
 * @property {number[]} token_ids the stop token included
 * @property {string} text
 * @property {"stop" | "length" | "cancelled"} finish_reason
 * @property {number} seed
 * @property {number} load_ms
 * @property {number} ttft_ms
 * @property {number} prefill_tps
 * @property {number} decode_tps
 * @property {number} threads
 * @property {string} backend
 * @property {string} variant
 * @property {string} why
 * @property {Usage} usage
 * @property {Failover[]} failovers
 * @property {number} cached_tokens of the prompt, read from pages that an earlier request had computed
 * @property {string} source "engine", or whence the answer came: "memory", "storage", "bundle", "shared"
 * @property {Logprob[]} logprobs of this run's tokens, where they were asked for
 * @property {string} ended "repeats" where the answer went in circles and `max_repeats` ended it; else empty
 * @typedef {object} Logprob
 * @property {number} token
 * @property {number} logprob for the model itself: before temperature, bias and grammar
 * @property {[number, number][]} top the likeliest tokens and their logprobs
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number,
 *   prompt_tokens_details: {cached_tokens: number}}} Usage
 * @typedef {{load_ms: number, ttft_ms: number, prefill_tps: number, decode_tps: number}} Timing
 * @typedef {number[] | Uint32Array | Int32Array} Ids of tokens
 * @typedef {AsyncGenerator<Piece, void, void> & {toReadableStream(): ReadableStream<Piece>}} Answer
 * @typedef {object} Piece
 * @property {string} text what became certain since the piece before; may be empty
 * @property {number[]} token_ids
 * @property {Failover[]} [failovers] just before this piece
 * @property {Logprob[]} [logprobs] of token_ids, where they were asked for
 * @property {Completion["finish_reason"]} [finish_reason] of the last piece, as all that follows
 * @property {Usage} [usage]
 * @property {Timing} [timing]
 * @property {Completion} [completion] the whole answer
 * @typedef {object} EmbedParams
 * @property {string} [model]
 * @property {string} [prompt_name] which of the model's prompts stands before each text; its default one if not given
 * @property {number} [dimensions] only so many numbers of each vector, of length 1 again where the model's are
 * @property {number} [top_n] of ranks: the best so many
 * @property {boolean} [truncate] cut what is longer than the model takes, which is refused otherwise
 * @property {string} [client]
 * @property {number} [priority]
 * @property {number} [timeout] seconds
 * @property {boolean} [cache] false: neither take kept vectors nor keep them
 * @property {string[]} [tags]
 * @property {AbortSignal} [signal] ends it with the error "cancelled"
 * @property {(done: number, total: number) => void} [onProgress]
 * @typedef {{vectors: Float32Array[], prompt_tokens: number}} Embeddings
 * @typedef {{results: {index: number, score: number}[], prompt_tokens: number}} Ranking the best first
 * @typedef {{perplexity: number, nll: number[], argmax: number[], margin: number[]}} Score
 */

export {};
