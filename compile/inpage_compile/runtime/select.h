/* Which tokens stay after top-k, top-p and min-p, and the draw among them. All three filters keep a prefix of the
 * tokens in order of (logit falling, id rising): what stays is one cut, found without sorting the vocabulary. */
#ifndef INPAGE_SELECT_H
#define INPAGE_SELECT_H
#include <stdint.h>

#define INPAGE_SHORT 2048 /* candidates that are worth a list of their own */

/* Candidates in rising order of id: the whole row (ids NULL), or later a short list. Those that stay have a key (see
 * floats.h) above `key`, or equal to it and an index up to `last`. NaN and -inf never stay. */
typedef struct {
  const float *x;
  const int32_t *ids;
  int32_t n;
  const uint32_t *mask; /* whole row only: bit set = allowed; NULL: all */
  float max;            /* the highest candidate's logit */
  double total;         /* sum of exp(x - max) over all that stay; 0: not known */
  uint32_t key;         /* start: 0 */
  int32_t last;         /* start: -1 */
  float *short_x;       /* room for the short list: INPAGE_SHORT each */
  int32_t *short_ids;
} inpage_selection;

int32_t inpage_best(inpage_selection *s);          /* sets max; the lowest id that has it, -1 if nobody stays */
void inpage_top_k(inpage_selection *s, int32_t k); /* k >= 1 */
void inpage_top_p(inpage_selection *s, float p);   /* the shortest prefix whose probability reaches p, >= 1 token */
void inpage_min_p(inpage_selection *s, float p);   /* logit >= max + log p */
/* The first token, in order of id, whose cumulative weight exp((x - max) / temperature) exceeds u of the total. */
int32_t inpage_draw(const inpage_selection *s, float temperature, double u);
#endif
