/* Choosing tokens, in the order of llama.cpp's default chain: logit bias, mask, penalties, top-k, top-p, min-p,
 * temperature, draw. Its semantics too: top-p and min-p see probabilities at temperature 1; the repetition penalty
 * divides positive logits and multiplies others; presence and frequency penalties (OpenAI's formula) are subtracted.
 * Penalties count the tokens of the history ring, whatever the host put there. */
#include "floats.h"
#include "philox.h"
#include "runtime.h"
#include "select.h"

static inpage_stats parts[INPAGE_PART_ROWS][INPAGE_PARTS];

/* What was overwritten in the row, to be put back in reverse. */
typedef struct {
  float *row;
  int32_t n, vocab;
  int32_t *ids;
  float *values;
  uint32_t parts; /* bit set: this part of the row was written to */
} journal;

static void write(journal *j, int32_t id, float value) {
  j->ids[j->n] = id;
  j->values[j->n++] = j->row[id];
  j->row[id] = value;
  j->parts |= 1u << (id / inpage_part_length(j->vocab));
}

static void restore(journal *j) {
  while (j->n > 0) {
    j->n--;
    j->row[j->ids[j->n]] = j->values[j->n];
  }
}

static int has_penalties(const inpage_sequence *s) {
  return s->n_history > 0 &&
         (s->repetition_penalty != 1.0f || s->presence_penalty != 0.0f || s->frequency_penalty != 0.0f);
}

static void add_bias(journal *j, const int32_t *pairs, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    union { int32_t i; float f; } value = {.i = pairs[2 * i + 1]};
    const int32_t id = pairs[2 * i];
    if (id >= 0 && id < j->vocab) write(j, id, j->row[id] + value.f);
  }
}

static void penalize(journal *j, const inpage_sequence *s) {
  const int32_t n = s->n_history < INPAGE_HISTORY ? s->n_history : INPAGE_HISTORY;
  for (int32_t i = 0; i < n; i++) {
    const int32_t id = s->history[i];
    int32_t count = 0, before = 0;
    for (int32_t k = 0; k < n; k++) {
      count += s->history[k] == id;
      before += (k < i) & (s->history[k] == id);
    }
    if (before || id < 0 || id >= j->vocab) continue;
    float x = j->row[id];
    x = x <= 0.0f ? x * s->repetition_penalty : x / s->repetition_penalty;
    write(j, id, x - ((float)count * s->frequency_penalty + s->presence_penalty));
  }
}

/* The token that the parameters choose from the (already modified) row; -1 if none can be. stats: of that row. */
static int32_t choose(const inpage_sequence *s, const float *row, int32_t vocab, const inpage_stats *stats,
                      const uint32_t *mask) {
  inpage_selection pick = {.x = row, .n = vocab, .mask = mask, .max = stats->max, .total = stats->sum, .last = -1};
  int32_t best = stats->argmax;
  if (mask) {
    best = inpage_best(&pick);
    pick.total = 0.0;
  }
  if (best < 0 || !(s->temperature > 0.0f)) return best;
  pick.short_x = inpage_scratch(INPAGE_SHORT * sizeof(float));
  pick.short_ids = inpage_scratch(INPAGE_SHORT * sizeof(int32_t));
  if (s->top_k > 0 && s->top_k < vocab) inpage_top_k(&pick, s->top_k);
  if (s->top_p < 1.0f) inpage_top_p(&pick, s->top_p);
  if (s->min_p > 0.0f) inpage_min_p(&pick, s->min_p);
  const int32_t id = inpage_draw(&pick, s->temperature, inpage_uniform(s->seed, s->position + 1));
  inpage_scratch_free(pick.short_ids);
  inpage_scratch_free(pick.short_x);
  return id;
}

/* Choose from the row with bias and penalties, which are taken back afterwards. */
static int32_t choose_modified(const inpage_sequence *s, float *row, const inpage_stats *row_parts,
                               const int32_t *bias, const uint32_t *mask) {
  const uint32_t room = INPAGE_MAX_BIAS + INPAGE_HISTORY;
  journal j = {.row = row, .n = 0, .vocab = inpage_loaded.io.vocab, .parts = 0};
  j.ids = inpage_scratch(room * sizeof(int32_t));
  j.values = inpage_scratch(room * sizeof(float));
  if (bias) add_bias(&j, bias + 2 * (int64_t)s->bias, s->n_bias);
  if (has_penalties(s)) penalize(&j, s);
  inpage_stats changed[INPAGE_PARTS], stats;
  for (int32_t part = 0; part < INPAGE_PARTS; part++) {
    changed[part] = row_parts[part];
    if (j.parts >> part & 1) inpage_row_part(row, j.vocab, part, &changed[part]);
  }
  inpage_row_merge(changed, &stats);
  const int32_t id = choose(s, row, j.vocab, &stats, mask);
  restore(&j);
  inpage_scratch_free(j.values);
  inpage_scratch_free(j.ids);
  return id;
}

static void choose_row(inpage_sequence *s, float *row, const inpage_stats *row_parts, const int32_t *bias,
                       const uint32_t *mask) {
  inpage_stats stats; /* of the unmodified row */
  inpage_row_merge(row_parts, &stats);
  const uint32_t *own_mask = mask && s->mask >= 0 ? mask + s->mask : 0;
  const int modified = (bias && s->n_bias > 0) || has_penalties(s);
  const int32_t id = modified ? choose_modified(s, row, row_parts, bias, own_mask)
                              : choose(s, row, inpage_loaded.io.vocab, &stats, own_mask);
  s->chosen = id < 0 ? 0 : id;
  s->margin = stats.argmax < 0 ? 0.0f : stats.max - stats.second;
  s->logprob = stats.argmax < 0 ? INPAGE_NEVER
                                : (float)(((double)inpage_clean(row[s->chosen]) - (double)stats.max) -
                                          inpage_log(stats.sum));
}

void inpage_choose(inpage_sequence *sequences, const int32_t *order, int32_t n, const int32_t *bias,
                   const uint32_t *mask, int32_t thread, int32_t threads) {
  const inpage_io *io = &inpage_loaded.io;
  for (int32_t first = 0; first < n; first += INPAGE_PART_ROWS) {
    const int32_t rows = n - first < INPAGE_PART_ROWS ? n - first : INPAGE_PART_ROWS;
    inpage_rows_stats(first, rows, parts, thread, threads);
    for (int32_t i = thread; i < rows; i += threads)
      choose_row(&sequences[order[first + i]], inpage_loaded.logits + (int64_t)(first + i) * io->vocab, parts[i], bias,
                 mask);
    inpage_barrier(threads);
  }
  if (thread == 0) inpage_count[3] += (uint32_t)n;
}
