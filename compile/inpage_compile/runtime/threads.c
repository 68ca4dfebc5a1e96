/* Jobs and the barrier, on the primitives of threads.h. */
#include "threads.h"

#include "abi.h"
#include "runtime.h"

/* Each word that is spun on has a cache line of its own. */
static struct {
  _Alignas(64) _Atomic int32_t arrived;
  _Alignas(64) _Atomic int32_t taken; /* shares since the last barrier, beside each thread's first */
  _Alignas(64) _Atomic int32_t epoch; /* of the barrier */
  _Alignas(64) _Atomic int32_t epoch_sleepers;
  _Alignas(64) _Atomic int32_t jobs; /* the latest announcement: a count, for how many threads, whether there is a job */
  _Alignas(64) _Atomic int32_t job_sleepers;
  _Alignas(64) _Atomic int32_t threads;
  _Atomic int32_t hired_at; /* `jobs` when the crew last grew: what a worker arriving late has seen */
  inpage_job job;
} crew = {.threads = 1};

/* The announcement says all that a worker must know: one that reads it late never mixes two of them up. */
#define WITH_JOB 1u
#define THREADS_OF(word) ((int32_t)((uint32_t)(word) >> 1 & 31u))

static int32_t announcement(int32_t threads, uint32_t with_job) {
  const uint32_t count = ((uint32_t)atomic_load(&crew.jobs) >> 6) + 1u;
  return (int32_t)(count << 6 | (uint32_t)threads << 1 | with_job);
}

static void fall_asleep(_Atomic int32_t *word, int32_t seen) {
  __atomic_fetch_add(&inpage_count[INPAGE_COUNT_SLEEPS], 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(&inpage_count[INPAGE_COUNT_ASLEEP], 1, __ATOMIC_RELAXED);
  inpage_futex_wait(word, seen);
  __atomic_fetch_sub(&inpage_count[INPAGE_COUNT_ASLEEP], 1, __ATOMIC_RELAXED);
}

static struct { _Atomic int32_t at_barrier, idle; } turns = {INPAGE_SPINS_LONG, INPAGE_SPINS_IDLE};

static int spin(_Atomic int32_t *word, int32_t seen, int32_t spins) {
  for (int32_t i = 0; i < spins; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) != seen) return 1;
    inpage_pause();
  }
  return 0;
}

int32_t inpage_spin(int32_t spins) {
  static _Atomic int32_t never;
  return spin(&never, 0, spins);
}

int32_t inpage_set_spins(int32_t at_barrier, int32_t idle) {
  if (at_barrier < 1 || idle < 1) return INPAGE_E_BATCH;
  atomic_store(&turns.at_barrier, at_barrier);
  atomic_store(&turns.idle, idle);
  return INPAGE_OK;
}

/* Whether the word changed before the spin was over. */
static int await_change(_Atomic int32_t *word, int32_t seen, _Atomic int32_t *sleepers, int32_t spins) {
  if (spin(word, seen, spins)) return 1;
  /* Sequentially consistent on both sides: either the sleeper sees the new word or the waker sees the sleeper. */
  atomic_fetch_add(sleepers, 1);
  while (atomic_load(word) == seen) fall_asleep(word, seen);
  atomic_fetch_sub(sleepers, 1);
  return 0;
}

static void change(_Atomic int32_t *word, int32_t value, _Atomic int32_t *sleepers) {
  atomic_store(word, value);
  if (atomic_load(sleepers) != 0) inpage_futex_wake(word);
}

/* What each thread's latest long spins at a barrier were worth: how many in a row ended in sleep, how many waits are
 * still to spin short for that, and how many it will be the next time. */
static struct { _Alignas(64) int32_t failures, shorts, next; } luck[INPAGE_MAX_THREADS];

