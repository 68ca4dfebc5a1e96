/* The crew: one caller (thread 0) and its workers, a barrier, and jobs that all of them run together.
 *
 * Waiting spins first and then sleeps on a futex, so that the launches of a burst cost a fraction of a microsecond to
 * separate while an idle page costs no CPU. A spin lasts a little longer than waking a sleeping partner costs (some
 * 25 us), and not much longer: where cores are shared, it is spent on the partner's time. */
#ifndef INPAGE_THREADS_H
#define INPAGE_THREADS_H
#include <stdatomic.h>
#include <stdint.h>

#define INPAGE_MAX_THREADS 16
#ifdef __wasm__
#define INPAGE_SPINS 20000 /* wasm has no pause instruction: some 30 us */
#else
#define INPAGE_SPINS 3000 /* with a pause each: some 100 us */
#endif

typedef void (*inpage_job)(int32_t thread, int32_t threads);

void inpage_parallel(inpage_job job); /* runs job on every thread; returns when all are done */
void inpage_barrier(int32_t threads); /* within a job; its writes are visible to all after it */

/* What differs between the targets (threads_wasm.c, threads_native.c). */
void inpage_futex_wait(_Atomic int32_t *word, int32_t seen); /* sleeps while *word == seen; may wake early */
void inpage_futex_wake(_Atomic int32_t *word);               /* wakes all */
void inpage_pause(void);                                     /* one turn of a spin */
int32_t inpage_thread_id(void);                              /* 0 in any thread that is no worker */
void inpage_set_thread_id(int32_t id);
int32_t inpage_hire(int32_t from, int32_t to); /* start workers from..to-1; the id after the last one started */
void inpage_dismiss(int32_t from, int32_t to); /* wait until workers from..to-1 have returned */
#endif
