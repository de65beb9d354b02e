/* The trainer: a worker that has the data and the loss, and trains a model that two others hold.
 *
 * A training step is this, all in one context:
 *
 *   hidden = stage1.forward(batch)            the calls leave send and recv functions behind,
 *   scores = stage2.forward(hidden)
 *   loss = cross_entropy(scores, labels)      this is recorded here,
 *   backward from loss                        and the gradients go back the same way,
 *   stage1.step(), stage2.step()              to be used where the parameters are.
 *
 * During the first steps the same model is trained in this process alone, and the gradients of both are compared. */
#define _POSIX_C_SOURCE 200809L

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digits.h"
#include "model.h"
#include "roles.h"

enum { BATCH = 64, STAGES = 2, COMPARED_STEPS = 20 };

static const double ALLOWED_DIFFERENCE = 1e-5; /* relative, of gradients in float32 */
static const double WANTED_ACCURACY = 0.95;    /* on the test rows */

static const char* const stages[STAGES] = {"stage1", "stage2"};

struct trainer {
  gf_worker* worker;
  gf_operator* cross_entropy;
  struct digits train;
  struct digits test;
  uint64_t random; /* for the order of the rows */
  int* order;      /* the rows of train, shuffled */
  int steps;       /* made so far */

  /* The same model in this process, while steps < COMPARED_STEPS. */
  struct model replica;
  gf_optimizer* replica_optimizer;
  double worst_difference;
};

struct batch {
  gf_tensor* pixels; /* [rows, PIXELS] */
  gf_tensor* labels; /* [rows] */
};

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

static gf_call call_of(const char* to, const char* name, gf_list* arguments, gf_context* context) {
  gf_call call = {.struct_size = sizeof(call), .kind = GF_CALL_HANDLER};
  call.to = to;
  call.to_length = strlen(to);
  call.name = name;
  call.name_length = strlen(name);
  call.arguments = arguments;
  call.context = context;
  return call;
}

/* Calls `name` on a stage and waits for the results. */
static gf_list* call(struct trainer* trainer, const char* to, const char* name, gf_context* context) {
  gf_call call = call_of(to, name, NULL, context);
  gf_list* results;
  MUST(gf_call_sync(trainer->worker, &call, &results, &error));
  return results;
}

/* Calls `name` on all stages at the same time and waits for the end. */
static void call_all(struct trainer* trainer, const char* name, gf_context* context) {
  gf_future* futures[STAGES];
  for (int i = 0; i < STAGES; ++i) {
    gf_call call = call_of(stages[i], name, NULL, context);
    MUST(gf_call_start(trainer->worker, &call, &futures[i], &error));
  }
  for (int i = 0; i < STAGES; ++i) {
    MUST(gf_future_wait(futures[i], GF_NO_DEADLINE, &error));
    MUST(gf_future_take(futures[i], NULL, &error));
    gf_future_unref(futures[i]);
  }
}

/* Sends a batch through the stages. Without a context nothing is recorded: the scores are only looked at. */
static gf_tensor* scores_of(struct trainer* trainer, gf_tensor* pixels, gf_context* context) {
  gf_tensor* x = gf_tensor_ref(pixels);
  for (int i = 0; i < STAGES; ++i) {
    gf_list* arguments;
    MUST(gf_list_new(&arguments, &error));
    MUST(gf_list_push_tensor(arguments, x, &error));
    gf_tensor_unref(x);

    gf_call call = call_of(stages[i], "forward", arguments, context);
    call.no_grad = context == NULL;
    gf_list* results;
    MUST(gf_call_sync(trainer->worker, &call, &results, &error));
    MUST(gf_list_get_tensor(results, 0, &x, &error));
    gf_list_unref(results);
    gf_list_unref(arguments);
  }
  return x;
}

/* ---- One step ---------------------------------------------------------------------------------------------------- */

/* The rows of digits that `order` lists. */
static struct batch batch_of(const struct digits* digits, const int* order, int rows) {
  const int64_t shape[2] = {rows, PIXELS};
  struct batch batch;
  float* pixels;
  int64_t* labels;
  batch.pixels = new_floats(2, shape, &pixels);
  batch.labels = new_integers(1, shape, &labels);
  for (int i = 0; i < rows; ++i) {
    memcpy(pixels + i * PIXELS, digits->pixels + order[i] * PIXELS, PIXELS * sizeof(float));
    labels[i] = digits->labels[order[i]];
  }
  return batch;
}

static void batch_free(struct batch* batch) {
  gf_tensor_unref(batch->pixels);
  gf_tensor_unref(batch->labels);
}

