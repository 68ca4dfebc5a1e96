/* llama.cpp measured natively: its prebuilt libraries driven greedily over JSON lines on stdin and stdout.
 *
 *   {"op":"open","libraries":DIR,"base","ggml","llama":file names there,"model":GGUF}  → {"version","system",…}
 *   {"op":"context","threads":2,"length":4096,"sequences":1}   length: tokens of KV for each sequence
 *   {"op":"serve","ids":[…],"lengths":[…],"tokens":64}  → {"ids":[…],"ms":[…]}: `tokens` of each prompt's answer, and
 *       when each came, from the start; as many prompts at a time as there are sequences
 *
 * An answer is one line: {"ok":true,…} or {"ok":false,"error":…}. End tokens are generated over, as every engine
 * beside it does, so that exactly `tokens` come. llama.cpp's headers are not in the npm packages that carry the
 * libraries, so the few functions used are declared here; what a wrong declaration would break is asked back from
 * the library (`set_context`, `make_batch`) before anything is measured. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Parameter structs go by value. They are declared longer than any release's, filled by the library's own
 * `…_default_params`, and changed in their leading fields only, which have kept their places. */
typedef struct { uint64_t words[64]; } Params;
enum { N_CTX = 0, N_BATCH = 1, N_UBATCH = 2, N_SEQ_MAX = 3 }; /* in 32-bit words; n_threads is found by its getter */
enum { N_GPU_LAYERS = 4 };                                    /* behind two pointers of llama_model_params */
enum { UBATCH = 512, MAX_SEQUENCES = 64 };

typedef struct {
  int32_t n_tokens, *token;
  float *embd;
  int32_t *pos, *n_seq_id, **seq_id;
  int8_t *logits;
  uint64_t beyond[8];
} Batch;

/* struct ggml_threadpool_params ends in n_threads, prio, poll and two booleans behind a mask of 512 CPUs. */
typedef struct { bool cpus[512]; int32_t threads, priority; uint32_t poll; bool strict, paused; char beyond[64]; } Pool;

typedef void Model, Context;
static void (*load_backends)(const char *folder);
static void (*backend_init)(void);
static void (*log_set)(void (*)(int, const char *, void *), void *);
static const char *(*version)(void);
static const char *(*system_info)(void);
static Params (*model_defaults)(void);
static Model *(*model_load)(const char *, Params);
static void *(*model_vocab)(const Model *);
static int32_t (*vocab_size)(const void *);
static Params (*context_defaults)(void);
static Context *(*context_new)(Model *, Params);
static void (*context_free)(Context *);
static uint32_t (*count_context)(const Context *);
static uint32_t (*count_sequences)(const Context *);
static uint32_t (*count_ubatch)(const Context *);
static int32_t (*count_threads)(Context *);
static void (*set_threads)(Context *, int32_t, int32_t);
static Batch (*batch_init)(int32_t, int32_t, int32_t);
static int32_t (*decode)(Context *, Batch);
static float *(*logits_of)(Context *, int32_t);
static void *(*memory_of)(const Context *);
static void (*memory_clear)(void *, bool);
static bool (*memory_remove)(void *, int32_t, int32_t, int32_t);
static Pool (*pool_defaults)(int);
static void *(*device_by_type)(int);
static void *(*registry_of)(void *);
static void *(*proc_address)(void *, const char *);
static void (*attach_pool)(Context *, void *, void *);

static Model *model;
static Context *context;
static void *pool;
static Batch batch;
static int32_t vocabulary, sequence_room, sequences;
static char problem[512], heard[512]; /* heard: the last complaint in llama.cpp's own log */

static bool fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(problem, sizeof problem, format, args);
  va_end(args);
  return false;
}

static void listen(int level, const char *text, void *data) {
  (void)data;
  if (level == 4) snprintf(heard, sizeof heard, "%s", text); /* GGML_LOG_LEVEL_ERROR */
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* -- the command line's values: flat JSON objects, as `json.dumps` writes them ------------------------------------ */

static const char *value_of(const char *line, const char *key) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\":", key);
  const char *found = strstr(line, quoted);
  if (!found) return NULL;
  found += strlen(quoted);
  while (*found == ' ') found++;
  return found;
}

