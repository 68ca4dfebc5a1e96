/* The float libm that TVM's kernels call, for wasm only: natively the C library has it. Each result is a double
 * computation rounded once, so within about half an ulp. INPAGE_MATH_NAME lets the tests build it under other names. */
#include "numerics.h"
#ifndef INPAGE_MATH_NAME
#define INPAGE_MATH_NAME(name) name
#endif

float INPAGE_MATH_NAME(expf)(float x);
float INPAGE_MATH_NAME(exp2f)(float x);
float INPAGE_MATH_NAME(logf)(float x);
float INPAGE_MATH_NAME(log2f)(float x);
float INPAGE_MATH_NAME(powf)(float x, float y);
float INPAGE_MATH_NAME(sinf)(float x);
float INPAGE_MATH_NAME(cosf)(float x);

float INPAGE_MATH_NAME(expf)(float x) { return (float)inpage_exp((double)x); }
float INPAGE_MATH_NAME(exp2f)(float x) { return (float)inpage_exp2((double)x); }
float INPAGE_MATH_NAME(logf)(float x) { return (float)inpage_log((double)x); }
float INPAGE_MATH_NAME(powf)(float x, float y) { return inpage_powf(x, y); }

/* The exponent of a power of two is exact: log(2^k) * log2(e) rounds to k in float for every k of a float. */
float INPAGE_MATH_NAME(log2f)(float x) { return (float)(inpage_log((double)x) * 0x1.71547652b82fep+0); }

float INPAGE_MATH_NAME(sinf)(float x) {
  double sine, cosine;
  inpage_sincos(x, &sine, &cosine);
  return (float)sine;
}

float INPAGE_MATH_NAME(cosf)(float x) {
  double sine, cosine;
  inpage_sincos(x, &sine, &cosine);
  return (float)cosine;
}
