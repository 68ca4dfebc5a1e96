/* The double-precision elementary functions of numerics.h: table-driven exp and log, Cody-Waite and a 2/pi table for
 * the reduction of sine and cosine (the scheme of ARM's optimized routines, written anew). */
#include "numerics.h"

static const double EXP2_TABLE[32] = {
    0x1.0000000000000p+0, 0x1.059b0d3158574p+0, 0x1.0b5586cf9890fp+0, 0x1.11301d0125b51p+0, 0x1.172b83c7d517bp+0,
    0x1.1d4873168b9aap+0, 0x1.2387a6e756238p+0, 0x1.29e9df51fdee1p+0, 0x1.306fe0a31b715p+0, 0x1.371a7373aa9cbp+0,
    0x1.3dea64c123422p+0, 0x1.44e086061892dp+0, 0x1.4bfdad5362a27p+0, 0x1.5342b569d4f82p+0, 0x1.5ab07dd485429p+0,
    0x1.6247eb03a5585p+0, 0x1.6a09e667f3bcdp+0, 0x1.71f75e8ec5f74p+0, 0x1.7a11473eb0187p+0, 0x1.82589994cce13p+0,
    0x1.8ace5422aa0dbp+0, 0x1.93737b0cdc5e5p+0, 0x1.9c49182a3f090p+0, 0x1.a5503b23e255dp+0, 0x1.ae89f995ad3adp+0,
    0x1.b7f76f2fb5e47p+0, 0x1.c199bdd85529cp+0, 0x1.cb720dcef9069p+0, 0x1.d5818dcfba487p+0, 0x1.dfc97337b9b5fp+0,
    0x1.ea4afa2a490dap+0, 0x1.f50765b6e4540p+0};

/* log(i/32) and 32/i for i = 22..46: z in [sqrt(1/2), sqrt(2)) lies within 1/64 of one of them, and 1 is one. */
static const double LOG_C[25] = {
    -0x1.7fafa3bd8151cp-2, -0x1.522ae0738a3d8p-2, -0x1.269621134db92p-2, -0x1.f991c6cb3b379p-3, -0x1.a93ed3c8ad9e3p-3,
    -0x1.5bf406b543db2p-3, -0x1.1178e8227e47cp-3, -0x1.9335e5d594989p-4, -0x1.08598b59e3a07p-4, -0x1.0415d89e74444p-5,
    0x0.0p+0,              0x1.f829b0e783300p-6,  0x1.f0a30c01162a6p-5,  0x1.6f0d28ae56b4cp-4,  0x1.e27076e2af2e6p-4,
    0x1.29552f81ff523p-3,  0x1.5ff3070a793d4p-3,  0x1.9525a9cf456b4p-3,  0x1.c8ff7c79a9a22p-3,  0x1.fb9186d5e3e2bp-3,
    0x1.1675cababa60ep-2,  0x1.2e8e2bae11d31p-2,  0x1.4618bc21c5ec2p-2,  0x1.5d1bdbf5809cap-2,  0x1.739d7f6bbd007p-2};
static const double INV_C[25] = {
    0x1.745d1745d1746p+0, 0x1.642c8590b2164p+0, 0x1.5555555555555p+0, 0x1.47ae147ae147bp+0, 0x1.3b13b13b13b14p+0,
    0x1.2f684bda12f68p+0, 0x1.2492492492492p+0, 0x1.1a7b9611a7b96p+0, 0x1.1111111111111p+0, 0x1.0842108421084p+0,
    0x1.0000000000000p+0, 0x1.f07c1f07c1f08p-1, 0x1.e1e1e1e1e1e1ep-1, 0x1.d41d41d41d41dp-1, 0x1.c71c71c71c71cp-1,
    0x1.bacf914c1bad0p-1, 0x1.af286bca1af28p-1, 0x1.a41a41a41a41ap-1, 0x1.999999999999ap-1, 0x1.8f9c18f9c18fap-1,
    0x1.8618618618618p-1, 0x1.7d05f417d05f4p-1, 0x1.745d1745d1746p-1, 0x1.6c16c16c16c17p-1, 0x1.642c8590b2164p-1};

