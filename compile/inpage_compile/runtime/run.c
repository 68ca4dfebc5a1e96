/* Bursts: decode step after step, sampling inside, without going back to the host. Thread 0 keeps the books between
 * two steps while the others spin at the barrier. */
#include "runtime.h"

#define MAX_BURST 128 /* sequences decoding together */

static _Atomic int32_t doorbell;

static struct {
  inpage_sequence *sequences;
  int32_t n, max_steps, *out;
  const int32_t *bias;
  const uint32_t *mask;
  int32_t steps, error;
  int32_t rows, order[MAX_BURST]; /* the sequences of this step; rows = 0 ends the burst */
  const inpage_function *function;
  int32_t variables[INPAGE_VARIABLES];
} burst;

int32_t *inpage_doorbell(void) { return (int32_t *)&doorbell; }

/* Finished for want of a token, of `remaining`, or of a page to put the next token in? */
static void check_end(inpage_sequence *s) {
  if (s->finished) return;
  if (s->remaining <= 0)
    s->finished = 2;
  else if (s->position >= s->reserved)
    s->finished = 3;
}

/* Lays out the next step's rows: the sequences that go on, close together. */
static void prepare(void) {
  burst.rows = 0;
  if (burst.steps == burst.max_steps) return;
  for (int32_t i = 0; i < burst.n; i++) {
    inpage_sequence *s = &burst.sequences[i];
    check_end(s);
    if (s->finished) continue;
    const int32_t row = burst.rows++;
    burst.order[row] = i;
    inpage_loaded.token_ids[row] = s->token;
    inpage_loaded.positions[row] = s->position;
    inpage_loaded.row_sequence[row] = i;
    inpage_loaded.logit_rows[row] = row;
  }
  if (burst.rows == 0) return;
  burst.function = inpage_check_batch(burst.rows, burst.n, burst.rows);
  if (!burst.function) {
    burst.error = INPAGE_E_BATCH;
    burst.rows = 0;
  }
  burst.variables[INPAGE_VAR_ROWS] = burst.rows;
  burst.variables[INPAGE_VAR_SEQUENCES] = burst.n;
  burst.variables[INPAGE_VAR_LOGIT_ROWS] = burst.rows;
}

/* Takes the tokens just chosen: out, history, position, and who has finished. */
static void commit(void) {
  int32_t *out = &burst.out[(int64_t)burst.steps * burst.n];
  for (int32_t i = 0; i < burst.n; i++) out[i] = -1;
  for (int32_t row = 0; row < burst.rows; row++) {
    inpage_sequence *s = &burst.sequences[burst.order[row]];
    out[burst.order[row]] = s->token = s->chosen;
    s->history[(uint32_t)s->n_history++ % INPAGE_HISTORY] = s->chosen;
    s->position++;
    s->remaining--;
    for (int32_t k = 0; k < s->n_stop; k++)
      if (s->stop[k] == s->chosen) s->finished = 1;
    check_end(s);
  }
  burst.steps++;
  if (atomic_exchange(&doorbell, 0) != 0) burst.max_steps = burst.steps;
}

static void burst_job(int32_t thread, int32_t threads) {
  for (;;) {
    if (thread == 0) prepare();
    inpage_barrier(threads);
    if (burst.rows == 0) return;
    inpage_walk(burst.function, burst.variables, thread, threads);
    inpage_choose(burst.sequences, burst.order, burst.rows, burst.bias, burst.mask, thread, threads);
    if (thread == 0) commit();
  }
}

static int valid_sequence(const inpage_sequence *s) {
  return s->n_stop >= 0 && s->n_stop <= INPAGE_MAX_STOP && s->n_history >= 0 && s->n_bias >= 0 &&
         s->n_bias <= INPAGE_MAX_BIAS;
}

int32_t inpage_run(inpage_sequence *sequences, int32_t n, int32_t max_steps, const int32_t *bias,
                   const uint32_t *mask, int32_t *out) {
  if (!inpage_loaded.loaded || n < 1 || n > MAX_BURST || n > inpage_loaded.io.max_sequences ||
      n > inpage_loaded.io.max_logit_rows || n > inpage_loaded.io.max_rows || max_steps < 1)
    return INPAGE_E_BATCH;
  for (int32_t i = 0; i < n; i++)
    if (!valid_sequence(&sequences[i])) return INPAGE_E_BATCH;
  burst.sequences = sequences;
  burst.n = n;
  burst.max_steps = max_steps;
  burst.out = out;
  burst.bias = bias;
  burst.mask = mask;
  burst.steps = burst.error = 0;
  inpage_parallel(burst_job, inpage_threads_for(n));
  return burst.error ? burst.error : burst.steps;
}

static void sample_job(int32_t thread, int32_t threads) {
  inpage_choose(burst.sequences, burst.order, burst.n, burst.bias, burst.mask, thread, threads);
}

int32_t inpage_sample(inpage_sequence *sequences, int32_t n, const int32_t *bias, const uint32_t *mask) {
  if (!inpage_loaded.loaded || n < 1 || n > MAX_BURST || n > inpage_loaded.io.max_logit_rows) return INPAGE_E_BATCH;
  for (int32_t i = 0; i < n; i++) {
    if (!valid_sequence(&sequences[i])) return INPAGE_E_BATCH;
    burst.order[i] = i;
  }
  burst.sequences = sequences;
  burst.n = n;
  burst.bias = bias;
  burst.mask = mask;
  inpage_parallel(sample_job, inpage_threads_for(n));
  return INPAGE_OK;
}
