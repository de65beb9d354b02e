/* A C program as a user of Gradferry would begin: it makes a tensor, reads it back and ends with nothing alive. It is
 * built against the Bazel targets here, and against an installed tree by tests/install. */
#include <inttypes.h>
#include <stdio.h>

#include "gradferry/gradferry.h"

static int report(const char* what, gf_error* error) {
  char text[1024];
  size_t length = 0;
  if (gf_error_describe(error, text, sizeof text, &length) != GF_OK) snprintf(text, sizeof text, "no description");
  fprintf(stderr, "%s: %s\n", what, text);
  gf_error_unref(error);
  return 1;
}

int main(void) {
  gf_error* error = NULL;
  gf_tensor* tensor = NULL;
  const int64_t sizes[2] = {2, 3};
  float values[6] = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  float back[6] = {0.0f};
  gf_memory memory = {0};

  if (gf_abi_version() >> 16 != GF_ABI_EPOCH) {
    fprintf(stderr, "the header is of epoch %u, the library of %" PRIu32 "\n", GF_ABI_EPOCH, gf_abi_version() >> 16);
    return 1;
  }

  memory.struct_size = sizeof memory;
  memory.dtype_code = GF_DTYPE_FLOAT;
  memory.dtype_bits = 32;
  memory.data = values;
  memory.shape = sizes;
  memory.ndim = 2;
  if (gf_tensor_from_memory(&memory, &tensor, &error) != GF_OK) return report("gf_tensor_from_memory", error);
  if (gf_tensor_read(tensor, back, sizeof back, &error) != GF_OK) return report("gf_tensor_read", error);
  gf_tensor_unref(tensor);

  if (back[5] != values[5] || gf_live_objects(GF_LIVE_HANDLES) != 0) {
    fprintf(stderr, "read back %g, %" PRId64 " handles alive\n", (double)back[5], gf_live_objects(GF_LIVE_HANDLES));
    return 1;
  }
  printf("gradferry works\n");
  return 0;
}
