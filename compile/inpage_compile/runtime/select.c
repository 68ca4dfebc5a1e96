/* Finding the cuts. Nearly always the answer lies among the few candidates close to the maximum, which one SIMD pass
 * collects; otherwise, and then among those, the cut is found by descending a radix of the logits' bits (11, 11 and
 * 10), each level one histogram: counts for top-k, mass for top-p. All sums run in one fixed order. */
#include "select.h"

#include "floats.h"
#include "runtime.h"

#define BINS 2048
#define BLOCK 256 /* candidates weighed at a time */

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
  const float *x = s->x + first;
  if (temperature <= 0.0f) {
    for (int32_t i = 0; i < n; i++) amounts[i] = stays(s, first + i) ? 1.0f : 0.0f;
    return n;
  }
  const inpage_f32x4 max = inpage_splat4(s->max), divisor = inpage_splat4(temperature);
  int32_t i = 0;
  for (; i + 4 <= n; i += 4)
    inpage_store4(amounts + i, inpage_exp4((inpage_clean4(inpage_load4(x + i)) - max) / divisor));
  if (i < n) {
    inpage_f32x4 rest = inpage_splat4(INPAGE_NEVER);
    for (int32_t lane = 0; i + lane < n; lane++) rest[lane] = x[i + lane];
    rest = inpage_exp4((inpage_clean4(rest) - max) / divisor);
    for (int32_t lane = 0; i + lane < n; lane++) amounts[i + lane] = rest[lane];
  }
  if (s->mask || s->key != 0)
    for (i = 0; i < n; i++)
      if (!stays(s, first + i)) amounts[i] = 0.0f;
  return n;
}

/* Four interleaved sums, so that they run as fast as the weights are made. */
static double sum_of(const float *amounts, int32_t n) {
  inpage_f64x4 sums = {0, 0, 0, 0};
  int32_t i = 0;
  for (; i + 4 <= n; i += 4) sums += __builtin_convertvector(inpage_load4(amounts + i), inpage_f64x4);
  double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (; i < n; i++) sum += (double)amounts[i];
  return sum;
}

static double total_of(const inpage_selection *s, float temperature) {
  float amounts[BLOCK];
  double total = 0.0;
  for (int32_t first = 0; first < s->n; first += BLOCK) total += sum_of(amounts, weigh(s, first, temperature, amounts));
  return total;
}

/* Moves the cut up; never down. */
static void tighten(inpage_selection *s, uint32_t key, int32_t last) {
  if (key < s->key || (key == s->key && last >= s->last)) return;
  s->key = key;
  s->last = last;
  s->total = 0.0;
}

/* Lists the candidates of a whole, uncut row from `floor` up; -1 if they do not fit. */
static int32_t collect(const inpage_selection *s, float floor) {
  const inpage_f32x4 least = inpage_splat4(floor);
  int32_t n = 0;
  for (int32_t i = 0; i < s->n; i += 4) {
    if (i + 4 <= s->n) {
      const inpage_i32x4 above = inpage_load4(s->x + i) >= least;
      const union { inpage_i32x4 v; uint64_t u[2]; } any = {.v = above};
      if ((any.u[0] | any.u[1]) == 0) continue;
    }
    for (int32_t k = i; k < i + 4 && k < s->n; k++) {
      if (!(s->x[k] >= floor)) continue;
      if (n == INPAGE_SHORT) return -1;
      s->short_x[n] = inpage_clean(s->x[k]);
      s->short_ids[n++] = k;
    }
  }
  return n;
}

static void go_short(inpage_selection *s, int32_t n) {
  s->x = s->short_x;
  s->ids = s->short_ids;
  s->n = n;
}

#define NARROWINGS 8 /* passes over the row, each far cheaper than one level of the descent */

/* Replaces the row by a list of its best candidates whose amount reaches `target`, if there is a short one: the distance
 * below the maximum is doubled or halved until it is between too few and too many, then halved in between. */
