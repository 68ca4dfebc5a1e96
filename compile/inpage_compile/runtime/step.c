/* One forward pass: every thread walks the same launches on the shared memory and computes its share of each, a barrier
 * after it. A launch with much to do is cut into more shares than there are threads, and a thread that finishes takes the
 * next one: a core that is slower, or busy with something else for a moment, holds the others up by one share. Serial
 * launches are too small to share: the thread that comes last to a barrier computes those that follow, while the others
 * still wait at the same barrier. So they cost no barrier of their own, and nothing runs beside them. */
#include "runtime.h"

void inpage_run_launch(const inpage_launch *launch, const int32_t *variables, int32_t thread, int32_t threads) {
  int32_t scalars[INPAGE_LAUNCH_SCALARS];
  for (int32_t i = 0; i < launch->n_scalars; i++) {
    const int32_t value = launch->scalars[2 * i + 1];
    scalars[i] = launch->scalars[2 * i] ? variables[value] : value;
  }
  inpage_kernels[launch->kernel](launch->buffers, scalars, thread, threads);
}

/* Shares a thread: more would be too small, and with fewer the last ones would still hold the others up. */
#define SHARES_MOST 8
#define SHARES_LEAST 4
#define ROWS_OF_ONE 4 /* that together count as one row does by itself, which waits for its weights */

static int32_t shares_of(const inpage_launch *launch, const int32_t *variables, int32_t threads) {
  if (threads == 1) return 1;
  const int32_t rows = (variables[INPAGE_VAR_ROWS] + ROWS_OF_ONE - 1) / ROWS_OF_ONE;
  const int32_t each = inpage_kernel_shares[launch->kernel] * rows / threads;
  return each < SHARES_LEAST ? threads : threads * (each < SHARES_MOST ? each : SHARES_MOST);
}

/* What this thread does of a launch. */
static void run_shares(const inpage_launch *launch, const int32_t *variables, int32_t thread, int32_t threads) {
  const int32_t shares = shares_of(launch, variables, threads);
  int32_t share = thread;
  do inpage_run_launch(launch, variables, share, shares);
  while (shares > threads && (share = inpage_next_share(threads)) < shares);
}

void inpage_walk(const inpage_function *f, const int32_t *variables, int32_t thread, int32_t threads) {
  const inpage_launch *launch = &inpage_loaded.launches[f->first_launch];
  const inpage_launch *end = launch + f->n_launches;
  while (launch < end) {
    run_shares(launch++, variables, thread, threads);
    const inpage_launch *first = launch;
    while (launch < end && launch->serial) launch++;
    if (!inpage_arrive(threads)) continue;
    for (; first < launch; first++) inpage_run_launch(first, variables, 0, 1);
    inpage_release(threads);
  }
  if (thread == 0) {
    inpage_count[0] += 1;
    inpage_count[1] += (uint32_t)f->n_launches;
    inpage_count[2] += (uint32_t)variables[INPAGE_VAR_ROWS];
  }
}

static int all_below(const int32_t *values, int32_t n, int32_t limit) {
  for (int32_t i = 0; i < n; i++)
    if (values[i] < 0 || values[i] >= limit) return 0;
  return 1;
}

const inpage_function *inpage_check_batch(int32_t rows, int32_t sequences, int32_t logit_rows) {
  const inpage_model *m = &inpage_loaded;
  if (!m->loaded || rows < 1 || rows > m->io.max_rows || sequences < 1 || sequences > m->io.max_sequences ||
      logit_rows < 0 || logit_rows > m->io.max_logit_rows)
    return 0;
  if (!all_below(m->token_ids, rows, m->io.vocab) || !all_below(m->positions, rows, INT32_MAX) ||
      !all_below(m->row_sequence, rows, sequences) || !all_below(m->logit_rows, logit_rows, rows))
    return 0;
  const inpage_function *f = m->functions;
  while (f->max_rows < rows) f++;
  return f;
}

static struct {
  const inpage_function *function;
  int32_t variables[INPAGE_VARIABLES];
  int32_t launch;
  int32_t kernel, most, done;
} pass;

static void pass_job(int32_t thread, int32_t threads) { inpage_walk(pass.function, pass.variables, thread, threads); }

static int32_t decoders = INPAGE_MAX_THREADS;

int32_t inpage_set_decoders(int32_t threads) {
  if (threads < 0 || threads > INPAGE_MAX_THREADS) return INPAGE_E_BATCH;
  decoders = threads > 0 ? threads : INPAGE_MAX_THREADS;
  return INPAGE_OK;
}

