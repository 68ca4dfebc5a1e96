/* Cuts by descending a radix of the logits' bits: 11, 11 and 10 of them, each level one histogram of the candidates
 * that share the bits so far: counts for top-k, probability mass for top-p. All sums run in one fixed order. */
#include "select.h"

#include "numerics.h"
#include "runtime.h"

#define BINS 2048
#define BLOCK 256 /* candidates weighed at a time */

uint32_t inpage_key(float x) {
  union { float f; uint32_t u; } v = {.f = inpage_clean(x) + 0.0f}; /* -0 becomes 0 */
  if (v.u == 0xff800000u) return 0;
  return v.u & 0x80000000u ? ~v.u : v.u | 0x80000000u;
}

static int stays(const inpage_selection *s, int32_t i) {
  if (s->mask && !(s->mask[i >> 5] >> (i & 31) & 1)) return 0;
  const uint32_t key = inpage_key(s->x[i]);
  return key > s->key || (key == s->key && i <= s->last);
}

int32_t inpage_best(inpage_selection *s) {
  int32_t best = -1;
  for (int32_t i = 0; i < s->n; i++)
    if (stays(s, i) && (best < 0 || inpage_clean(s->x[i]) > s->max)) {
      best = i;
      s->max = inpage_clean(s->x[i]);
    }
  return best < 0 || !s->ids ? best : s->ids[best];
}

/* Amounts of candidates first..: exp((x - max) / temperature), or 1 each if temperature is 0; 0 where they do not
 * stay. Returns how many it filled in, at most BLOCK. */
static int32_t weigh(const inpage_selection *s, int32_t first, float temperature, float *amounts) {
  const int32_t n = s->n - first < BLOCK ? s->n - first : BLOCK;
  const int filtered = s->mask || s->key != 0 || temperature <= 0.0f;
  for (int32_t i = 0; i < n; i++) {
    const float x = inpage_clean(s->x[first + i]);
    amounts[i] = temperature > 0.0f ? (x - s->max) / temperature : 0.0f;
  }
  for (int32_t i = n; i & 3; i++) amounts[i] = 0.0f;
  for (int32_t i = 0; i < n; i += 4) {
    inpage_f32x4 x;
    __builtin_memcpy(&x, amounts + i, sizeof x);
    x = inpage_exp4(x);
    __builtin_memcpy(amounts + i, &x, sizeof x);
  }
  if (filtered)
    for (int32_t i = 0; i < n; i++)
      if (!stays(s, first + i)) amounts[i] = 0.0f;
  return n;
}

/* Moves the cut up; never down. */
static void tighten(inpage_selection *s, uint32_t key, int32_t last) {
  if (key < s->key || (key == s->key && last >= s->last)) return;
  s->key = key;
  s->last = last;
}

/* Goes over to a list of the candidates that stay; the caller knows that they fit. */
static void shorten(inpage_selection *s) {
  int32_t n = 0;
  for (int32_t i = 0; i < s->n; i++)
    if (stays(s, i)) {
      s->short_x[n] = s->x[i];
      s->short_ids[n++] = i;
    }
  s->x = s->short_x;
  s->ids = s->short_ids;
  s->n = n;
  s->mask = 0;
  s->key = 0;
  s->last = -1;
}

/* One level of the descent: the amounts of the candidates whose key starts with `prefix` (its bits from `upper` up),
 * by their next bits, from `shift` up. Returns the sum of all bins. */
static double histogram(const inpage_selection *s, float temperature, uint32_t prefix, int32_t upper, int32_t shift,
                        double *bins, int32_t *counts) {
  const uint32_t low_bits = (1u << (upper - shift)) - 1u;
  for (int32_t b = 0; b < BINS; b++) bins[b] = counts[b] = 0;
  float amounts[BLOCK];
  for (int32_t first = 0; first < s->n; first += BLOCK) {
    const int32_t n = weigh(s, first, temperature, amounts);
    for (int32_t i = 0; i < n; i++) {
      const uint32_t key = inpage_key(s->x[first + i]);
      if (amounts[i] == 0.0f || (upper < 32 && key >> upper != prefix)) continue;
      bins[key >> shift & low_bits] += (double)amounts[i];
      counts[key >> shift & low_bits]++;
    }
  }
  double total = 0.0;
  for (int32_t b = BINS - 1; b >= 0; b--) total += bins[b];
  return total;
}

