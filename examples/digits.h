/* The data: 8x8 images of handwritten digits (data/digits/README.md). */
#ifndef GRADFERRY_EXAMPLES_DIGITS_H_
#define GRADFERRY_EXAMPLES_DIGITS_H_

#include <stdint.h>

enum { PIXELS = 64, CLASSES = 10 };

struct digits {
  int rows;
  float* pixels;   /* rows * PIXELS numbers from 0 to 1 */
  int64_t* labels; /* rows numbers from 0 to 9 */
};

/* Reads folder/name; ends the process when it cannot. */
struct digits digits_load(const char* folder, const char* name);
void digits_free(struct digits* digits);

#endif