/* The mean loss of a batch, and the pass that starts from it. */
static double backward(struct trainer* trainer, gf_tensor* scores, gf_tensor* labels, gf_context* context) {
  gf_error* problem = NULL;
  gf_tensor* const arguments[2] = {scores, labels};
  gf_tensor* loss = apply(trainer->cross_entropy, 2, arguments, GF_GRAD_RECORD, &problem);
  if (loss == NULL) die_of("the loss", problem);

  gf_backward pass = {.struct_size = sizeof(pass)};
  pass.roots = &loss;
  pass.root_count = 1;
  MUST(gf_backward_sync(context, &pass, &error));

  float value;
  MUST(gf_tensor_read(loss, &value, sizeof(value), &error));
  gf_tensor_unref(loss);
  return value;
}

static void compare_with_replica(struct trainer* trainer, const struct batch* batch, gf_context* context);

/* One step with one batch; gives its loss. */
static double train_step(struct trainer* trainer, const struct batch* batch) {
  gf_context* context;
  MUST(gf_context_new(trainer->worker, &context, &error));

  gf_tensor* scores = scores_of(trainer, batch->pixels, context);
  double loss = backward(trainer, scores, batch->labels, context);
  gf_tensor_unref(scores);

  if (trainer->steps < COMPARED_STEPS) compare_with_replica(trainer, batch, context);
  call_all(trainer, "step", context);
  ++trainer->steps;

  MUST(gf_context_release(context, &error));
  gf_context_unref(context);
  return loss;
}

/* ---- The comparison ---------------------------------------------------------------------------------------------- */

/* The largest difference of two gradients, relative to the largest element of the second. */
static double relative_difference(gf_tensor* a, gf_tensor* b) {
  int64_t count_a, count_b;
  const float* x = floats_of(a, &count_a);
  const float* y = floats_of(b, &count_b);
  if (count_a != count_b) die("a gradient has %lld elements, not %lld", (long long)count_a, (long long)count_b);
  double difference = 0, largest = 0;
  for (int64_t i = 0; i < count_a; ++i) {
    /* Written so that a NaN counts as a difference. */
    double d = fabs((double)x[i] - (double)y[i]);
    if (!(d <= difference)) difference = d;
    if (fabs((double)y[i]) > largest) largest = fabs((double)y[i]);
  }
  return difference == 0 ? 0 : difference / largest;
}

/* Makes the same step with the replica, and keeps the worst difference between the two. */
static void compare_with_replica(struct trainer* trainer, const struct batch* batch, gf_context* context) {
  gf_context* own;
  MUST(gf_context_new(trainer->worker, &own, &error));
  gf_error* problem = NULL;
  gf_tensor* scores = model_forward(&trainer->replica, batch->pixels, GF_GRAD_RECORD, &problem);
  if (scores == NULL) die_of("the replica", problem);
  backward(trainer, scores, batch->labels, own);
  gf_tensor_unref(scores);

  int layer = 0;
  for (int i = 0; i < STAGES; ++i) {
    gf_list* gradients = call(trainer, stages[i], "gradients", context);
    for (size_t j = 0; j < gf_list_size(gradients); ++j) {
      const struct layer* ours = &trainer->replica.layers[layer + (int)j / 2];
      gf_tensor *distributed, *single;
      MUST(gf_list_get_tensor(gradients, j, &distributed, &error));
      MUST(gf_context_gradient(own, j % 2 == 0 ? ours->weight : ours->bias, &single, &error));
      double difference = relative_difference(distributed, single);
      if (!(difference <= trainer->worst_difference)) trainer->worst_difference = difference;
      gf_tensor_unref(distributed);
      gf_tensor_unref(single);
    }
    layer += (int)gf_list_size(gradients) / 2;
    gf_list_unref(gradients);
  }
  if (layer != LAYERS) die("the stages have gradients for %d layers, not %d", layer, LAYERS);

  MUST(gf_optimizer_step(trainer->replica_optimizer, own, &error));
  MUST(gf_context_release(own, &error));
  gf_context_unref(own);
}

static void replica_new(struct trainer* trainer) {
  gf_list* parameters[STAGES];
  for (int i = 0; i < STAGES; ++i) parameters[i] = call(trainer, stages[i], "parameters", NULL);
  trainer->replica = model_from(parameters, STAGES);
  trainer->replica_optimizer = model_optimizer(&trainer->replica);
  for (int i = 0; i < STAGES; ++i) gf_list_unref(parameters[i]);
}

static void replica_free(struct trainer* trainer) {
  model_free(&trainer->replica);
  gf_optimizer_unref(trainer->replica_optimizer);
}

/* ---- Epochs ------------------------------------------------------------------------------------------------------ */

