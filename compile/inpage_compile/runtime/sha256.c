/* SHA-256 (FIPS 180-4), so that shards are hashed where they lie, while they arrive. */
#include "abi.h"

typedef struct {
  uint32_t h[8];
  uint32_t low, high;   /* bytes so far, 64 bits in two words */
  uint8_t block[64];    /* the bytes that do not fill a block yet */
} sha256;
_Static_assert(sizeof(sha256) <= INPAGE_SHA256_STATE_BYTES, "callers own so many bytes");

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

static uint32_t big_endian(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void compress(uint32_t *h, const uint8_t *data) {
  uint32_t w[16], s[8];
  for (int i = 0; i < 16; i++) w[i] = big_endian(data + 4 * i);
  for (int i = 0; i < 8; i++) s[i] = h[i];
  for (int i = 0; i < 64; i++) {
    if (i >= 16) {
      const uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
      w[i & 15] += w[(i + 9) & 15] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
    }
    const uint32_t t1 = s[7] + (rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25)) +
                        ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i & 15];
    const uint32_t t2 = (rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22)) +
                        ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int k = 7; k > 0; k--) s[k] = s[k - 1];
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}

void inpage_sha256_init(void *state) {
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  sha256 *s = state;
  for (int i = 0; i < 8; i++) s->h[i] = start[i];
  s->low = s->high = 0;
}

void inpage_sha256_update(void *state, const uint8_t *data, uint32_t n) {
  sha256 *s = state;
  uint32_t filled = s->low & 63;
  s->low += n;
  if (s->low < n) s->high++;
  while (n > 0) {
    if (filled == 0 && n >= 64) {
      compress(s->h, data);
      data += 64;
      n -= 64;
      continue;
    }
    s->block[filled++] = *data++;
    n--;
    if (filled == 64) {
      compress(s->h, s->block);
      filled = 0;
    }
  }
}

void inpage_sha256_final(void *state, uint8_t out[32]) {
  sha256 *s = state;
  const uint32_t bits_high = s->high << 3 | s->low >> 29, bits_low = s->low << 3;
  static const uint8_t padding[64] = {0x80};
  uint8_t length[8];
  for (int i = 0; i < 4; i++) {
    length[i] = (uint8_t)(bits_high >> (24 - 8 * i));
    length[4 + i] = (uint8_t)(bits_low >> (24 - 8 * i));
  }
  inpage_sha256_update(s, padding, 1 + ((119 - (s->low & 63)) & 63));
  inpage_sha256_update(s, length, 8);
  for (int i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}