static bool text_of(const char *line, const char *key, char *out, size_t room) {
  const char *at = value_of(line, key);
  if (!at || *at++ != '"') return fail("%s: a string is missing", key);
  size_t n = 0;
  for (; *at && *at != '"' && n + 1 < room; at++) {
    if (*at == '\\') at++; /* a path's escapes are \" and \\ alone: other characters come as UTF-8 */
    out[n++] = *at;
  }
  out[n] = 0;
  return *at == '"' || fail("%s: too long", key);
}

static bool number_of(const char *line, const char *key, int32_t low, int32_t high, int32_t *out) {
  const char *at = value_of(line, key);
  char *end;
  long n = at ? strtol(at, &end, 10) : 0;
  if (!at || end == at || n < low || n > high) return fail("%s: a whole number in %d..%d is needed", key, low, high);
  *out = (int32_t)n;
  return true;
}

static int32_t *numbers_of(const char *line, const char *key, int32_t high, int32_t *count) {
  const char *at = value_of(line, key);
  if (!at || *at++ != '[') return fail("%s: a list is missing", key), NULL;
  int32_t *out = malloc((strlen(at) / 2 + 1) * sizeof *out);
  *count = 0;
  for (char *end; *at && *at != ']'; at = end + strspn(end, ", ")) {
    long n = strtol(at, &end, 10);
    if (end == at || n < 0 || n >= high) {
      free(out);
      return fail("%s: whole numbers below %d are needed", key, high), NULL;
    }
    out[(*count)++] = (int32_t)n;
  }
  return out;
}

/* -- the libraries ------------------------------------------------------------------------------------------------ */

static bool bind_all(const char *folder, const char *const *files, size_t n_files) {
  void *handles[8];
  for (size_t i = 0; i < n_files; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, files[i]);
    handles[i] = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!handles[i]) return fail("%s", dlerror());
  }
  const struct { const char *name; void *where; } names[] = {
    {"ggml_backend_load_all_from_path", &load_backends}, {"llama_backend_init", &backend_init},
    {"llama_log_set", &log_set}, {"llama_version", &version}, {"llama_print_system_info", &system_info},
    {"llama_model_default_params", &model_defaults}, {"llama_model_load_from_file", &model_load},
    {"llama_model_get_vocab", &model_vocab}, {"llama_vocab_n_tokens", &vocab_size},
    {"llama_context_default_params", &context_defaults}, {"llama_init_from_model", &context_new},
    {"llama_free", &context_free}, {"llama_n_ctx", &count_context}, {"llama_n_seq_max", &count_sequences},
    {"llama_n_ubatch", &count_ubatch}, {"llama_n_threads", &count_threads}, {"llama_set_n_threads", &set_threads},
    {"llama_batch_init", &batch_init}, {"llama_decode", &decode}, {"llama_get_logits_ith", &logits_of},
    {"llama_get_memory", &memory_of}, {"llama_memory_clear", &memory_clear},
    {"llama_memory_seq_rm", &memory_remove},
    {"ggml_threadpool_params_default", &pool_defaults}, {"ggml_backend_dev_by_type", &device_by_type},
    {"ggml_backend_dev_backend_reg", &registry_of}, {"ggml_backend_reg_get_proc_address", &proc_address},
    {"llama_attach_threadpool", &attach_pool},
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *found = NULL;
    for (size_t j = 0; j < n_files && !found; j++) found = dlsym(handles[j], names[i].name);
    if (!found) return fail("the libraries lack %s", names[i].name);
    memcpy(names[i].where, &found, sizeof found);
  }
  return true;
}

