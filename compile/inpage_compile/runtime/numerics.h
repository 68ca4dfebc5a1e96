/* Elementary functions in double precision with the same bits on every target: plain IEEE arithmetic in a fixed order,
 * no libm, contraction off. The sampler and the scorer use them everywhere; in wasm they are also the kernels' libm. */
#ifndef INPAGE_NUMERICS_H
#define INPAGE_NUMERICS_H
#include <stdint.h>

double inpage_exp(double x);  /* ~1e-15 relative */
double inpage_exp2(double x); /* ~1e-15 relative */
double inpage_log(double x);  /* ~1e-15 relative, also around 1 */
void inpage_sincos(float x, double *sine, double *cosine); /* ~1e-14 absolute, for every finite float */
float inpage_powf(float x, float y);

/* Four floats; clang lowers it to one SIMD register on both targets. */
typedef float inpage_f32x4 __attribute__((vector_size(16)));
typedef double inpage_f64x4 __attribute__((vector_size(32)));
typedef int32_t inpage_i32x4 __attribute__((vector_size(16)));

/* exp of four floats <= 0, to about 1e-7 relative; 0 below -87 and for -inf. Coefficients: Cephes expf. */
static inline inpage_f32x4 inpage_exp4(inpage_f32x4 x) {
  const inpage_i32x4 tiny = x < -87.0f;
  x = (inpage_f32x4)(((inpage_i32x4)x & ~tiny)); /* a clean 0 where the answer is 0 anyway */
  const inpage_f32x4 shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
  const inpage_i32x4 n = (inpage_i32x4)shifted - 0x4b400000;
  const inpage_f32x4 whole = shifted - 12582912.0f;
  const inpage_f32x4 r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  inpage_f32x4 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const inpage_i32x4 bits = (inpage_i32x4)p + (n << 23);
  return (inpage_f32x4)(bits & ~tiny);
}
#endif