/* The bits of 2/pi, 32 at a time, each word one byte further on. */
static const uint32_t TWO_OVER_PI[24] = {0x000000a2, 0x0000a2f9, 0x00a2f983, 0xa2f9836e, 0xf9836e4e, 0x836e4e44,
                                         0x6e4e4415, 0x4e441529, 0x441529fc, 0x1529fc27, 0x29fc2757, 0xfc2757d1,
                                         0x2757d1f5, 0x57d1f534, 0xd1f534dd, 0xf534ddc0, 0x34ddc0db, 0xddc0db62,
                                         0xc0db6295, 0xdb629599, 0x6295993c, 0x95993c43, 0x993c4390, 0x3c439041};

static double from_bits(uint64_t bits) {
  union { uint64_t u; double d; } v = {.u = bits};
  return v.d;
}

static uint64_t to_bits(double x) {
  union { double d; uint64_t u; } v = {.d = x};
  return v.u;
}

/* 2^(k/32) * e^r with |r| <= ln2/64, for results inside the range of normal doubles. */
static double assemble(int32_t k, double r) {
  const double r2 = r * r;
  const double p = r + r2 * (0.5 + r * (1.0 / 6)) + r2 * r2 * (1.0 / 24 + r * (1.0 / 120) + r2 * (1.0 / 720));
  const double scale = from_bits(to_bits(EXP2_TABLE[k & 31]) + ((uint64_t)(int64_t)(k >> 5) << 52));
  return scale + scale * p;
}

double inpage_exp(double x) {
  if (!(x > -708.0)) return x != x ? x : 0.0;
  if (x > 709.0) return from_bits(0x7ff0000000000000u);
  const double kd = x * 0x1.71547652b82fep+5 + 0x1.8p52;
  const double k = kd - 0x1.8p52;
  return assemble((int32_t)k, (x - k * 0x1.62e42fee00000p-6) - k * 0x1.a39ef35793c76p-38);
}

double inpage_exp2(double x) {
  if (!(x > -1021.0)) return x != x ? x : 0.0;
  if (x > 1023.0) return from_bits(0x7ff0000000000000u);
  const double kd = x * 32.0 + 0x1.8p52;
  const double k = kd - 0x1.8p52;
  return assemble((int32_t)k, (x - k * (1.0 / 32)) * 0x1.62e42fefa39efp-1);
}

double inpage_log(double x) {
  uint64_t bits = to_bits(x);
  int64_t k = 0;
  if (!(x > 0.0)) return x == 0.0 ? -from_bits(0x7ff0000000000000u) : from_bits(0x7ff8000000000000u);
  if (bits >= 0x7ff0000000000000u) return x;
  if (bits < 0x0010000000000000u) {
    bits = to_bits(x * 0x1p54);
    k = -54;
  }
  /* z in [sqrt(1/2), sqrt(2)) */
  const uint64_t offset = bits - 0x3fe6a09e667f3bcdu;
  k += (int64_t)offset >> 52;
  const double z = from_bits(bits - (offset & 0xfff0000000000000u));
  const int32_t i = (int32_t)(z * 32.0 + 0.5);
  const double r = (z - (double)i * (1.0 / 32)) * INV_C[i - 22];
  double p = 1.0 / 9 - r * (1.0 / 10);
  p = 1.0 / 8 - r * p;
  p = 1.0 / 7 - r * p;
  p = 1.0 / 6 - r * p;
  p = 1.0 / 5 - r * p;
  p = 1.0 / 4 - r * p;
  p = 1.0 / 3 - r * p;
  p = 1.0 / 2 - r * p;
  const double kd = (double)k;
  return kd * 0x1.62e42fee00000p-1 + (LOG_C[i - 22] + (kd * 0x1.a39ef35793c76p-33 + (r - r * r * p)));
}