static bool open_model(const char *line) {
  char folder[2048], path[2048], base[128], ggml[128], llama[128];
  if (model) return fail("a model is open");
  if (!text_of(line, "libraries", folder, sizeof folder) || !text_of(line, "model", path, sizeof path) ||
      !text_of(line, "base", base, sizeof base) || !text_of(line, "ggml", ggml, sizeof ggml) ||
      !text_of(line, "llama", llama, sizeof llama))
    return false;
  const char *files[] = {base, ggml, llama};
  if (!bind_all(folder, files, 3)) return false;
  log_set(listen, NULL);
  load_backends(folder); /* of the builds for this architecture, the best that this CPU can run */
  backend_init();
  double start = now_ms();
  Params params = model_defaults();
  ((int32_t *)params.words)[N_GPU_LAYERS] = 0;
  model = model_load(path, params);
  if (!model) return fail("llama.cpp could not load the model: %s", heard);
  vocabulary = vocab_size(model_vocab(model));
  printf("{\"ok\":true,\"load_ms\":%.3f,\"vocabulary\":%d,\"version\":\"%s\",\"system\":\"%s\"}\n", now_ms() - start,
         vocabulary, version(), system_info());
  return true;
}

/* A pool that lives as long as the context, as llama.cpp's own tools have; without one, ggml starts and ends threads
 * at every token. */
static bool make_pool(int32_t threads) {
  void *registry = registry_of(device_by_type(0)); /* GGML_BACKEND_DEVICE_TYPE_CPU */
  void *(*pool_new)(Pool *) = NULL;
  void (*pool_free)(void *) = NULL;
  void *found = proc_address(registry, "ggml_threadpool_new"), *end = proc_address(registry, "ggml_threadpool_free");
  if (!found || !end) return fail("the CPU library lacks ggml_threadpool_new");
  memcpy(&pool_new, &found, sizeof found);
  memcpy(&pool_free, &end, sizeof end);
  if (pool) pool_free(pool);
  Pool params = pool_defaults(threads);
  if (params.threads != threads || params.poll > 100) return fail("ggml_threadpool_params has another layout");
  pool = pool_new(&params);
  return pool != NULL || fail("no threads");
}

static bool make_batch(int32_t room) {
  batch = batch_init(room, 0, 1); /* never freed: contexts are few */
  bool known = batch.n_tokens == 0 && !batch.embd && batch.token && batch.pos && batch.seq_id && batch.logits &&
               batch.seq_id[room - 1] && !batch.seq_id[room];
  return known || fail("llama_batch has another layout");
}

static bool set_context(const char *line) {
  int32_t threads, length, count;
  if (!model) return fail("no model is open");
  if (!number_of(line, "threads", 1, 256, &threads) || !number_of(line, "length", 1, 1 << 20, &length) ||
      !number_of(line, "sequences", 1, MAX_SEQUENCES, &count))
    return false;
  if (context) context_free(context);
  context = NULL;
  Params params = context_defaults();
  uint32_t *words = (uint32_t *)params.words;
  uint32_t all = (uint32_t)(length * count), ubatch = all < UBATCH ? all : UBATCH;
  words[N_CTX] = all;
  words[N_UBATCH] = ubatch;
  words[N_BATCH] = (uint32_t)length > UBATCH ? (uint32_t)length : UBATCH;
  words[N_SEQ_MAX] = (uint32_t)count;
  context = context_new(model, params);
  if (!context) return fail("llama.cpp made no context: %s", heard);
  set_threads(context, threads, threads);
  if (count_context(context) < all || count_sequences(context) != (uint32_t)count ||
      count_ubatch(context) != ubatch || count_threads(context) != threads)
    return fail("llama_context_params has another layout");
  if (!make_pool(threads) || !make_batch((int32_t)words[N_BATCH])) return false;
  attach_pool(context, pool, NULL);
  sequences = count;
  sequence_room = length;
  printf("{\"ok\":true}\n");
  return true;
}

/* -- decoding ----------------------------------------------------------------------------------------------------- */

static void put(int32_t token, int32_t position, int32_t sequence, bool want) {
  int32_t i = batch.n_tokens++;
  batch.token[i] = token;
  batch.pos[i] = position;
  batch.n_seq_id[i] = 1;
  batch.seq_id[i][0] = sequence;
  batch.logits[i] = want;
}

static bool run(void) {
  int32_t status = decode(context, batch);
  batch.n_tokens = 0;
  return status == 0 || fail("llama_decode returned %d: %s", status, heard);
}

