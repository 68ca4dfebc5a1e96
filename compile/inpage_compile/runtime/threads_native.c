/* The crew's primitives natively: pthreads, and one mutex with a condition for the rare sleep. */
#include <pthread.h>

#include "abi.h"
#include "threads.h"

static pthread_t workers[INPAGE_MAX_THREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static _Thread_local int32_t thread_number;

int32_t inpage_thread_id(void) { return thread_number; }
void inpage_set_thread_id(int32_t id) { thread_number = id; }

void inpage_futex_wait(_Atomic int32_t *word, int32_t seen) {
  pthread_mutex_lock(&lock);
  if (atomic_load(word) == seen) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

void inpage_futex_wake(_Atomic int32_t *word) {
  (void)word; /* whoever waits for another word looks again and goes back to sleep */
  pthread_mutex_lock(&lock);
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

void inpage_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void *work(void *argument) {
  inpage_thread((int32_t)(intptr_t)argument);
  return 0;
}

int32_t inpage_hire(int32_t from, int32_t to) {
  int32_t id = from;
  while (id < to && pthread_create(&workers[id], 0, work, (void *)(intptr_t)id) == 0) id++;
  return id;
}

int32_t inpage_parks(void) { return 0; }

void inpage_dismiss(int32_t from, int32_t to) {
  for (int32_t id = from; id < to; id++) pthread_join(workers[id], 0);
}
