/* What the demo's programs share: ending with a reason, opening a worker, and shorter ways to call operators.
 *
 * Two ways to treat errors appear in this demo. The trainer has nobody to report to, so it wraps calls in MUST, which
 * ends the process and says why. A stage's handlers answer a failed request with the error instead: they use the
 * helpers that take a gf_error**, which give NULL for NULL, so that one check at the end is enough. */
#ifndef GRADFERRY_EXAMPLES_SUPPORT_H_
#define GRADFERRY_EXAMPLES_SUPPORT_H_

#include <stdint.h>

#include "gradferry/gradferry.h"

/* The command line. */
struct settings {
  const char* transport; /* a transport's name */
  int epochs;
  uint64_t seed;
  const char* data;   /* the folder with train.csv and test.csv */
  const char* role;   /* NULL in the process that the user started */
  const char* folder; /* of this run, where the workers meet */
};

enum { TRAINER_RANK = 0, STAGE1_RANK = 1, STAGE2_RANK = 2, WORLD_SIZE = 3 };

#define SECONDS(n) ((int64_t)(n)*1000000000)

/* Says who speaks in this thread's messages. */
void set_speaker(const char* name);

/* Prints "speaker: message" to stderr and ends the process with status 1. */
_Noreturn void die(const char* format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die_of(const char* call, gf_error* error);

/* Runs a call that hands its error to &error; ends the process when it fails:
 *   MUST(gf_list_new(&list, &error)); */
#define MUST(call)                             \
  do {                                         \
    gf_error* error = NULL;                    \
    if ((call) != GF_OK) die_of(#call, error); \
  } while (0)

/* A worker that will meet the two others in the run's folder, over the transport, when it is started. Until then it
 * takes its handlers. */
gf_worker* create_worker(const struct settings* settings, const char* name, int rank);

/* Says goodbye to the others and gives the worker back. */
void close_worker(gf_worker* worker);

/* Ends the process when something that this process made with gradferry.h is still there. */
void check_nothing_is_left(void);

gf_operator* find_operator(const char* name);

/* Each of these gives NULL when it fails, and *error says why. A NULL tensor or list among the arguments gives NULL
 * too and leaves *error as the earlier failure set it. */
gf_list* list_of(size_t count, gf_tensor* const* tensors, gf_error** error);
gf_tensor* tensor_at(const gf_list* list, size_t index, gf_error** error);
/* The first result of an operator whose arguments are tensors. grad: GF_GRAD_*. */
gf_tensor* apply(gf_operator* op, size_t count, gf_tensor* const* tensors, uint32_t grad, gf_error** error);

/* A new tensor; *data receives where its elements are. */
gf_tensor* new_floats(size_t dimensions, const int64_t* shape, float** data);
gf_tensor* new_integers(size_t dimensions, const int64_t* shape, int64_t** data);

/* The elements of a contiguous float tensor on the CPU, and how many there are. */
const float* floats_of(gf_tensor* tensor, int64_t* count);

/* Random numbers that are the same everywhere (splitmix64). */
uint64_t random_bits(uint64_t* state);
double random_uniform(uint64_t* state); /* in [0, 1) */

/* Seconds of a clock that only moves forward. */
double now(void);

#endif
