/* Handwritten kernels of a toy "language model", as TVM's would be linked: its logits are hashes of all tokens so far,
 * read back from KV pages through the block table, so that any mistake in batching, pages or barriers shows. */
#include "abi.h"

enum { LANES = 8, PAGE = 16 };

static uint32_t rotl(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* token_ids, positions, row_sequence, block_tables, kv (x) · rows, blocks, the group's first column, which is added to
 * what is stored: no group can do with another's pages. */
static void append(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  const int32_t *ids = b[0], *positions = b[1], *sequence = b[2], *tables = b[3];
  uint32_t *kv = b[4];
  for (int32_t r = thread; r < s[0]; r += threads) {
    const int32_t page = tables[sequence[r] * s[1] + s[2] + positions[r] / PAGE];
    kv[page * PAGE + positions[r] % PAGE] = (uint32_t)(ids[r] + s[2]);
  }
}

/* positions, row_sequence, block_tables, kv, state (w) · rows, blocks */
static void digest(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  const int32_t *positions = b[0], *sequence = b[1], *tables = b[2];
  const uint32_t *kv = b[3];
  uint32_t *state = b[4];
  for (int32_t r = thread; r < s[0]; r += threads)
    for (int32_t lane = 0; lane < LANES; lane++) {
      uint32_t sum = 0;
      for (int32_t p = 0; p <= positions[r]; p++) {
        const uint32_t token = kv[tables[sequence[r] * s[1] + p / PAGE] * PAGE + p % PAGE];
        sum += (token + 1u) * 2654435761u * (2u * (uint32_t)p + 1u) + (uint32_t)lane;
      }
      state[r * LANES + lane] = sum;
    }
}

/* positions, row_sequence, block_tables, kv, state (x) · rows, blocks, the group's first column, its window */
static void slide(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  const int32_t *positions = b[0], *sequence = b[1], *tables = b[2];
  const uint32_t *kv = b[3];
  uint32_t *state = b[4];
  for (int32_t r = thread; r < s[0]; r += threads)
    for (int32_t p = positions[r] < s[3] ? 0 : positions[r] - s[3] + 1; p <= positions[r]; p++) {
      const uint32_t token = kv[tables[sequence[r] * s[1] + s[2] + p / PAGE] * PAGE + p % PAGE] - (uint32_t)s[2];
      for (int32_t lane = 0; lane < LANES; lane++)
        state[r * LANES + lane] += (token + 3u) * 3266489917u * (2u * (uint32_t)p + 1u);
    }
}

/* in, out (w) · rows, round: each lane needs another lane's value, which another thread made in the launch before. */
static void mix(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  const uint32_t *in = b[0];
  uint32_t *out = b[1];
  for (int32_t i = thread; i < s[0] * LANES; i += threads) {
    const int32_t neighbour = i - i % LANES + (i + 1) % LANES;
    out[i] = rotl(in[i], 7) + in[neighbour] * 2246822519u + (uint32_t)s[1];
  }
}

/* state, logit_rows, salt, logits (w) · logit rows, vocab */
static void logits(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  const uint32_t *state = b[0];
  const int32_t *rows = b[1];
  const float *salt = b[2];
  float *out = b[3];
  for (int32_t i = 0; i < s[0]; i++)
    for (int32_t v = thread; v < s[1]; v += threads) {
      const uint32_t h = rotl(state[rows[i] * LANES + v % LANES] * 2654435761u, 13) * (2u * (uint32_t)v + 1u);
      out[i * s[1] + v] = (float)(h >> 8) * (16.0f / 16777216.0f) - 8.0f + salt[v];
    }
}

/* scratch (w) · bytes: two blocks at once, as a kernel with two local buffers asks for them. */
void *TVMBackendAllocWorkspace(int, int, uint64_t, int, int);
int TVMBackendFreeWorkspace(int, int, void *);
static void scratch(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  (void)threads;
  uint8_t *first = TVMBackendAllocWorkspace(1, 0, (uint64_t)s[0], 2, 32);
  uint8_t *second = TVMBackendAllocWorkspace(1, 0, (uint64_t)s[0], 2, 32);
  for (int32_t i = 0; i < s[0]; i++) {
    first[i] = (uint8_t)(thread + 1);
    second[i] = (uint8_t)(thread + 101);
  }
  int32_t wrong = ((uintptr_t)first | (uintptr_t)second) & 63 ? 1 : 0;
  for (int32_t i = 0; i < s[0]; i++) wrong += first[i] != thread + 1 || second[i] != thread + 101;
  TVMBackendFreeWorkspace(1, 0, second);
  TVMBackendFreeWorkspace(1, 0, first);
  ((int32_t *)b[0])[thread] = wrong;
}

/* marks (w) · where the count of shares that are done stands: a share each; the second is done when all others are. */
static void linger(void *const *b, const int32_t *s, int32_t thread, int32_t threads) {
  int32_t *marks = b[0], *done = &marks[s[0]];
  if (thread == 1)
    for (int64_t turns = 1ll << 33; turns > 0 && __atomic_load_n(done, __ATOMIC_ACQUIRE) < threads - 1; turns--) {
    }
  __atomic_fetch_add(&marks[thread], 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(done, thread == 1 && __atomic_load_n(done, __ATOMIC_ACQUIRE) < threads - 1 ? 1000 : 1, __ATOMIC_RELEASE);
}

const inpage_kernel inpage_kernels[] = {append, digest, mix, logits, scratch, slide, linger};
const int32_t inpage_kernel_shares[] = {0, 0, 64, 0, 0, 0, 20};
const int32_t inpage_kernel_count = 7;
