/* What the runtime's own files share: the loaded program, the scratch of a thread, statistics of a row of logits. */
#ifndef INPAGE_RUNTIME_H
#define INPAGE_RUNTIME_H
#include "abi.h"
#include "threads.h"

/* A launch with its addresses resolved. */
typedef struct {
  int32_t kernel, n_scalars, serial; /* serial: computed by the thread that comes last to the barrier before it */
  void *const *buffers;
  const int32_t *scalars; /* (kind, value) pairs */
} inpage_launch;

typedef struct { int32_t max_rows, first_launch, n_launches; } inpage_function;

/* Everything inpage_load made of its arguments. */
typedef struct {
  int32_t loaded, n_functions;
  inpage_function functions[INPAGE_MAX_FUNCTIONS];
  inpage_launch launches[INPAGE_MAX_LAUNCHES];
  void *bindings[INPAGE_MAX_BINDINGS];
  int32_t scalars[2 * INPAGE_MAX_SCALARS];
  int32_t *token_ids, *positions, *row_sequence, *logit_rows;
  float *logits;
  inpage_io io;
} inpage_model;

extern inpage_model inpage_loaded;
extern uint32_t inpage_count[INPAGE_COUNTERS]; /* see inpage_counters */

/* Every thread's part of a launch, without a barrier. */
void inpage_run_launch(const inpage_launch *launch, const int32_t *variables, int32_t thread, int32_t threads);
/* Every thread's part of one forward pass: all launches of f. */
void inpage_walk(const inpage_function *f, const int32_t *variables, int32_t thread, int32_t threads);
/* The first function that takes `rows`; NULL if none does or the batch in the input buffers is out of bounds. */
const inpage_function *inpage_check_batch(int32_t rows, int32_t sequences, int32_t logit_rows);

/* How many threads compute what is for so many rows. */
int32_t inpage_threads_for(int32_t rows);

/* Scratch of the calling thread, for TVM's kernels and the sampler: a stack, so free in reverse order. */
void *inpage_scratch(uint32_t bytes);
void inpage_scratch_free(void *block);

/* One fixed part of a row. The parts depend on the vocabulary only, so results do not depend on the thread count. */
#define INPAGE_PARTS 32
#define INPAGE_PART_ROWS 16 /* rows that are in work at the same time */
typedef struct {
  float max, second; /* NaN counts as -inf, +inf as FLT_MAX */
  int32_t argmax;    /* the lowest id of the maximum; -1 if there is none above -inf */
  double sum;        /* of exp(x - max) */
} inpage_stats;

int32_t inpage_part_length(int32_t vocab);
void inpage_row_part(const float *row, int32_t vocab, int32_t part, inpage_stats *out);
void inpage_row_merge(const inpage_stats *parts, inpage_stats *out);
/* All parts of n <= INPAGE_PART_ROWS rows from `first`, shared among the threads; ends with a barrier. */
void inpage_rows_stats(int32_t first, int32_t n, inpage_stats (*parts)[INPAGE_PARTS], int32_t thread, int32_t threads);

/* Every thread's part of choosing a token for n logits rows; `order[i]` is the sequence of row i. Ends with a barrier. */
void inpage_choose(inpage_sequence *sequences, const int32_t *order, int32_t n, const int32_t *bias,
                   const uint32_t *mask, int32_t thread, int32_t threads);
#endif
