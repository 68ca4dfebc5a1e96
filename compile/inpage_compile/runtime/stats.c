/* Maximum, runner-up and log-sum-exp of a row of logits, in a fixed number of parts that threads can share: float
 * exponentials, double sums, one order, whatever the thread count. */
#include "floats.h"
#include "runtime.h"

/* One more value at index i, later than all before it: a tie keeps the earlier index. */
static void take(inpage_stats *s, float x, int32_t i) {
  if (x > s->max) {
    s->second = s->max;
    s->max = x;
    s->argmax = i;
  } else if (x > s->second) {
    s->second = x;
  }
}

/* Maximum and runner-up of four interleaved streams, then of the four. */
static int32_t top_two(const float *row, int32_t begin, int32_t end, inpage_stats *s) {
  inpage_f32x4 best = inpage_splat4(INPAGE_NEVER), second = best;
  inpage_i32x4 where = {-1, -1, -1, -1}, at = {begin, begin + 1, begin + 2, begin + 3};
  int32_t i = begin;
  for (; i + 4 <= end; i += 4, at += 4) {
    const inpage_f32x4 x = inpage_clean4(inpage_load4(row + i));
    const inpage_i32x4 better = x > best;
    const inpage_f32x4 loser = inpage_select4(better, best, x);
    second = inpage_select4(loser > second, loser, second);
    best = inpage_select4(better, x, best);
    where = (at & better) | (where & ~better);
  }
  for (int32_t lane = 0; lane < 4; lane++) { /* lowest index among equal maxima */
    if (best[lane] > s->max || (best[lane] == s->max && where[lane] >= 0 && where[lane] < s->argmax)) {
      s->second = s->max;
      s->max = best[lane];
      s->argmax = where[lane];
    } else if (best[lane] > s->second) {
      s->second = best[lane];
    }
    if (second[lane] > s->second) s->second = second[lane];
  }
  return i;
}

int32_t inpage_part_length(int32_t vocab) { return ((vocab + INPAGE_PARTS - 1) / INPAGE_PARTS + 3) & ~3; }

void inpage_row_part(const float *row, int32_t vocab, int32_t part, inpage_stats *out) {
  const int32_t length = inpage_part_length(vocab);
  const int32_t begin = part * length < vocab ? part * length : vocab;
  const int32_t end = begin + length < vocab ? begin + length : vocab;
  inpage_stats s = {INPAGE_NEVER, INPAGE_NEVER, -1, 0.0};
  for (int32_t i = top_two(row, begin, end, &s); i < end; i++) take(&s, inpage_clean(row[i]), i);
  if (s.argmax >= 0) {
    const inpage_f32x4 max = inpage_splat4(s.max);
    inpage_f64x4 sums = {0, 0, 0, 0};
    int32_t i = begin;
    for (; i + 4 <= end; i += 4)
      sums += __builtin_convertvector(inpage_exp4(inpage_clean4(inpage_load4(row + i)) - max), inpage_f64x4);
    if (i < end) { /* the row's last part, where the vocabulary is no multiple of 4 */
      inpage_f32x4 x = inpage_splat4(INPAGE_NEVER);
      for (int32_t lane = 0; i + lane < end; lane++) x[lane] = row[i + lane];
      sums += __builtin_convertvector(inpage_exp4(inpage_clean4(x) - max), inpage_f64x4);
    }
    s.sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  *out = s;
}

void inpage_row_merge(const inpage_stats *parts, inpage_stats *out) {
  inpage_stats s = {INPAGE_NEVER, INPAGE_NEVER, -1, 0.0};
  for (int32_t k = 0; k < INPAGE_PARTS; k++) {
    if (parts[k].argmax < 0) continue;
    take(&s, parts[k].max, parts[k].argmax);
    if (parts[k].second > s.second) s.second = parts[k].second;
  }
  for (int32_t k = 0; k < INPAGE_PARTS; k++)
    if (parts[k].argmax >= 0) s.sum += parts[k].sum * inpage_exp((double)parts[k].max - (double)s.max);
  *out = s;
}

void inpage_rows_stats(int32_t first, int32_t n, inpage_stats (*parts)[INPAGE_PARTS], int32_t thread, int32_t threads) {
  const int32_t vocab = inpage_loaded.io.vocab;
  const int32_t items = n * INPAGE_PARTS;
  for (int32_t item = items * thread / threads; item < items * (thread + 1) / threads; item++) {
    const int32_t row = item / INPAGE_PARTS, part = item % INPAGE_PARTS;
    inpage_row_part(inpage_loaded.logits + (int64_t)(first + row) * vocab, vocab, part, &parts[row][part]);
  }
  inpage_barrier(threads);
}