static void narrow(inpage_selection *s, float temperature, double target) {
  if (s->ids || s->mask || s->key != 0) return;
  float distance = 8.0f, too_few = 0.0f, too_many = 0.0f;
  for (int pass = 0; pass < NARROWINGS && distance >= 1.0f && distance <= 64.0f; pass++) {
    inpage_selection list = *s;
    const int32_t n = collect(s, s->max - distance);
    if (n < 0) {
      too_many = distance;
    } else {
      go_short(&list, n);
      if ((temperature > 0.0f ? total_of(&list, temperature) : (double)n) >= target) {
        *s = list;
        return;
      }
      too_few = distance;
    }
    if (too_many == 0.0f)
      distance *= 2.0f;
    else if (too_few == 0.0f)
      distance *= 0.5f;
    else
      distance = 0.5f * (too_few + too_many);
  }
}

/* One level of the descent: the amounts of the candidates whose key starts with `prefix` (its bits from `upper` up),
 * by their next bits, from `shift` up. */
static void histogram(const inpage_selection *s, float temperature, uint32_t prefix, int32_t upper, int32_t shift,
                      double *bins) {
  const uint32_t low_bits = (1u << (upper - shift)) - 1u;
  for (int32_t b = 0; b < BINS; b++) bins[b] = 0.0;
  float amounts[BLOCK];
  for (int32_t first = 0; first < s->n; first += BLOCK) {
    const int32_t n = weigh(s, first, temperature, amounts);
    for (int32_t i = 0; i < n; i++) {
      const uint32_t key = inpage_key(s->x[first + i]);
      if (upper == 32 || key >> upper == prefix) bins[key >> shift & low_bits] += (double)amounts[i];
    }
  }
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

/* Cuts down to the shortest prefix whose amount reaches `target` > 0. */
static void descend(inpage_selection *s, float temperature, double target) {
  static const int32_t shifts[4] = {32, 21, 10, 0};
  double *bins = inpage_scratch(BINS * sizeof(double));
  double before = 0.0; /* the amount above the prefix */
  uint32_t prefix = 0;
  int32_t level = 0;
  for (; level < 3; level++) {
    const int32_t upper = shifts[level], shift = shifts[level + 1];
    histogram(s, temperature, prefix, upper, shift, bins);
    int32_t b = BINS - 1;
    while (b >= 0 && (bins[b] == 0.0 || before + bins[b] < target)) before += bins[b--];
    if (b < 0) break; /* there are fewer, or another order of the sum rounded lower: keep the whole prefix */
    prefix = prefix << (upper - shift) | (uint32_t)b;
  }
  if (level == 3)
    tighten(s, prefix, last_tie(s, temperature, prefix, before, target));
  else if (level > 0)
    tighten(s, (prefix << shifts[level]) - 1u, -1);
  inpage_scratch_free(bins);
}

void inpage_top_k(inpage_selection *s, int32_t k) {
  narrow(s, 0.0f, (double)k);
  s->total = 0.0;
  descend(s, 0.0f, (double)k);
}

void inpage_top_p(inpage_selection *s, float p) {
  const double total = s->total > 0.0 ? s->total : total_of(s, 1.0f);
  const double target = p > 0.0f ? (double)p * total : 0.0;
  narrow(s, 1.0f, target);
  descend(s, 1.0f, target);
}

void inpage_min_p(inpage_selection *s, float p) {
  const float wanted = (float)((double)s->max + inpage_log((double)p));
  const float least = wanted < s->max ? wanted : s->max;
  if (!s->ids && !s->mask && s->key == 0) {
    const int32_t n = collect(s, least);
    if (n >= 0) go_short(s, n);
  }
  tighten(s, inpage_key(least) - 1u, -1);
}

int32_t inpage_draw(const inpage_selection *s, float temperature, double u) {
  const int32_t n_blocks = (s->n + BLOCK - 1) / BLOCK;
  double *sums = inpage_scratch((uint32_t)n_blocks * sizeof(double));
  float amounts[BLOCK];
  double total = 0.0, sum = 0.0;
  int32_t end = 0; /* after the last block with any weight */
  for (int32_t block = 0; block < n_blocks; block++) {
    sums[block] = sum_of(amounts, weigh(s, block * BLOCK, temperature, amounts));
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
