/* A stage: a worker that holds layers of the model as its own parameters. It has five handlers, which the trainer
 * calls:
 *
 *   forward      a batch in, the output of this stage's layers out; recorded in the context of the call
 *   step         one step of this stage's optimizer with the gradients that the context holds here
 *   parameters   weights and biases in turn
 *   gradients    the gradients that the context holds here for them, in the same order
 *   stop         ends this program
 *
 * Requests arrive on a queue, so that this program decides on which thread they are handled: here, on its only one. */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "roles.h"

struct stage {
  struct model model;
  gf_optimizer* optimizer;
  int stopping;
};

/* A handler gives its results, or NULL and an error. */
typedef gf_list* handler(struct stage* stage, gf_request* request, gf_error** error);

static gf_list* forward(struct stage* stage, gf_request* request, gf_error** error) {
  gf_list* arguments;
  if (gf_request_arguments(request, &arguments, error) != GF_OK) return NULL;
  gf_tensor* input = tensor_at(arguments, 0, error);
  gf_list_unref(arguments);
  if (input == NULL) return NULL;
  /* The caller's grad mode comes with the request: when it only tests, nothing is recorded here either. */
  gf_tensor* output = model_forward(&stage->model, input, gf_request_grad(request), error);
  gf_tensor_unref(input);
  gf_list* results = list_of(1, &output, error);
  gf_tensor_unref(output);
  return results;
}

static gf_list* step(struct stage* stage, gf_request* request, gf_error** error) {
  gf_context* context;
  if (gf_request_context(request, &context, error) != GF_OK) return NULL;
  int32_t code = gf_optimizer_step(stage->optimizer, context, error);
  gf_context_unref(context);
  return code == GF_OK ? list_of(0, NULL, error) : NULL;
}

static gf_list* parameters(struct stage* stage, gf_request* request, gf_error** error) {
  (void)request;
  return model_parameters(&stage->model, error);
}

static gf_list* gradients(struct stage* stage, gf_request* request, gf_error** error) {
  gf_context* context;
  if (gf_request_context(request, &context, error) != GF_OK) return NULL;
  gf_tensor* found[2 * LAYERS] = {NULL};
  size_t count = 0;
  for (int i = 0; i < stage->model.count; ++i) {
    const struct layer* layer = &stage->model.layers[i];
    if (gf_context_gradient(context, layer->weight, &found[count++], error) != GF_OK) break;
    if (gf_context_gradient(context, layer->bias, &found[count++], error) != GF_OK) break;
  }
  gf_list* results = list_of(count, found, error);
  for (size_t i = 0; i < count; ++i) gf_tensor_unref(found[i]);
  gf_context_unref(context);
  return results;
}

static gf_list* stop(struct stage* stage, gf_request* request, gf_error** error) {
  (void)request;
  stage->stopping = 1;
  return list_of(0, NULL, error);
}

/* A request carries the token with which its handler was registered: the index in this table. */
static const struct {
  const char* name;
  handler* run;
} handlers[] = {
    {"forward", forward}, {"step", step}, {"parameters", parameters}, {"gradients", gradients}, {"stop", stop},
};
enum { HANDLERS = sizeof(handlers) / sizeof(handlers[0]) };

/* Runs the handler of a request and answers it: with its results, or with the error that it ended with. */
static void answer(struct stage* stage, uintptr_t token, gf_request* request) {
  gf_error* problem = NULL;
  gf_list* results = handlers[token].run(stage, request, &problem);
  if (results != NULL) {
    MUST(gf_request_reply(request, results, &error));
  } else {
    size_t length;
    const char* message = gf_error_text(problem, GF_ERROR_MESSAGE, &length);
    MUST(gf_request_fail(request, gf_error_code(problem), message, length, &error));
  }
  gf_error_unref(problem);
  gf_list_unref(results);
}

void run_stage(const struct settings* settings, int rank) {
  char name[16];
  snprintf(name, sizeof(name), "stage%d", rank);
  set_speaker(name);

  struct stage stage = {0};
  /* stage1 holds the first layer, stage2 the rest. */
  stage.model = rank == STAGE1_RANK ? model_new(0, 1, settings->seed) : model_new(1, LAYERS - 1, settings->seed);
  stage.optimizer = model_optimizer(&stage.model);

  gf_queue* queue;
  MUST(gf_queue_new(&queue, &error));
  gf_worker* worker = create_worker(settings, name, rank);
  for (uintptr_t token = 0; token < HANDLERS; ++token) {
    const char* handler_name = handlers[token].name;
    MUST(gf_worker_handle_queue(worker, handler_name, strlen(handler_name), queue, token, &error));
  }
  MUST(gf_worker_start(worker, &error));

  while (!stage.stopping) {
    gf_entry entry;
    size_t count;
    MUST(gf_queue_next(queue, &entry, 1, GF_NO_DEADLINE, &count, &error));
    if (count == 0 || entry.kind != GF_ENTRY_REQUEST) continue;
    answer(&stage, entry.token, entry.request);
    gf_request_unref(entry.request);
  }

  close_worker(worker);
  gf_queue_unref(queue);
  gf_optimizer_unref(stage.optimizer);
  model_free(&stage.model);
}
