/* llama.cpp as the witness for quantized files: requantizes a GGUF file, and tells its perplexity on given ids.
 *
 *   llama_quantized BACKENDS quantize IN.gguf OUT.gguf TYPE     TYPE: a llama_ftype (0 F32, 15 Q4_K_M, 17 Q5_K_M, 18 Q6_K)
 *   llama_quantized BACKENDS perplexity FILE.gguf IDS.txt WINDOW
 *
 * Perplexity as `inpage score` tells it: independent windows, all positions but the first of each are predicted. To build:
 * llama.cpp's headers lie in the git bundle of npm node-llama-cpp (llama/gitRelease.bundle), its libraries, which are also
 * the folder BACKENDS, in @node-llama-cpp/linux-x64/bins/linux-x64:
 *
 *   cc -O2 -I llama.cpp/include -I llama.cpp/ggml/include llama_quantized.c -o llama_quantized $LIBS/libllama.v*.so \
 *      $LIBS/libggml.v*.so $LIBS/libggml-base.so -lm -Wl,-rpath,$LIBS
 */

#include "ggml-backend.h"
#include "llama.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_IDS = 1 << 20, THREADS = 2 };

static int quantize(const char *source, const char *target, int type) {
  struct llama_model_quantize_params how = llama_model_quantize_default_params();
  how.ftype = (enum llama_ftype)type;
  how.nthread = THREADS;
  how.allow_requantize = true;
  return (int)llama_model_quantize(source, target, &how);
}

static double nll(const float *logits, int32_t vocabulary, int32_t id) {
  double most = logits[0], sum = 0;
  for (int32_t v = 1; v < vocabulary; v++) most = logits[v] > most ? logits[v] : most;
  for (int32_t v = 0; v < vocabulary; v++) sum += exp(logits[v] - most);
  return log(sum) + most - logits[id];
}

static int perplexity(const char *file, const char *list, int32_t window) {
  struct llama_model *model = llama_model_load_from_file(file, llama_model_default_params());
  FILE *text = fopen(list, "r");
  if (!model || !text || window < 2) return 1;
  struct llama_context_params how = llama_context_default_params();
  how.n_ctx = how.n_batch = how.n_ubatch = (uint32_t)window;
  how.n_threads = how.n_threads_batch = THREADS;
  struct llama_context *context = llama_init_from_model(model, how);
  int32_t *ids = malloc(MOST_IDS * sizeof *ids);
  if (!context || !ids) return 1;
  int32_t count = 0;
  while (count < MOST_IDS && fscanf(text, "%d", &ids[count]) == 1) count++;
  fclose(text);
  const int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  struct llama_batch batch = llama_batch_init(window, 0, 1);
  double sum = 0;
  long positions = 0;
  for (int32_t at = 0; at + window <= count; at += window) {
    llama_memory_clear(llama_get_memory(context), true);
    batch.n_tokens = window;
    for (int32_t i = 0; i < window; i++) {
      batch.token[i] = ids[at + i];
      batch.pos[i] = i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = 1;
    }
    if (llama_decode(context, batch)) return 1;
    for (int32_t i = 0; i + 1 < window; i++, positions++) sum += nll(llama_get_logits_ith(context, i), vocabulary, ids[at + i + 1]);
  }
  printf("perplexity %.4f over %ld positions\n", exp(sum / (double)positions), positions);
  return positions == 0;
}

int main(int count, char **given) {
  if (count != 6) return 2;
  ggml_backend_load_all_from_path(given[1]);
  llama_backend_init();
  if (!strcmp(given[2], "quantize")) return quantize(given[3], given[4], atoi(given[5]));
  return perplexity(given[3], given[4], atoi(given[5]));
}
