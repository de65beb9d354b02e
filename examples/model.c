/* See model.h. */
#include "model.h"

#include <math.h>
#include <string.h>

#include "support.h"

static const int64_t units[LAYERS + 1] = {64, 128, 64, 10};

static void require_grad(gf_tensor* tensor) { MUST(gf_tensor_set_requires_grad(tensor, 1, &error)); }

static void fill_uniform(float* data, int64_t count, double bound, uint64_t* random) {
  for (int64_t i = 0; i < count; ++i) data[i] = (float)((2 * random_uniform(random) - 1) * bound);
}

static struct layer layer_new(int index, uint64_t seed) {
  const int64_t shape[2] = {units[index + 1], units[index]};
  uint64_t random = seed * LAYERS + (uint64_t)index;
  double bound = 1 / sqrt((double)units[index]);

  struct layer layer;
  float* data;
  layer.weight = new_floats(2, shape, &data);
  fill_uniform(data, shape[0] * shape[1], bound, &random);
  layer.bias = new_floats(1, shape, &data);
  fill_uniform(data, shape[0], bound, &random);
  require_grad(layer.weight);
  require_grad(layer.bias);
  return layer;
}

struct model model_new(int first, int count, uint64_t seed) {
  struct model model = {.first = first, .count = count};
  for (int i = 0; i < count; ++i) model.layers[i] = layer_new(first + i, seed);
  model.linear = find_operator("aten::linear");
  model.relu = find_operator("aten::relu");
  return model;
}

/* Makes the element at `index` of the list a parameter of ours. What came by a call is ours alone. */
static gf_tensor* take_parameter(const gf_list* list, size_t index) {
  gf_error* problem = NULL;
  gf_tensor* parameter = tensor_at(list, index, &problem);
  if (parameter == NULL) die_of("taking a parameter", problem);
  require_grad(parameter);
  return parameter;
}

struct model model_from(gf_list* const* parameters, int lists) {
  struct model model = {.first = 0};
  for (int i = 0; i < lists; ++i) {
    for (size_t j = 0; j + 1 < gf_list_size(parameters[i]) && model.count < LAYERS; j += 2) {
      struct layer* layer = &model.layers[model.count++];
      layer->weight = take_parameter(parameters[i], j);
      layer->bias = take_parameter(parameters[i], j + 1);
    }
  }
  if (model.count != LAYERS) die("the stages hold %d layers, not %d", model.count, LAYERS);
  model.linear = find_operator("aten::linear");
  model.relu = find_operator("aten::relu");
  return model;
}

void model_free(struct model* model) {
  for (int i = 0; i < model->count; ++i) {
    gf_tensor_unref(model->layers[i].weight);
    gf_tensor_unref(model->layers[i].bias);
  }
  gf_operator_unref(model->linear);
  gf_operator_unref(model->relu);
  memset(model, 0, sizeof(*model));
}

gf_list* model_parameters(const struct model* model, gf_error** error) {
  gf_tensor* parameters[2 * LAYERS];
  for (int i = 0; i < model->count; ++i) {
    parameters[2 * i] = model->layers[i].weight;
    parameters[2 * i + 1] = model->layers[i].bias;
  }
  return list_of(2 * (size_t)model->count, parameters, error);
}

gf_tensor* model_forward(const struct model* model, gf_tensor* input, uint32_t grad, gf_error** error) {
  gf_tensor* x = gf_tensor_ref(input);
  for (int i = 0; i < model->count; ++i) {
    gf_tensor* const arguments[3] = {x, model->layers[i].weight, model->layers[i].bias};
    gf_tensor* y = apply(model->linear, 3, arguments, grad, error);
    gf_tensor_unref(x);
    x = y;
    if (model->first + i == LAYERS - 1) break; /* the last layer's outputs are the classes' scores */
    y = apply(model->relu, 1, &x, grad, error);
    gf_tensor_unref(x);
    x = y;
  }
  return x;
}

gf_optimizer* model_optimizer(const struct model* model) {
  static const char spec[] = "sgd = { lr = 0.1, momentum = 0.9 }";
  gf_error* problem = NULL;
  gf_list* parameters = model_parameters(model, &problem);
  if (parameters == NULL) die_of("listing the parameters", problem);
  gf_optimizer* optimizer;
  MUST(gf_optimizer_new(spec, strlen(spec), parameters, &optimizer, &error));
  gf_list_unref(parameters);
  return optimizer;
}
