/* The one binary interface between a host (the page's engine worker, or CPython) and a compiled model.
 *
 * The same C runtime is linked with the model's TVM-compiled kernels into kernels.wasm and, for the host CPU, into a
 * shared library. A host places everything in memory itself (weights, arena, KV pages, inputs), hands the runtime one
 * table of absolute buffer addresses and one flat program, and then calls inpage_step or inpage_run.
 *
 * Every struct here consists of 32-bit fields only, so that JavaScript and Python can write it as Int32/Float32 words.
 *
 * Made by format/generate.py from format/abi.toml; change that. */
#ifndef INPAGE_ABI_H
#define INPAGE_ABI_H
#include <stdint.h>

#define INPAGE_ABI_VERSION 4
#define INPAGE_MAX_STOP 8 /* stop token ids a sequence */
#define INPAGE_HISTORY 256 /* most recent tokens that penalties look at */
#define INPAGE_MAX_BIAS 1024 /* biased token ids a sequence */
#define INPAGE_MAX_THREADS 16 /* the caller's included */
#define INPAGE_MAX_FUNCTIONS 16 /* of one program */
#define INPAGE_MAX_LAUNCHES 8192 /* of all functions together */
#define INPAGE_MAX_BINDINGS 32768 /* buffers of all launches together */
#define INPAGE_MAX_SCALARS 16384 /* scalars of all launches together */
#define INPAGE_LAUNCH_SCALARS 16 /* scalars of one launch */
#define INPAGE_SHA256_STATE_BYTES 112 /* owned by the caller */
#define INPAGE_SERIAL 65536 /* added to the kernel of a serial launch */
#define INPAGE_SCALAR_CONSTANT 0 /* kind of a launch's scalar: its value */
#define INPAGE_SCALAR_VARIABLE 1 /* kind of a launch's scalar: the index of a variable */
#define INPAGE_OK 0
#define INPAGE_E_PROGRAM (-1)
#define INPAGE_E_BATCH (-2)
#define INPAGE_E_CANCELLED (-3)

/* Kernels as TVM compiles them, behind trampolines: buffers in the launch's order, then its scalars. */
typedef void (*inpage_kernel)(void *const *buffers, const int32_t *scalars, int32_t thread, int32_t threads);
extern const inpage_kernel inpage_kernels[];
extern const int32_t inpage_kernel_shares[]; /* that the work for one row is worth cutting into */
extern const int32_t inpage_kernel_count;

/* Program words, int32 each:
 *   n_functions, then for each function:
 *     max_rows, n_launches, then for each launch:
 *       kernel, n_buffers, buffer ids…, n_scalars, (kind, value)…
 * A step runs the first function whose max_rows >= rows. Threads share each launch and meet at a barrier after it. A serial
 * launch (kernel + SERIAL) is done by one thread at the barrier before it, with no barrier of its own; a function's first
 * launch must not be serial. */

/* What a step may use of a plan's maxima, by index. */
enum {
  INPAGE_VAR_ROWS = 0, INPAGE_VAR_SEQUENCES = 1, INPAGE_VAR_LOGIT_ROWS = 2, INPAGE_VARIABLES = 3
};

/* Words of inpage_counters: counts since load, and at last how often a thread slept and how many sleep now. */
enum {
  INPAGE_COUNT_STEPS = 0, INPAGE_COUNT_LAUNCHES = 1, INPAGE_COUNT_ROWS = 2, INPAGE_COUNT_SAMPLED = 3,
  INPAGE_COUNT_SLEEPS = 4, INPAGE_COUNT_ASLEEP = 5, INPAGE_COUNTERS = 6
};

/* Buffers whose address the runtime itself must know: ids into the buffer table; and the sizes of a plan. */
typedef struct {
  int32_t token_ids; /* int32 [max_rows] */
  int32_t positions; /* int32 [max_rows] */
  int32_t row_sequence; /* int32 [max_rows]: which sequence (row of block_tables) a row belongs to */
  int32_t block_tables; /* int32 [max_sequences, blocks_per_sequence]: page index */
  int32_t logit_rows; /* int32 [max_logit_rows]: which rows get logits */
  int32_t logits; /* float32 [max_logit_rows, vocab] */
  int32_t vocab;
  int32_t max_rows;
  int32_t max_sequences;
  int32_t max_logit_rows;
  int32_t blocks_per_sequence;
} inpage_io;

/* How the next token of one sequence is chosen, and what a burst needs to go on by itself. */
typedef struct {
  float temperature; /* <= 0: greedy (argmax, lowest id wins a tie) */
  int32_t top_k; /* 0: off */
  float top_p; /* 1: off */
  float min_p; /* 0: off */
  float repetition_penalty; /* 1: off */
  float presence_penalty; /* 0: off */
  float frequency_penalty; /* 0: off */
  uint32_t seed[2]; /* generator key; its counter is the position of the token being chosen */
  int32_t token; /* run: the next token to feed (updated) */
  int32_t position; /* of the token fed last (sample) or next (run: updated); the chosen one gets position + 1 */
  int32_t remaining; /* run: tokens this sequence may still produce; 0 = finished (updated) */
  /* 0 going on, 1 stop token produced, 2 out of `remaining`, 3 no page reserved ahead; run: non-zero at entry sits the burst out */
  int32_t finished;
  int32_t reserved; /* run: positions covered by the pages in its block table row */
  int32_t n_stop;
  int32_t stop[INPAGE_MAX_STOP];
  int32_t n_bias;
  int32_t bias; /* offset, in pairs, into the bias table: (token id, float bits) */
  int32_t mask; /* offset in words into the mask table: bit set = allowed; -1: none */
  int32_t n_history; /* how many tokens were ever pushed; the last min(n, HISTORY) are in the ring */
  int32_t history[INPAGE_HISTORY]; /* ring, index n % HISTORY */
  int32_t chosen; /* results of the last choice */
  float logprob; /* natural log, of the unmodified distribution (temperature 1, no penalties) */
  float margin; /* top-1 minus top-2 of the unmodified logits */
} inpage_sequence;

