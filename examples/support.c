/* See support.h. */
#define _POSIX_C_SOURCE 200809L

#include "support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Thread_local const char* speaker = "demo";

void set_speaker(const char* name) { speaker = name; }

void die(const char* format, ...) {
  char message[4096];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  fflush(stdout);
  fprintf(stderr, "%s: %s\n", speaker, message);
  /* Not exit(): other threads may be at work, and nothing is left to be saved. */
  _exit(1);
}

void die_of(const char* call, gf_error* error) {
  char text[3072];
  size_t length;
  if (gf_error_describe(error, text, sizeof(text), &length) != GF_OK) {
    /* Too long for us: the outermost message will do. */
    snprintf(text, sizeof(text), "%s", gf_error_text(error, GF_ERROR_MESSAGE, NULL));
  }
  /* "gf_call_sync(worker, &call, ..." is in the source; its name is enough here. */
  die("%.*s: %s", (int)strcspn(call, "("), call, text);
}

static void set(gf_config* config, const char* key, const char* value) {
  MUST(gf_config_set(config, key, strlen(key), value, strlen(value), &error));
}

static void set_number(gf_config* config, const char* key, int value) {
  char text[16];
  snprintf(text, sizeof(text), "%d", value);
  set(config, key, text);
}

gf_worker* create_worker(const struct settings* settings, const char* name, int rank) {
  char rendezvous[4096];
  snprintf(rendezvous, sizeof(rendezvous), "file://%s/rendezvous", settings->folder);

  gf_config* config;
  MUST(gf_config_new(&config, &error));
  set(config, "worker.name", name);
  set(config, "group.name", "demo");
  set(config, "group.rendezvous", rendezvous);
  set_number(config, "group.rank", rank);
  set_number(config, "group.world_size", WORLD_SIZE);
  set(config, "group.join_timeout", "30s");
  set(config, "transport.name", settings->transport);
  set(config, "call.timeout", "30s");
  set(config, "backward.timeout", "30s");

  gf_worker* worker;
  MUST(gf_worker_create(config, &worker, &error));
  gf_config_unref(config);
  return worker;
}

void close_worker(gf_worker* worker) {
  MUST(gf_worker_close(worker, SECONDS(10), &error));
  gf_worker_unref(worker);
}

void check_nothing_is_left(void) {
  int64_t handles = gf_live_objects(GF_LIVE_HANDLES);
  if (handles != 0) die("%lld handles were not given back", (long long)handles);
}

gf_operator* find_operator(const char* name) {
  gf_operator* op;
  MUST(gf_operator_find(name, strlen(name), "", 0, &op, &error));
  return op;
}

gf_list* list_of(size_t count, gf_tensor* const* tensors, gf_error** error) {
  for (size_t i = 0; i < count; ++i) {
    if (tensors[i] == NULL) return NULL;
  }
  gf_list* list;
  if (gf_list_new(&list, error) != GF_OK) return NULL;
  for (size_t i = 0; i < count; ++i) {
    if (gf_list_push_tensor(list, tensors[i], error) == GF_OK) continue;
    gf_list_unref(list);
    return NULL;
  }
  return list;
}

gf_tensor* tensor_at(const gf_list* list, size_t index, gf_error** error) {
  if (list == NULL) return NULL;
  gf_tensor* tensor;
  return gf_list_get_tensor(list, index, &tensor, error) == GF_OK ? tensor : NULL;
}

gf_tensor* apply(gf_operator* op, size_t count, gf_tensor* const* tensors, uint32_t grad, gf_error** error) {
  gf_list* arguments = list_of(count, tensors, error);
  if (arguments == NULL) return NULL;
  gf_list* results = NULL;
  gf_operator_call(op, arguments, grad, &results, error);
  gf_tensor* first = tensor_at(results, 0, error);
  gf_list_unref(results);
  gf_list_unref(arguments);
  return first;
}

static gf_tensor* new_tensor(uint8_t code, uint8_t bits, size_t dimensions, const int64_t* sizes, void** data) {
  gf_shape shape = {.struct_size = sizeof(shape), .dtype_code = code, .dtype_bits = bits};
  shape.shape = sizes;
  shape.ndim = (int64_t)dimensions;
  gf_tensor* tensor;
  MUST(gf_tensor_empty(&shape, &tensor, &error));

  gf_tensor_info info = {.struct_size = sizeof(info)};
  MUST(gf_tensor_describe(tensor, &info, &error));
  *data = info.data;
  return tensor;
}

gf_tensor* new_floats(size_t dimensions, const int64_t* shape, float** data) {
  void* elements;
  gf_tensor* tensor = new_tensor(GF_DTYPE_FLOAT, 32, dimensions, shape, &elements);
  *data = elements;
  return tensor;
}

gf_tensor* new_integers(size_t dimensions, const int64_t* shape, int64_t** data) {
  void* elements;
  gf_tensor* tensor = new_tensor(GF_DTYPE_INT, 64, dimensions, shape, &elements);
  *data = elements;
  return tensor;
}

const float* floats_of(gf_tensor* tensor, int64_t* count) {
  gf_tensor_info info = {.struct_size = sizeof(info)};
  MUST(gf_tensor_describe(tensor, &info, &error));
  if (info.dtype_code != GF_DTYPE_FLOAT || info.dtype_bits != 32 || info.data == NULL) {
    die("a float tensor on the CPU is wanted, got one with dtype code %d, %d bits", info.dtype_code, info.dtype_bits);
  }
  int64_t row_major = 1;
  for (int64_t d = info.ndim - 1; d >= 0; --d) {
    if (info.shape[d] != 1 && info.strides[d] != row_major) die("a contiguous tensor is wanted");
    row_major *= info.shape[d];
  }
  *count = info.numel;
  return info.data;
}

uint64_t random_bits(uint64_t* state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double random_uniform(uint64_t* state) { return (double)(random_bits(state) >> 11) / 9007199254740992.0; /* 2^53 */ }

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}
