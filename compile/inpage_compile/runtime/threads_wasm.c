/* The crew's primitives in wasm: the host starts the workers, each in an instance of its own on the shared memory.
 * A plain wasm global is private to an instance, so it is where a thread keeps its number (no TLS set-up needed). */
#include "threads.h"

__asm__(".globaltype inpage_thread_number, i32\n"
        "inpage_thread_number:\n");

int32_t inpage_thread_id(void) {
  int32_t id;
  __asm__ volatile("global.get inpage_thread_number\n"
                   "local.set %0"
                   : "=r"(id));
  return id;
}

void inpage_set_thread_id(int32_t id) {
  __asm__ volatile("local.get %0\n"
                   "global.set inpage_thread_number"
                   :
                   : "r"(id));
}

void inpage_futex_wait(_Atomic int32_t *word, int32_t seen) {
  __builtin_wasm_memory_atomic_wait32((int32_t *)word, seen, -1);
}

void inpage_futex_wake(_Atomic int32_t *word) { __builtin_wasm_memory_atomic_notify((int32_t *)word, 0xffffffffu); }

void inpage_pause(void) {}

int32_t inpage_hire(int32_t from, int32_t to) {
  (void)from;
  return to;
}

/* A host cannot call a worker back that returned, as long as it computes itself. */
int32_t inpage_parks(void) { return 1; }

void inpage_dismiss(int32_t from, int32_t to) { (void)from, (void)to; }
