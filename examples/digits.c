/* See digits.h. */
#include "digits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

enum { DARKEST = 16, LONGEST_LINE = 512 };

/* One number and the comma or line end behind it; *text moves past both. */
static int read_number(char** text, int most, const char* path, int line) {
  char* end;
  long number = strtol(*text, &end, 10);
  if (end == *text || number < 0 || number > most) die("%s:%d: a number from 0 to %d is wanted", path, line, most);
  *text = *end == ',' ? end + 1 : end;
  return (int)number;
}

static void read_row(struct digits* digits, char* text, const char* path) {
  int row = digits->rows++;
  digits->pixels = realloc(digits->pixels, (size_t)digits->rows * PIXELS * sizeof(float));
  digits->labels = realloc(digits->labels, (size_t)digits->rows * sizeof(int64_t));
  if (digits->pixels == NULL || digits->labels == NULL) die("out of memory");
  for (int i = 0; i < PIXELS; ++i) {
    digits->pixels[row * PIXELS + i] = (float)read_number(&text, DARKEST, path, row + 1) / DARKEST;
  }
  digits->labels[row] = read_number(&text, CLASSES - 1, path, row + 1);
  if (*text != '\n' && *text != '\0') die("%s:%d: more than %d numbers", path, row + 1, PIXELS + 1);
}

struct digits digits_load(const char* folder, const char* name) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  FILE* file = fopen(path, "r");
  if (file == NULL) die("cannot read the data, %s: %s (--data names its folder)", path, strerror(errno));

  struct digits digits = {0};
  char line[LONGEST_LINE];
  while (fgets(line, sizeof(line), file) != NULL) read_row(&digits, line, path);
  fclose(file);
  if (digits.rows == 0) die("%s is empty", path);
  return digits;
}

void digits_free(struct digits* digits) {
  free(digits->pixels);
  free(digits->labels);
  *digits = (struct digits){0};
}
