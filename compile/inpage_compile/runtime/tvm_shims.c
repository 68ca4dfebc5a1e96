/* The few functions of TVM's own runtime that its compiled kernels refer to, and the scratch stacks behind them. */
#include "runtime.h"

#ifdef __wasm__
#define REGION (128 * 1024)
#else
#define REGION (4 * 1024 * 1024) /* address space only until it is used */
#endif
#define ALIGNMENT 128 /* a block's header takes one unit, so that blocks stay aligned */

typedef struct { uint32_t previous, live; } header;

static _Alignas(ALIGNMENT) uint8_t regions[INPAGE_MAX_THREADS][REGION];
static struct { _Alignas(64) uint32_t top, last; } stacks[INPAGE_MAX_THREADS]; /* last: the newest block's header */

/* A kernel that needs more than a region is a bug of the build, and there is no way to fail inside a launch. */
void *inpage_scratch(uint32_t bytes) {
  const int32_t thread = inpage_thread_id();
  const uint32_t at = stacks[thread].top;
  if (bytes > REGION - ALIGNMENT || at > REGION - ALIGNMENT - bytes) __builtin_trap();
  header *h = (header *)(void *)&regions[thread][at];
  h->previous = stacks[thread].last;
  h->live = 1;
  stacks[thread].last = at;
  stacks[thread].top = at + ALIGNMENT + ((bytes + ALIGNMENT - 1) & ~(uint32_t)(ALIGNMENT - 1));
  return &regions[thread][at + ALIGNMENT];
}

/* Frees in any order; space comes back when everything above it is free. */
void inpage_scratch_free(void *block) {
  const int32_t thread = inpage_thread_id();
  ((header *)(void *)((uint8_t *)block - ALIGNMENT))->live = 0;
  while (stacks[thread].top > 0) {
    const header *h = (const header *)(void *)&regions[thread][stacks[thread].last];
    if (h->live) break;
    stacks[thread].top = stacks[thread].last;
    stacks[thread].last = h->previous;
  }
}

void *TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t bytes, int type_code, int type_bits);
int TVMBackendFreeWorkspace(int device_type, int device_id, void *block);
int TVMFFIEnvModRegisterSystemLibSymbol(const char *name, void *symbol);

void *TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t bytes, int type_code, int type_bits) {
  (void)device_type, (void)device_id, (void)type_code, (void)type_bits;
  return inpage_scratch(bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes);
}

int TVMBackendFreeWorkspace(int device_type, int device_id, void *block) {
  (void)device_type, (void)device_id;
  inpage_scratch_free(block);
  return 0;
}

/* Kernels are linked by name here; nobody asks a registry. */
int TVMFFIEnvModRegisterSystemLibSymbol(const char *name, void *symbol) {
  (void)name, (void)symbol;
  return 0;
}
