/* Loading: the flat program is checked word by word, and every launch gets its addresses once, here. */
#include "runtime.h"

inpage_model inpage_loaded;
uint32_t inpage_count[INPAGE_COUNTERS];

typedef struct { const int32_t *words; int32_t n, at, bad; } reader;

/* The next word if it lies in low..high; otherwise the program is bad and 0 is returned. */
static int32_t next(reader *r, int32_t low, int32_t high) {
  if (r->bad || r->at >= r->n || r->words[r->at] < low || r->words[r->at] > high) {
    r->bad = 1;
    return 0;
  }
  return r->words[r->at++];
}

static int valid_id(int32_t id, int32_t n) { return id >= 0 && id < n; }

static int32_t load_program(reader *r, void *const *buffers, int32_t n_buffers) {
  inpage_model *m = &inpage_loaded;
  int32_t launches = 0, bindings = 0, scalars = 0;
  m->n_functions = next(r, 1, INPAGE_MAX_FUNCTIONS);
  for (int32_t f = 0; f < m->n_functions; f++) {
    m->functions[f].max_rows = next(r, 1, INT32_MAX);
    m->functions[f].first_launch = launches;
    m->functions[f].n_launches = next(r, 0, INPAGE_MAX_LAUNCHES - launches);
    if (f > 0 && m->functions[f].max_rows <= m->functions[f - 1].max_rows) r->bad = 1;
    for (int32_t i = 0; i < m->functions[f].n_launches && !r->bad; i++, launches++) {
      inpage_launch *launch = &m->launches[launches];
      const int32_t kernel = next(r, 0, INPAGE_SERIAL + inpage_kernel_count - 1);
      launch->serial = kernel >= INPAGE_SERIAL;
      launch->kernel = launch->serial ? kernel - INPAGE_SERIAL : kernel;
      if (launch->kernel >= inpage_kernel_count || (launch->serial && i == 0)) r->bad = 1;
      launch->buffers = &m->bindings[bindings];
      const int32_t n_bound = next(r, 0, INPAGE_MAX_BINDINGS - bindings);
      for (int32_t b = 0; b < n_bound && !r->bad; b++) m->bindings[bindings++] = buffers[next(r, 0, n_buffers - 1)];
      launch->scalars = &m->scalars[2 * scalars];
      const int32_t room = INPAGE_MAX_SCALARS - scalars;
      launch->n_scalars = next(r, 0, room < INPAGE_LAUNCH_SCALARS ? room : INPAGE_LAUNCH_SCALARS);
      for (int32_t s = 0; s < launch->n_scalars && !r->bad; s++, scalars++) {
        const int32_t kind = next(r, 0, 1);
        m->scalars[2 * scalars] = kind;
        m->scalars[2 * scalars + 1] = kind ? next(r, 0, INPAGE_VARIABLES - 1) : next(r, INT32_MIN, INT32_MAX);
      }
    }
  }
  return r->bad || r->at != r->n ? INPAGE_E_PROGRAM : INPAGE_OK;
}

int32_t inpage_abi_version(void) { return INPAGE_ABI_VERSION; }

int32_t inpage_load(void *const *buffers, int32_t n_buffers, const int32_t *program, int32_t n_words,
                    const inpage_io *io) {
  inpage_model *m = &inpage_loaded;
  m->loaded = 0;
  for (int32_t i = 0; i < INPAGE_COUNT_SLEEPS; i++) inpage_count[i] = 0;
  if (n_buffers < 1 || io->vocab < 1 || io->max_rows < 1 || io->max_sequences < 1 || io->max_logit_rows < 1 ||
      io->blocks_per_sequence < 1 || !valid_id(io->token_ids, n_buffers) || !valid_id(io->positions, n_buffers) ||
      !valid_id(io->row_sequence, n_buffers) || !valid_id(io->block_tables, n_buffers) ||
      !valid_id(io->logit_rows, n_buffers) || !valid_id(io->logits, n_buffers))
    return INPAGE_E_PROGRAM;
  reader r = {program, n_words, 0, 0};
  if (load_program(&r, buffers, n_buffers) != INPAGE_OK) return INPAGE_E_PROGRAM;
  if (m->functions[m->n_functions - 1].max_rows != io->max_rows) return INPAGE_E_PROGRAM;
  m->io = *io;
  m->token_ids = buffers[io->token_ids];
  m->positions = buffers[io->positions];
  m->row_sequence = buffers[io->row_sequence];
  m->logit_rows = buffers[io->logit_rows];
  m->logits = buffers[io->logits];
  m->loaded = 1;
  return INPAGE_OK;
}

const uint32_t *inpage_counters(void) { return inpage_count; }
