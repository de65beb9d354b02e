/* A runtime that opens libgradferry.so by itself, as bindings do: the file named on the command line, one function by
 * dlsym. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "gradferry/gradferry.h"

int main(int argc, char** argv) {
  void* library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (library == NULL) {
    fprintf(stderr, "cannot open the library: %s\n", argc > 1 ? dlerror() : "no file named");
    return 1;
  }
  /* POSIX promises that a function's address fits a void*; C does not, so it is copied. */
  uint32_t (*version)(void) = NULL;
  void* symbol = dlsym(library, "gf_abi_version");
  memcpy(&version, &symbol, sizeof version);
  if (symbol == NULL || version() >> 16 != GF_ABI_EPOCH) return 1;
  puts("gradferry works");
  return 0;
}
