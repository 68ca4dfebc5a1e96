/* The best of many passages: dot products of a query's vector with theirs, which are cosines as all have length 1.
 *
 * Vectors are padded with zeros to a multiple of 16 numbers. The order of the additions is fixed, so that a score has the
 * same bits wherever its row lies: number i of the products goes to sum i % 16; these are added as (0 + 4) + (8 + 12) and
 * so on, to four, and those as (0 + 1) + (2 + 3). `inpage build --examples` makes top_k.wasm of it. */
#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(name)))

extern uint8_t __heap_base;

/* Where memory is free from. */
EXPORT("heap") uint32_t heap(void) { return ((uint32_t)&__heap_base + 15) & ~15u; }

static float dot(const v128_t *a, const v128_t *b, uint32_t blocks) {
  v128_t sums[4] = {{0}, {0}, {0}, {0}};
  for (uint32_t i = 0; i < blocks; i++, a += 4, b += 4) {
#pragma clang loop unroll(full)
    for (int k = 0; k < 4; k++) sums[k] = wasm_f32x4_add(sums[k], wasm_f32x4_mul(a[k], b[k]));
  }
  v128_t sum = wasm_f32x4_add(wasm_f32x4_add(sums[0], sums[1]), wasm_f32x4_add(sums[2], sums[3]));
  return (wasm_f32x4_extract_lane(sum, 0) + wasm_f32x4_extract_lane(sum, 1)) +
         (wasm_f32x4_extract_lane(sum, 2) + wasm_f32x4_extract_lane(sum, 3));
}

/* Of `count` rows of 16 * `blocks` numbers the `k` with the highest scores, best first, equal ones in their order, into
 * `best` and `scores`. A score that is no number counts as none. Returns how many there are, at most `k`. */
EXPORT("top_k") uint32_t top_k(const v128_t *query, const v128_t *rows, uint32_t count, uint32_t blocks, uint32_t k,
                               uint32_t *best, float *scores) {
  uint32_t found = 0;
  if (k == 0) return 0;
  for (uint32_t row = 0; row < count; row++, rows += 4 * blocks) {
    float score = dot(query, rows, blocks);
    if (score != score || (found == k && score <= scores[k - 1])) continue;
    uint32_t at = found < k ? found++ : k - 1;
    for (; at > 0 && score > scores[at - 1]; at--) {
      scores[at] = scores[at - 1];
      best[at] = best[at - 1];
    }
    scores[at] = score;
    best[at] = row;
  }
  return found;
}