/* What scoring reports for one logit row. */
typedef struct {
  int32_t argmax;
  float nll;
  float margin;
} inpage_score_row;
int32_t inpage_abi_version(void);

/* buffers: n_buffers addresses (pointer-sized). program: see above; copied. */
int32_t inpage_load(void *const *buffers, int32_t n_buffers, const int32_t *program, int32_t n_words, const inpage_io *io);

/* How many threads compute, the caller (number 0) included: 1 (the start) to INPAGE_MAX_THREADS. Natively this starts and ends
 * them. In the page inpage_thread(id) runs in workers 1, 2, …, each on its own instance and stack, and stays there: workers
 * beyond the number set sleep until a larger one is set, and a step waits for those within it that have not arrived. */
int32_t inpage_set_threads(int32_t threads);

/* How many of them compute a step that is not for the plan's most rows, a burst of such steps and what is chosen after one.
 * The others take no part: an announced job wakes them too, and they spin for `idle` turns before they sleep again. Few rows
 * wait for memory and for each other, so that they may want fewer threads than a prompt. In a plan of one function all compute
 * every step. At first, and for 0: all. */
int32_t inpage_set_decoders(int32_t threads);
void inpage_thread(int32_t id);

/* So many turns of the loop in which a thread waits: the host times them, since their length is the CPU's. Returns 0. */
int32_t inpage_spin(int32_t spins);

/* Turns before a thread goes to sleep: at a barrier, where a spin should outlast any imbalance of the others, and between
 * jobs. */
int32_t inpage_set_spins(int32_t at_barrier, int32_t idle);

/* One forward pass over what the host wrote to the input buffers. */
int32_t inpage_step(int32_t rows, int32_t sequences, int32_t logit_rows);

/* One launch of the function that inpage_step would run for this batch, on all threads: a step taken apart, so that a host
 * can time its parts. Launch -1 computes nothing: what a call alone costs. Nothing is counted. */
int32_t inpage_step_launch(int32_t rows, int32_t sequences, int32_t logit_rows, int32_t launch);

/* The first `most` launches of `kernel` in the function that inpage_step would run for this batch, on all threads, a barrier
 * after each: what that kernel costs on this model's weights. Returns how many there were. Nothing is counted. */
int32_t inpage_step_kernel(int32_t rows, int32_t sequences, int32_t logit_rows, int32_t kernel, int32_t most);

/* Run kernel `then` of the table in the place of `now` in every launch from now on. That the two take the same arguments and
 * do the same is the host's to know (the plan's `alternatives`). Not while a step runs. */
int32_t inpage_choose_kernel(int32_t now, int32_t then);

/* A forward pass on the calling thread alone, for a browser to compile the kernels well before they are needed: as worker
 * number `id` while no step runs and its own inpage_thread has not begun. Ends before its next launch once *stop != 0. Counts
 * nothing. Returns the number of launches done, or an error. */
int32_t inpage_rehearse(int32_t id, int32_t rows, int32_t sequences, int32_t logit_rows, const int32_t *stop);

/* Choose a token for logits rows 0..n-1, sequence i for row i. bias, mask: tables, may be NULL. Only the results are written,
 * and the logits are left as they were. Order: bias, mask, penalties, top_k, top_p, min_p, temperature (llama.cpp's default
 * chain). A row without any usable number (all NaN or masked) gives token 0, logprob -inf. */
int32_t inpage_sample(inpage_sequence *sequences, int32_t n, const int32_t *bias, const uint32_t *mask);

/* Decode: at most max_steps tokens for each of n sequences (sequence i uses row i of the block tables), sampling inside.
 * out: int32 [max_steps, n], -1 where a sequence had finished. Returns the number of steps done, or an error. Ends early when
 * all have finished or the doorbell rang. Each chosen token is pushed to its history. */
int32_t inpage_run(inpage_sequence *sequences, int32_t n, int32_t max_steps, const int32_t *bias, const uint32_t *mask, int32_t *out);

/* logits rows 0..n-1 against targets (-1: none, nll 0). */
int32_t inpage_score(const int32_t *targets, int32_t n, inpage_score_row *out);

/* The address of the doorbell: a non-zero int32 stored there ends a burst after its current step, which clears it. Rung while
 * no burst runs, it ends the next one after one step. */
int32_t *inpage_doorbell(void);

/* uint32 [INPAGE_COUNTERS]. */
const uint32_t *inpage_counters(void);

/* SHA-256, so that shards are hashed where they lie, while they arrive. state: INPAGE_SHA256_STATE_BYTES. */
void inpage_sha256_init(void *state);
void inpage_sha256_update(void *state, const uint8_t *data, uint32_t n);
void inpage_sha256_final(void *state, uint8_t out[32]);
#endif