/* Among the candidates equal to `key`, in order of id: the one with which the amount reaches target. */
static int32_t last_tie(const inpage_selection *s, float temperature, uint32_t key, double before, double target) {
  int32_t last = -1;
  float amounts[BLOCK];
  for (int32_t first = 0; first < s->n; first += BLOCK) {
    const int32_t n = weigh(s, first, temperature, amounts);
    for (int32_t i = 0; i < n; i++) {
      if (amounts[i] == 0.0f || inpage_key(s->x[first + i]) != key) continue;
      last = first + i;
      before += (double)amounts[i];
      if (before >= target) return last;
    }
  }
  return last;
}

/* Cuts down to the shortest prefix whose amount reaches `count`, or, if that is 0, `share` of the total mass. */
static void descend(inpage_selection *s, double count, double share) {
  static const int32_t shifts[4] = {32, 21, 10, 0};
  const float temperature = count > 0.0 ? 0.0f : 1.0f;
  double *bins = inpage_scratch(BINS * sizeof(double));
  int32_t *counts = inpage_scratch(BINS * sizeof(int32_t));
  double target = count, before = 0.0; /* before: the amount above the prefix */
  int64_t above = 0;                   /* candidates above it */
  uint32_t prefix = 0;
  int32_t level = 0;
  for (; level < 3; level++) {
    const int32_t upper = shifts[level], shift = shifts[level + 1];
    const double total = histogram(s, temperature, prefix, upper, shift, bins, counts);
    if (level == 0 && count == 0.0) target = share * total;
    int32_t b = BINS - 1;
    while (b >= 0 && (counts[b] == 0 || before + bins[b] < target)) {
      before += bins[b];
      above += counts[b--];
    }
    if (b < 0) break; /* there are fewer, or another order of the sum rounded lower: keep the whole prefix */
    prefix = prefix << (upper - shift) | (uint32_t)b;
    if (level == 0 && !s->ids && above + counts[b] <= INPAGE_SHORT) {
      if (prefix > 0) tighten(s, (prefix << shift) - 1u, -1);
      shorten(s);
    }
  }
  if (level == 3)
    tighten(s, prefix, last_tie(s, temperature, prefix, before, target));
  else if (level > 0)
    tighten(s, (prefix << shifts[level]) - 1u, -1);
  inpage_scratch_free(counts);
  inpage_scratch_free(bins);
}

void inpage_top_k(inpage_selection *s, int32_t k) { descend(s, (double)k, 0.0); }
void inpage_top_p(inpage_selection *s, float p) { descend(s, 0.0, p > 0.0f ? (double)p : 0.0); }

void inpage_min_p(inpage_selection *s, float p) {
  const uint32_t top = inpage_key(s->max);
  const uint32_t least = inpage_key((float)((double)s->max + inpage_log((double)p)));
  tighten(s, (least < top ? least : top) - 1u, -1);
}

int32_t inpage_draw(const inpage_selection *s, float temperature, double u) {
  const int32_t n_blocks = (s->n + BLOCK - 1) / BLOCK;
  double *sums = inpage_scratch((uint32_t)n_blocks * sizeof(double));
  float amounts[BLOCK];
  double total = 0.0, sum = 0.0;
  int32_t end = 0; /* after the last block with any weight */
  for (int32_t block = 0; block < n_blocks; block++) {
    const int32_t n = weigh(s, block * BLOCK, temperature, amounts);
    sums[block] = 0.0;
    for (int32_t i = 0; i < n; i++) sums[block] += (double)amounts[i];
    total += sums[block];
    if (sums[block] > 0.0) end = block + 1;
  }
  const double target = u * total;
  int32_t block = 0, chosen = -1;
  while (block + 1 < end && sum + sums[block] <= target) sum += sums[block++];
  /* Rounding can hide the last bit of what the block's tokens reach: then its last one is chosen. */
  const int32_t n = end > 0 ? weigh(s, block * BLOCK, temperature, amounts) : 0;
  for (int32_t i = 0; i < n && (chosen < 0 || sum <= target); i++) {
    if (amounts[i] == 0.0f) continue;
    chosen = block * BLOCK + i;
    sum += (double)amounts[i];
  }
  inpage_scratch_free(sums);
  return chosen < 0 || !s->ids ? chosen : s->ids[chosen];
}
