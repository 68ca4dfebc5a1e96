/* What one core can do at most, from WebAssembly: bytes read, and products added up in registers. Each kernel leaves
 * sums that the caller works out for itself, so that no compiler can have left the work out.
 *
 * The products are those of a matrix multiplication's inner tile: four vectors of activations stay in registers, two
 * vectors of weights come from the first-level cache, eight accumulators are independent of each other. */
#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define ROWS 4

/* Between two passes: memory may have changed, so nothing read before may be used again. */
#define FORGET() __asm__ volatile("" ::: "memory")

/* count 32-bit words: first, first + 1, … */
EXPORT("fill") void fill(uint32_t *words, uint32_t count, uint32_t first) {
  for (uint32_t i = 0; i < count; i++) words[i] = first + i;
}

/* The sum of `vectors` (a multiple of 8) vectors, `passes` times, as four 32-bit lanes. */
EXPORT("read") void read(const v128_t *from, uint32_t vectors, uint32_t passes, v128_t *out) {
  v128_t sums[8];
  for (int k = 0; k < 8; k++) sums[k] = wasm_i32x4_splat(0);
  for (uint32_t pass = 0; pass < passes; pass++) {
    FORGET();
    for (uint32_t i = 0; i < vectors; i += 8) {
#pragma clang loop unroll(full)
      for (int k = 0; k < 8; k++) sums[k] = wasm_i32x4_add(sums[k], from[i + k]);
    }
  }
  for (int k = 1; k < 8; k++) sums[0] = wasm_i32x4_add(sums[0], sums[k]);
  *out = sums[0];
}

static inline v128_t dot16(v128_t x, v128_t w, v128_t sum) {
  return wasm_i16x8_add(sum, wasm_i16x8_relaxed_dot_i8x16_i7x16(x, w));
}

static inline v128_t dot32(v128_t x, v128_t w, v128_t sum) {
  return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, w, sum);
}

static inline v128_t madd(v128_t x, v128_t w, v128_t sum) { return wasm_f32x4_relaxed_madd(x, w, sum); }

/* out[4 p + r] = Σ x[r] · w[2 i + p], over all pairs of `vectors` (a multiple of 4) weights, `passes` times. */
#define PRODUCTS(name, step)                                                                              \
  EXPORT(#name) void name##_products(const v128_t *x, const v128_t *w, uint32_t vectors, uint32_t passes, \
                                     v128_t *out) {                                                       \
    v128_t rows[ROWS], sums[2 * ROWS];                                                                    \
    for (int r = 0; r < ROWS; r++) rows[r] = x[r];                                                        \
    for (int k = 0; k < 2 * ROWS; k++) sums[k] = wasm_i32x4_splat(0);                                     \
    for (uint32_t pass = 0; pass < passes; pass++) {                                                      \
      FORGET();                                                                                           \
      for (uint32_t i = 0; i < vectors; i += 4) {                                                         \
        _Pragma("clang loop unroll(full)") for (int j = 0; j < 4; j++) {                                  \
          v128_t weights = w[i + j];                                                                      \
          _Pragma("clang loop unroll(full)") for (int r = 0; r < ROWS; r++) {                             \
            int k = ROWS * (j % 2) + r;                                                                   \
            sums[k] = step(rows[r], weights, sums[k]);                                                    \
          }                                                                                               \
        }                                                                                                 \
      }                                                                                                   \
    }                                                                                                     \
    for (int k = 0; k < 2 * ROWS; k++) out[k] = sums[k];                                                  \
  }

PRODUCTS(dot16, dot16)
PRODUCTS(dot32, dot32)
PRODUCTS(madd, madd)
