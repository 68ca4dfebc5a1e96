/* Reading logits that may be anything: NaN counts as -inf and +inf as FLT_MAX, so that sums and orders stay sane. */
#ifndef INPAGE_FLOATS_H
#define INPAGE_FLOATS_H
#include <float.h>

#include "numerics.h"

#define INPAGE_NEVER (-__builtin_inff())

static inline float inpage_clean(float x) {
  if (x != x) return INPAGE_NEVER;
  return x > FLT_MAX ? FLT_MAX : x;
}

static inline inpage_f32x4 inpage_select4(inpage_i32x4 condition, inpage_f32x4 yes, inpage_f32x4 no) {
  return (inpage_f32x4)(((inpage_i32x4)yes & condition) | ((inpage_i32x4)no & ~condition));
}

static inline inpage_f32x4 inpage_splat4(float x) { return (inpage_f32x4){x, x, x, x}; }

static inline inpage_f32x4 inpage_load4(const float *p) {
  inpage_f32x4 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static inline void inpage_store4(float *p, inpage_f32x4 v) { __builtin_memcpy(p, &v, sizeof v); }

static inline inpage_f32x4 inpage_clean4(inpage_f32x4 x) {
  const inpage_f32x4 high = inpage_splat4(FLT_MAX);
  return inpage_select4(x > high, high, inpage_select4(x == x, x, inpage_splat4(INPAGE_NEVER)));
}

/* A key that rises with x, for ordering by bits; 0 for NaN and -inf. -0 and 0 have the same. */
static inline uint32_t inpage_key(float x) {
  union { float f; uint32_t u; } v = {.f = inpage_clean(x) + 0.0f};
  if (v.u == 0xff800000u) return 0;
  return v.u & 0x80000000u ? ~v.u : v.u | 0x80000000u;
}
#endif