/* On a terminal the line is written over until it is final; elsewhere only final lines are written. */
static void show(int final, const char* line) {
  int terminal = isatty(STDOUT_FILENO);
  if (!terminal && !final) return;
  printf("%s%s%s", terminal ? "\r\033[K" : "", line, final ? "\n" : "");
  fflush(stdout);
}

/* The share of the test rows whose class gets the highest score. */
static double accuracy(struct trainer* trainer) {
  const struct digits* test = &trainer->test;
  const int64_t shape[2] = {test->rows, PIXELS};
  float* elements;
  gf_tensor* pixels = new_floats(2, shape, &elements);
  memcpy(elements, test->pixels, (size_t)test->rows * PIXELS * sizeof(float));

  gf_tensor* scores = scores_of(trainer, pixels, NULL);
  int64_t count;
  const float* score = floats_of(scores, &count);
  if (count != (int64_t)test->rows * CLASSES) die("%lld scores for %d rows", (long long)count, test->rows);
  int right = 0;
  for (int row = 0; row < test->rows; ++row, score += CLASSES) {
    int best = 0;
    for (int class = 1; class < CLASSES; ++class) {
      if (score[class] > score[best]) best = class;
    }
    right += best == test->labels[row];
  }
  gf_tensor_unref(scores);
  gf_tensor_unref(pixels);
  return (double)right / test->rows;
}

static void shuffle(struct trainer* trainer) {
  for (int i = trainer->train.rows - 1; i > 0; --i) {
    int j = (int)(random_bits(&trainer->random) % (uint64_t)(i + 1));
    int swapped = trainer->order[i];
    trainer->order[i] = trainer->order[j];
    trainer->order[j] = swapped;
  }
}

/* Trains on every row once, and shows how it went; gives the accuracy afterwards. */
static double run_epoch(struct trainer* trainer, int epoch, int epochs) {
  const int rows = trainer->train.rows;
  char line[160];
  double begun = now(), shown = 0, loss = 0;
  shuffle(trainer);
  for (int row = 0; row < rows; row += BATCH) {
    int size = rows - row < BATCH ? rows - row : BATCH;
    struct batch batch = batch_of(&trainer->train, trainer->order + row, size);
    loss += size * train_step(trainer, &batch);
    batch_free(&batch);
    if (now() - shown < 0.1) continue;
    shown = now();
    snprintf(line, sizeof(line), "epoch %2d/%d  loss %.4f  %3.0f %% of %d rows", epoch, epochs, loss / (row + size),
             100.0 * (row + size) / rows, rows);
    show(0, line);
  }
  double seconds = now() - begun;
  double right = accuracy(trainer);
  snprintf(line, sizeof(line), "epoch %2d/%d  loss %.4f  test accuracy %.1f %%  %6.0f rows/s", epoch, epochs,
           loss / rows, 100 * right, rows / seconds);
  show(1, line);
  return right;
}

void run_trainer(const struct settings* settings) {
  set_speaker("trainer");
  struct trainer trainer = {.random = settings->seed};
  trainer.train = digits_load(settings->data, "train.csv");
  trainer.test = digits_load(settings->data, "test.csv");
  trainer.order = malloc((size_t)trainer.train.rows * sizeof(int));
  if (trainer.order == NULL) die("out of memory");
  for (int i = 0; i < trainer.train.rows; ++i) trainer.order[i] = i;
  trainer.cross_entropy = find_operator("aten::cross_entropy_loss");
  trainer.worker = create_worker(settings, "trainer", TRAINER_RANK);
  MUST(gf_worker_start(trainer.worker, &error));
  replica_new(&trainer);

  double right = 0;
  for (int epoch = 1; epoch <= settings->epochs; ++epoch) right = run_epoch(&trainer, epoch, settings->epochs);

  printf("gradients of %d parameters in the first %d steps: worst relative difference from one process %.2g\n",
         2 * LAYERS, trainer.steps < COMPARED_STEPS ? trainer.steps : COMPARED_STEPS, trainer.worst_difference);
  printf("test accuracy: %.1f %% of %d rows\n", 100 * right, trainer.test.rows);
  if (!(trainer.worst_difference <= ALLOWED_DIFFERENCE)) {
    die("the gradients differ by %.2g from those of one process; %.0e is allowed", trainer.worst_difference,
        ALLOWED_DIFFERENCE);
  }
  if (right < WANTED_ACCURACY) {
    die("the test accuracy is %.1f %% with --epochs %d; at least %.0f %% is wanted", 100 * right, settings->epochs,
        100 * WANTED_ACCURACY);
  }

  replica_free(&trainer);
  call_all(&trainer, "stop", NULL);
  close_worker(trainer.worker);
  gf_operator_unref(trainer.cross_entropy);
  free(trainer.order);
  digits_free(&trainer.train);
  digits_free(&trainer.test);
}
