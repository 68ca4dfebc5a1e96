/* The synthetic model of the engine tests: kernels small enough to predict every logit in JavaScript (model.js).
 *
 * logits[i][v] = bias[v] + sum over positions p up to row i's: table[token at p][v] * ((7 p + token) mod 5)
 * with tokens read back from the KV pages. All numbers are small integers, so float32 sums are exact. */
#include "abi.h"

enum { PAGE_TOKENS = 16, BLOCKS = 8, VOCAB = 64 };
enum { TRAP = 63, WAIT = 62 }; /* token ids that misbehave */

static int32_t *kv_slot(void *kv, const int32_t *tables, int32_t sequence, int32_t position) {
  const int32_t page = tables[sequence * BLOCKS + position / PAGE_TOKENS];
  return (int32_t *)((uint8_t *)kv + page * 256) + position % PAGE_TOKENS;
}

/* token_ids, positions, row_sequence, block_tables, kv; rows */
static void store(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads) {
  const int32_t *tokens = b[0], *positions = b[1], *sequence = b[2];
  for (int32_t row = thread; row < scalars[0]; row += threads)
    *kv_slot(b[4], b[3], sequence[row], positions[row]) = tokens[row];
}

/* token_ids. The last thread traps at a TRAP token; WAIT holds the step until the doorbell rings. */
static void misbehave(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads) {
  const int32_t token = *(const int32_t *)b[0];
  (void)scalars;
  if (thread != threads - 1) return;
  if (token == TRAP) __builtin_trap();
  while (token == WAIT && !__atomic_load_n(inpage_doorbell(), __ATOMIC_SEQ_CST)) {
  }
}

/* positions, row_sequence, block_tables, kv, logit_rows, table, sums (arena); logit_rows */
static void accumulate(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads) {
  const int32_t *positions = b[0], *sequence = b[1], *rows = b[4];
  const float *table = b[5];
  float *sums = b[6];
  for (int32_t i = 0; i < scalars[0]; i++) {
    const int32_t row = rows[i];
    for (int32_t v = VOCAB * thread / threads; v < VOCAB * (thread + 1) / threads; v++) {
      float sum = 0;
      for (int32_t p = 0; p <= positions[row]; p++) {
        const int32_t token = *kv_slot(b[3], b[2], sequence[row], p);
        sum += table[token * VOCAB + v] * (float)((7 * p + token) % 5);
      }
      sums[i * VOCAB + v] = sum;
    }
  }
}

/* The same, so many times over: alternatives of `accumulate` that no device should choose. */
static void accumulate_often(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads, int32_t times) {
  for (int32_t i = 0; i < times; i++) {
    accumulate(b, scalars, thread, threads);
    __asm__ volatile("" ::: "memory"); /* or the compiler leaves the repetitions out */
  }
}

static void accumulate_slow(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads) {
  accumulate_often(b, scalars, thread, threads, 400);
}

static void accumulate_slower(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads) {
  accumulate_often(b, scalars, thread, threads, 800);
}

/* sums, bias, logits; logit_rows, vocab. Divided by elements, so that it reads what other threads wrote. */
static void add_bias(void *const *b, const int32_t *scalars, int32_t thread, int32_t threads) {
  const float *sums = b[0], *bias = b[1];
  float *logits = b[2];
  const int32_t n = scalars[0] * scalars[1];
  for (int32_t i = n - 1 - thread; i >= 0; i -= threads) logits[i] = sums[i] + bias[i % scalars[1]];
}

const inpage_kernel inpage_kernels[] = {store, misbehave, accumulate, add_bias, accumulate_slow, accumulate_slower};
const int32_t inpage_kernel_shares[] = {0, 0, 64, 0, 0, 0};
const int32_t inpage_kernel_count = 6;
