/* Teacher-forced scoring: -log p(target), the argmax and its lead over the runner-up, of every row of logits. */
#include "floats.h"
#include "runtime.h"

static struct {
  const int32_t *targets;
  int32_t n;
  inpage_score_row *out;
} score;
static inpage_stats parts[INPAGE_PART_ROWS][INPAGE_PARTS];

static void score_row(int32_t row, const inpage_stats *row_parts) {
  inpage_stats s;
  inpage_row_merge(row_parts, &s);
  const int32_t target = score.targets[row];
  inpage_score_row *out = &score.out[row];
  out->argmax = s.argmax < 0 ? 0 : s.argmax;
  out->margin = s.argmax < 0 ? 0.0f : s.max - s.second;
  out->nll = 0.0f;
  if (target < 0) return;
  const float x = inpage_clean(inpage_loaded.logits[(int64_t)row * inpage_loaded.io.vocab + target]);
  out->nll = s.argmax < 0 ? __builtin_inff() : (float)(((double)s.max - (double)x) + inpage_log(s.sum));
}

static void score_job(int32_t thread, int32_t threads) {
  for (int32_t first = 0; first < score.n; first += INPAGE_PART_ROWS) {
    const int32_t n = score.n - first < INPAGE_PART_ROWS ? score.n - first : INPAGE_PART_ROWS;
    inpage_rows_stats(first, n, parts, thread, threads);
    for (int32_t i = thread; i < n; i += threads) score_row(first + i, parts[i]);
    inpage_barrier(threads);
  }
}

int32_t inpage_score(const int32_t *targets, int32_t n, inpage_score_row *out) {
  if (!inpage_loaded.loaded || n < 1 || n > inpage_loaded.io.max_logit_rows) return INPAGE_E_BATCH;
  for (int32_t i = 0; i < n; i++)
    if (targets[i] < -1 || targets[i] >= inpage_loaded.io.vocab) return INPAGE_E_BATCH;
  score.targets = targets;
  score.n = n;
  score.out = out;
  inpage_parallel(score_job, INPAGE_MAX_THREADS);
  return INPAGE_OK;
}
