/* Jobs and the barrier, on the primitives of threads.h. */
#include "threads.h"

#include "abi.h"

/* Each word that is spun on has a cache line of its own. */
static struct {
  _Alignas(64) _Atomic int32_t arrived;
  _Alignas(64) _Atomic int32_t epoch; /* of the barrier */
  _Alignas(64) _Atomic int32_t epoch_sleepers;
  _Alignas(64) _Atomic int32_t jobs; /* a count in steps of 2; bit 0: there is a job to run, not only news */
  _Alignas(64) _Atomic int32_t job_sleepers;
  _Alignas(64) _Atomic int32_t threads;
  _Atomic int32_t hired_at; /* `jobs` when the crew last grew: what a worker arriving late has seen */
  inpage_job job;
} crew = {.threads = 1};

static void await_change(_Atomic int32_t *word, int32_t seen, _Atomic int32_t *sleepers) {
  for (int32_t i = 0; i < INPAGE_SPINS; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) != seen) return;
    inpage_pause();
  }
  /* Sequentially consistent on both sides: either the sleeper sees the new word or the waker sees the sleeper. */
  atomic_fetch_add(sleepers, 1);
  while (atomic_load(word) == seen) inpage_futex_wait(word, seen);
  atomic_fetch_sub(sleepers, 1);
}

static void change(_Atomic int32_t *word, int32_t value, _Atomic int32_t *sleepers) {
  atomic_store(word, value);
  if (atomic_load(sleepers) != 0) inpage_futex_wake(word);
}

void inpage_barrier(int32_t threads) {
  if (threads == 1) return;
  const int32_t epoch = atomic_load_explicit(&crew.epoch, memory_order_relaxed);
  if (atomic_fetch_add(&crew.arrived, 1) == threads - 1) {
    atomic_store_explicit(&crew.arrived, 0, memory_order_relaxed);
    change(&crew.epoch, (int32_t)((uint32_t)epoch + 1u), &crew.epoch_sleepers);
  } else {
    await_change(&crew.epoch, epoch, &crew.epoch_sleepers);
  }
}

static void post(int32_t with_job) {
  const uint32_t next = (((uint32_t)atomic_load(&crew.jobs) >> 1) + 1u) << 1;
  change(&crew.jobs, (int32_t)(next | (uint32_t)with_job), &crew.job_sleepers);
}

void inpage_parallel(inpage_job job) {
  const int32_t threads = atomic_load(&crew.threads);
  if (threads > 1) {
    crew.job = job;
    post(1);
  }
  job(0, threads);
  inpage_barrier(threads);
}

/* A worker reads crew.job only for a word that announces one: then it stays until the barrier that ends the job. */
void inpage_thread(int32_t id) {
  inpage_set_thread_id(id);
  int32_t seen = atomic_load(&crew.hired_at);
  for (;;) {
    await_change(&crew.jobs, seen, &crew.job_sleepers);
    seen = atomic_load(&crew.jobs);
    const int32_t threads = atomic_load(&crew.threads);
    if (id >= threads) return;
    if (seen & 1) {
      crew.job(id, threads);
      inpage_barrier(threads);
    }
  }
}

static void resize(int32_t threads) {
  atomic_store(&crew.threads, threads);
  post(0);
}

int32_t inpage_set_threads(int32_t threads) {
  if (threads < 1 || threads > INPAGE_MAX_THREADS) return INPAGE_E_BATCH;
  const int32_t before = atomic_load(&crew.threads);
  resize(threads);
  if (threads < before) inpage_dismiss(threads, before);
  if (threads <= before) return INPAGE_OK;
  /* Not on the way down: one dismissed before it ever ran must find the news of it unseen, or it would never end. */
  atomic_store(&crew.hired_at, atomic_load(&crew.jobs));
  const int32_t reached = inpage_hire(before, threads);
  if (reached == threads) return INPAGE_OK;
  resize(before);
  inpage_dismiss(before, reached);
  return INPAGE_E_BATCH;
}
