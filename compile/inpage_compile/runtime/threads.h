/* The crew: one caller (thread 0) and its workers, a barrier, and jobs that all of them run together.
 *
 * Waiting spins first and then sleeps on a futex, so that the launches of a burst cost a fraction of a microsecond to
 * separate while an idle page costs no CPU. Where every thread has a core, a spin should outlast any imbalance: a thread
 * that sleeps comes back late and makes the others sleep too. Where cores are shared, a spin is spent on the partner's
 * time. So a thread whose spins keep ending in sleep spins short, and tries a long one now and then. */
#ifndef INPAGE_THREADS_H
#define INPAGE_THREADS_H
#include <stdatomic.h>
#include <stdint.h>
#include "abi.h"

/* Turns of a spin until the host has timed them (inpage_set_spins): how long one takes differs between CPUs by factors. */
#ifdef __wasm__
#define INPAGE_SPINS_LONG 131072 /* wasm has no pause instruction */
#define INPAGE_SPINS_IDLE 20000
#else
#define INPAGE_SPINS_LONG 4096 /* with a pause each */
#define INPAGE_SPINS_IDLE 1000
#endif
#define INPAGE_SPINS_SHORT 128
#define INPAGE_SPIN_FAILURES 8     /* so many long spins in a row that end in sleep make a thread spin short, */
#define INPAGE_SPIN_SHORTS 16      /* for so many waits; then a long one is tried, and if that fails, */
#define INPAGE_SPIN_SHORTS_MAX 512 /* for twice as many, up to this */

typedef void (*inpage_job)(int32_t thread, int32_t threads);

/* Runs job on so many threads, all if there are no more; returns when they are done. */
void inpage_parallel(inpage_job job, int32_t threads);
void inpage_barrier(int32_t threads); /* within a job; its writes are visible to all after it */

/* The barrier's two halves. The thread that arrives last gets 1 at once and sees what the others wrote; they wait until it
 * calls inpage_release, and then see what it did between. */
int inpage_arrive(int32_t threads);
void inpage_release(int32_t threads);

/* Of work that is cut into more shares than there are threads: the next one, counted from the last barrier on. A thread's
 * first share is the one with its number. */
int32_t inpage_next_share(int32_t threads);

/* What differs between the targets (threads_wasm.c, threads_native.c). */
void inpage_futex_wait(_Atomic int32_t *word, int32_t seen); /* sleeps while *word == seen; may wake early */
void inpage_futex_wake(_Atomic int32_t *word);               /* wakes all */
void inpage_pause(void);                                     /* one turn of a spin */
int32_t inpage_thread_id(void);                              /* 0 in any thread that is no worker */
void inpage_set_thread_id(int32_t id);
int32_t inpage_hire(int32_t from, int32_t to); /* start workers from..to-1; the id after the last one started */
void inpage_dismiss(int32_t from, int32_t to); /* wait until workers from..to-1 have returned, where they do */
int32_t inpage_parks(void); /* a worker that is not needed stays and sleeps (1), or returns (0) */
#endif