static void await_epoch(int32_t epoch) {
  const int32_t thread = inpage_thread_id();
  const int long_spin = luck[thread].shorts == 0;
  const int32_t spins = long_spin ? atomic_load_explicit(&turns.at_barrier, memory_order_relaxed) : INPAGE_SPINS_SHORT;
  const int in_time = await_change(&crew.epoch, epoch, &crew.epoch_sleepers, spins);
  if (!long_spin) {
    luck[thread].shorts--;
  } else if (in_time) {
    luck[thread].failures = 0;
    luck[thread].next = 0;
  } else if (++luck[thread].failures >= INPAGE_SPIN_FAILURES) {
    const int32_t shorts = luck[thread].next < INPAGE_SPIN_SHORTS ? INPAGE_SPIN_SHORTS : luck[thread].next;
    luck[thread].shorts = shorts;
    luck[thread].next = shorts < INPAGE_SPIN_SHORTS_MAX ? 2 * shorts : shorts;
  }
}

int inpage_arrive(int32_t threads) {
  if (threads == 1) return 1;
  const int32_t epoch = atomic_load_explicit(&crew.epoch, memory_order_relaxed);
  if (atomic_fetch_add(&crew.arrived, 1) == threads - 1) return 1;
  await_epoch(epoch);
  return 0;
}

void inpage_release(int32_t threads) {
  if (threads == 1) return;
  const int32_t epoch = atomic_load_explicit(&crew.epoch, memory_order_relaxed);
  atomic_store_explicit(&crew.arrived, 0, memory_order_relaxed);
  atomic_store_explicit(&crew.taken, 0, memory_order_relaxed);
  change(&crew.epoch, (int32_t)((uint32_t)epoch + 1u), &crew.epoch_sleepers);
}

int32_t inpage_next_share(int32_t threads) {
  return threads + atomic_fetch_add_explicit(&crew.taken, 1, memory_order_relaxed);
}

void inpage_barrier(int32_t threads) {
  if (inpage_arrive(threads)) inpage_release(threads);
}

void inpage_parallel(inpage_job job, int32_t most) {
  const int32_t all = atomic_load(&crew.threads), threads = most < all ? most : all;
  if (threads > 1) {
    crew.job = job;
    change(&crew.jobs, announcement(threads, WITH_JOB), &crew.job_sleepers);
  }
  job(0, threads);
  inpage_barrier(threads);
}

/* A worker reads crew.job only for a word that announces one for it: then it stays until the barrier that ends the job.
 * One that the job has no use for waits for the next, unless it was dismissed meanwhile. */
void inpage_thread(int32_t id) {
  inpage_set_thread_id(id);
  for (;;) {
    if (inpage_parks())
      for (int32_t n = atomic_load(&crew.threads); id >= n; n = atomic_load(&crew.threads)) fall_asleep(&crew.threads, n);
    int32_t seen = atomic_load(&crew.hired_at);
    for (;;) {
      await_change(&crew.jobs, seen, &crew.job_sleepers, atomic_load_explicit(&turns.idle, memory_order_relaxed));
      seen = atomic_load(&crew.jobs);
      if (id >= THREADS_OF(seen)) {
        if ((uint32_t)seen & WITH_JOB && id < atomic_load(&crew.threads)) continue;
        break;
      }
      if ((uint32_t)seen & WITH_JOB) {
        crew.job(id, THREADS_OF(seen));
        inpage_barrier(THREADS_OF(seen));
      }
    }
    if (!inpage_parks()) return;
  }
}

/* What a worker has seen when it is hired is written down before it can look, and left alone on the way down: one that
 * is dismissed before it ever ran must find the news of it unseen, or it would never end. */
static void resize(int32_t threads) {
  const int32_t news = announcement(threads, 0);
  if (threads > atomic_load(&crew.threads)) atomic_store(&crew.hired_at, news);
  change(&crew.jobs, news, &crew.job_sleepers);
  atomic_store(&crew.threads, threads);
  inpage_futex_wake(&crew.threads);
}

int32_t inpage_set_threads(int32_t threads) {
  if (threads < 1 || threads > INPAGE_MAX_THREADS) return INPAGE_E_BATCH;
  const int32_t before = atomic_load(&crew.threads);
  if (threads == before) return INPAGE_OK;
  resize(threads);
  if (threads < before) inpage_dismiss(threads, before);
  if (threads < before) return INPAGE_OK;
  const int32_t reached = inpage_hire(before, threads);
  if (reached == threads) return INPAGE_OK;
  resize(before);
  inpage_dismiss(before, reached);
  return INPAGE_E_BATCH;
}