/* x reduced to [-pi/4, pi/4], and the quadrant. */
static double reduce(float x, uint32_t *quadrant) {
  const double magnitude = x < 0 ? -(double)x : (double)x;
  if (magnitude < 0x1p22) { /* the head of pi/2 has 33 bits, so k * head is exact */
    const double k = (magnitude * 0x1.45f306dc9c883p-1 + 0x1.8p52) - 0x1.8p52;
    *quadrant = (uint32_t)k;
    return (magnitude - k * 0x1.921fb54400000p+0) - k * 0x1.0b4611a626331p-34;
  }
  union { float f; uint32_t u; } v = {.f = (float)magnitude};
  const uint32_t *word = &TWO_OVER_PI[(v.u >> 26) & 15];
  const uint32_t mantissa = ((v.u & 0xffffff) | 0x800000) << ((v.u >> 23) & 7);
  uint64_t product = (uint64_t)(uint32_t)(mantissa * word[0]) << 32;
  product |= ((uint64_t)mantissa * word[8]) >> 32;
  product += (uint64_t)mantissa * word[4];
  const uint64_t n = (product + (1ULL << 61)) >> 62;
  *quadrant = (uint32_t)n;
  return (double)(int64_t)(product - (n << 62)) * 0x1.921fb54442d18p-62;
}

void inpage_sincos(float x, double *sine, double *cosine) {
  if (!(x - x == 0.0f)) {
    *sine = *cosine = from_bits(0x7ff8000000000000u);
    return;
  }
  uint32_t quadrant;
  const double r = reduce(x, &quadrant);
  const double r2 = r * r;
  double s = -1.0 / 39916800 + r2 * (1.0 / 6227020800.0);
  s = 1.0 / 362880 + r2 * s;
  s = -1.0 / 5040 + r2 * s;
  s = 1.0 / 120 + r2 * s;
  s = r + r * r2 * (-1.0 / 6 + r2 * s);
  double c = 1.0 / 479001600 - r2 * (1.0 / 87178291200.0);
  c = -1.0 / 3628800 + r2 * c;
  c = 1.0 / 40320 + r2 * c;
  c = -1.0 / 720 + r2 * c;
  c = 1.0 - r2 * (0.5 - r2 * (1.0 / 24 + r2 * c));
  const double swapped_s = (quadrant & 1) ? c : s;
  const double swapped_c = (quadrant & 1) ? s : c;
  const double signed_s = (quadrant & 2) ? -swapped_s : swapped_s;
  *sine = x < 0 ? -signed_s : (x == 0.0f ? (double)x : signed_s);
  *cosine = ((quadrant + 1) & 2) ? -swapped_c : swapped_c;
}

/* C99 Annex F for the special cases; otherwise exp2(y * log2(x)) in double, far inside float's rounding. */
float inpage_powf(float x, float y) {
  const float inf = (float)from_bits(0x7ff0000000000000u);
  if (y == 0.0f || x == 1.0f) return 1.0f;
  if (x != x || y != y) return x + y;
  const float ay = y < 0 ? -y : y;
  float ax = x < 0 ? -x : x;
  if (ay == inf) return ax == 1.0f ? 1.0f : ((ax > 1.0f) == (y > 0) ? inf : 0.0f);
  const int whole = ay >= 0x1p24f || (float)(int32_t)ay == ay;
  const int odd = whole && ay < 0x1p24f && ((int32_t)ay & 1);
  union { float f; uint32_t u; } sign = {.f = x};
  const int negative = (int)(sign.u >> 31);
  const float unit = negative && odd ? -1.0f : 1.0f;
  if (ax == 0.0f || ax == inf) return (ax == 0.0f) == (y < 0) ? unit * inf : unit * 0.0f;
  if (negative && !whole) return (float)from_bits(0x7ff8000000000000u);
  return unit * (float)inpage_exp2((double)y * (inpage_log((double)ax) * 0x1.71547652b82fep+0));
}