static int32_t greedy(int32_t output) {
  const float *logits = logits_of(context, output);
  int32_t best = 0;
  for (int32_t i = 1; i < vocabulary; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

/* Continuous batching: a free sequence takes the next prompt, whose last position gives the first token; then all
 * sequences that have an answer under way go on by one token in one batch. `ms` and `out` are prompt by prompt. */
static bool serve(const int32_t *ids, const int32_t *lengths, int32_t count, int32_t tokens, int32_t *out, double *ms) {
  int32_t answer[MAX_SEQUENCES], made[MAX_SEQUENCES], next = 0, left = count;
  double start = now_ms();
  memory_clear(memory_of(context), true);
  for (int32_t s = 0; s < sequences; s++) answer[s] = -1;
  while (left) {
    for (int32_t s = 0; s < sequences && next < count; s++) {
      if (answer[s] >= 0) continue;
      for (int32_t i = 0; i < lengths[next]; i++) put(ids[i], i, s, i == lengths[next] - 1);
      if (!run()) return false;
      out[next * tokens] = greedy(-1);
      ms[next * tokens] = now_ms() - start;
      ids += lengths[next];
      answer[s] = next++, made[s] = 1;
    }
    for (int32_t s = 0; s < sequences; s++)
      if (answer[s] >= 0 && made[s] < tokens)
        put(out[answer[s] * tokens + made[s] - 1], lengths[answer[s]] + made[s] - 1, s, true);
    if (batch.n_tokens && !run()) return false;
    double now = now_ms() - start;
    for (int32_t s = 0, output = 0; s < sequences; s++) {
      if (answer[s] < 0) continue;
      int32_t at = answer[s] * tokens + made[s];
      if (made[s] < tokens) {
        out[at] = greedy(output++);
        ms[at] = now = now_ms() - start;
        made[s]++;
      }
      if (made[s] == tokens) {
        memory_remove(memory_of(context), s, -1, -1);
        answer[s] = -1, left--;
      }
    }
  }
  return true;
}

static bool serve_line(const char *line) {
  int32_t tokens, total, count, sum = 0;
  if (!context) return fail("no context is made");
  if (!number_of(line, "tokens", 1, 1 << 16, &tokens)) return false;
  int32_t *ids = numbers_of(line, "ids", vocabulary, &total);
  int32_t *lengths = ids ? numbers_of(line, "lengths", sequence_room + 1, &count) : NULL;
  bool good = lengths != NULL;
  for (int32_t i = 0; good && i < count; i++) {
    sum += lengths[i];
    good = (lengths[i] > 0 && lengths[i] + tokens <= sequence_room) || fail("a sequence is longer than the context");
  }
  good = good && ((count > 0 && sum == total) || fail("lengths: not those of ids"));
  int32_t *out = good ? malloc((size_t)(count * tokens) * sizeof *out) : NULL;
  double *ms = good ? malloc((size_t)(count * tokens) * sizeof *ms) : NULL;
  good = good && serve(ids, lengths, count, tokens, out, ms);
  if (good) {
    printf("{\"ok\":true,\"ids\":[");
    for (int32_t i = 0; i < count * tokens; i++) printf(i ? ",%d" : "%d", out[i]);
    printf("],\"ms\":[");
    for (int32_t i = 0; i < count * tokens; i++) printf(i ? ",%.3f" : "%.3f", ms[i]);
    printf("]}\n");
  }
  free(ids), free(lengths), free(out), free(ms);
  return good;
}

int main(void) {
  char *line = NULL, op[32];
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    bool good = text_of(line, "op", op, sizeof op);
    if (good && !strcmp(op, "open")) good = open_model(line);
    else if (good && !strcmp(op, "context")) good = set_context(line);
    else if (good && !strcmp(op, "serve")) good = serve_line(line);
    else if (good) good = fail("op: open, context or serve");
    if (!good) {
      for (char *c = problem; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '\'';
      printf("{\"ok\":false,\"error\":\"%s\"}\n", problem);
    }
    fflush(stdout);
  }
  return 0;
}
