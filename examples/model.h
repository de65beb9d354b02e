/* The model: a perceptron with layers of 64, 128, 64 and 10 units and rectifiers between them, or some of its layers.
 * stage1 holds the first layer, stage2 the other two; the trainer holds all of them for a while, to compare. */
#ifndef GRADFERRY_EXAMPLES_MODEL_H_
#define GRADFERRY_EXAMPLES_MODEL_H_

#include <stdint.h>

#include "gradferry/gradferry.h"

enum { LAYERS = 3 };

struct layer {
  gf_tensor* weight; /* [out, in] */
  gf_tensor* bias;   /* [out] */
};

struct model {
  int first; /* layers first to first + count - 1 of the whole */
  int count;
  struct layer layers[LAYERS];
  gf_operator* linear;
  gf_operator* relu;
};

/* New parameters, drawn from the seed as torch.nn.Linear draws them. */
struct model model_new(int first, int count, uint64_t seed);

/* The whole model with parameters that came by calls: lists of weights and biases in turn. */
struct model model_from(gf_list* const* parameters, int lists);

void model_free(struct model* model);

/* Weights and biases in turn. */
gf_list* model_parameters(const struct model* model, gf_error** error);

/* The output of the last layer for a batch of inputs [rows, in]; NULL and *error when that fails. */
gf_tensor* model_forward(const struct model* model, gf_tensor* input, uint32_t grad, gf_error** error);

/* An optimizer for the model's parameters. */
gf_optimizer* model_optimizer(const struct model* model);

#endif