int32_t inpage_threads_for(int32_t rows) {
  const inpage_model *m = &inpage_loaded;
  const int few = m->n_functions > 1 && rows <= m->functions[m->n_functions - 2].max_rows;
  return few ? decoders : INPAGE_MAX_THREADS;
}

static int32_t prepare(int32_t rows, int32_t sequences, int32_t logit_rows) {
  pass.function = inpage_check_batch(rows, sequences, logit_rows);
  if (!pass.function) return INPAGE_E_BATCH;
  pass.variables[INPAGE_VAR_ROWS] = rows;
  pass.variables[INPAGE_VAR_SEQUENCES] = sequences;
  pass.variables[INPAGE_VAR_LOGIT_ROWS] = logit_rows;
  return INPAGE_OK;
}

int32_t inpage_step(int32_t rows, int32_t sequences, int32_t logit_rows) {
  const int32_t error = prepare(rows, sequences, logit_rows);
  if (!error) inpage_parallel(pass_job, inpage_threads_for(rows));
  return error;
}

/* Of one launch by itself. */
static void run_alone(const inpage_launch *launch, int32_t thread, int32_t threads) {
  if (!launch->serial)
    run_shares(launch, pass.variables, thread, threads);
  else if (thread == 0)
    inpage_run_launch(launch, pass.variables, 0, 1);
}

static void launch_job(int32_t thread, int32_t threads) {
  if (pass.launch < 0) return;
  const inpage_launch *launch = &inpage_loaded.launches[pass.function->first_launch + pass.launch];
  run_alone(launch, thread, threads);
}

int32_t inpage_step_launch(int32_t rows, int32_t sequences, int32_t logit_rows, int32_t launch) {
  const int32_t error = prepare(rows, sequences, logit_rows);
  if (error) return error;
  if (launch < -1 || launch >= pass.function->n_launches) return INPAGE_E_BATCH;
  pass.launch = launch;
  inpage_parallel(launch_job, inpage_threads_for(rows));
  return INPAGE_OK;
}

static void kernel_job(int32_t thread, int32_t threads) {
  const inpage_launch *launch = &inpage_loaded.launches[pass.function->first_launch];
  const inpage_launch *end = launch + pass.function->n_launches;
  int32_t done = 0;
  for (; launch < end && done < pass.most; launch++) {
    if (launch->kernel != pass.kernel) continue;
    run_alone(launch, thread, threads);
    inpage_barrier(threads);
    done++;
  }
  if (thread == 0) pass.done = done;
}

int32_t inpage_step_kernel(int32_t rows, int32_t sequences, int32_t logit_rows, int32_t kernel, int32_t most) {
  const int32_t error = prepare(rows, sequences, logit_rows);
  if (error) return error;
  if (kernel < 0 || kernel >= inpage_kernel_count || most < 0) return INPAGE_E_BATCH;
  pass.kernel = kernel;
  pass.most = most;
  inpage_parallel(kernel_job, inpage_threads_for(rows));
  return pass.done;
}

int32_t inpage_choose_kernel(int32_t now, int32_t then) {
  inpage_model *m = &inpage_loaded;
  if (!m->loaded || now < 0 || then < 0 || now >= inpage_kernel_count || then >= inpage_kernel_count)
    return INPAGE_E_BATCH;
  const inpage_function *last = &m->functions[m->n_functions - 1];
  const int32_t n = last->first_launch + last->n_launches;
  for (int32_t i = 0; i < n; i++)
    if (m->launches[i].kernel == now) m->launches[i].kernel = then;
  return INPAGE_OK;
}

int32_t inpage_rehearse(int32_t id, int32_t rows, int32_t sequences, int32_t logit_rows, const int32_t *stop) {
  const inpage_function *f = inpage_check_batch(rows, sequences, logit_rows);
  if (!f || id < 0 || id >= INPAGE_MAX_THREADS) return INPAGE_E_BATCH;
  inpage_set_thread_id(id);
  const int32_t variables[INPAGE_VARIABLES] = {rows, sequences, logit_rows};
  int32_t done = 0;
  while (done < f->n_launches && !__atomic_load_n(stop, __ATOMIC_SEQ_CST))
    inpage_run_launch(&inpage_loaded.launches[f->first_launch + done++], variables, 0, 1);
  return done;
}
