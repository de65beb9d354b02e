// Optimizers: the same steps as torch::optim takes with `.grad`, without touching `.grad`; parameters without a
// gradient stay as they are; errors name what is wrong.
#include "impl/tensor/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <atomic>
#include <thread>

namespace gradferry {
namespace {

using Options = std::map<std::string, std::variant<bool, double>>;

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(Contains, text, part)

at::Tensor Parameter(at::IntArrayRef sizes, int64_t seed) {
  int64_t numel = 1;
  for (int64_t size : sizes) numel *= size;
  return (at::arange(numel, at::kDouble) * 0.1 + static_cast<double>(seed)).reshape(sizes).requires_grad_();
}

std::vector<at::Tensor> Parameters() { return {Parameter({3, 2}, 1), Parameter({4}, -2), Parameter({}, 3)}; }

std::vector<at::Tensor> Clones(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> clones;
  for (const at::Tensor& tensor : tensors) clones.push_back(tensor.detach().clone().requires_grad_());
  return clones;
}

at::Tensor GradientFor(const at::Tensor& parameter, int step) { return (parameter.detach() * 0.3 + 0.1 * step).sin(); }

std::unique_ptr<Optimizer> New(const std::string& kind, Options options, std::vector<at::Tensor> parameters) {
  auto optimizer = Optimizer::New({kind, std::move(options)}, std::move(parameters));
  EXPECT_TRUE(optimizer.ok()) << optimizer.status().ToString();
  return std::move(*optimizer);
}

Status NewFails(const std::string& kind, Options options, std::vector<at::Tensor> parameters = Parameters()) {
  const Status status = Optimizer::New({kind, std::move(options)}, std::move(parameters)).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.ToString();
  return status;
}

void ExpectEqual(const at::Tensor& actual, const at::Tensor& expected) {
  EXPECT_TRUE(at::equal(actual, expected)) << actual << "\nis not\n" << expected;
}

// Five steps of ours against five of torch::optim on copies, bit for bit.
template <class Torch, class TorchOptions>
void ExpectSameSteps(const std::string& kind, Options options, TorchOptions torch_options) {
  const std::vector<at::Tensor> ours = Parameters();
  std::vector<at::Tensor> theirs = Clones(ours);
  const auto optimizer = New(kind, std::move(options), ours);
  Torch torch_optimizer(theirs, std::move(torch_options));
  for (int step = 0; step < 5; ++step) {
    for (at::Tensor& parameter : theirs) parameter.mutable_grad() = GradientFor(parameter, step);
    torch_optimizer.step();
    ASSERT_TRUE(optimizer->Step([&](const at::Tensor& p) { return GradientFor(p, step); }).ok());
    for (size_t i = 0; i < ours.size(); ++i) ExpectEqual(ours[i], theirs[i]);
  }
  EXPECT_FALSE(at::equal(ours[0], Parameters()[0])) << "nothing moved";
}

TEST(OptimizerSteps, SgdEqualsTorch) {
  using torch::optim::SGD;
  using torch::optim::SGDOptions;
  ExpectSameSteps<SGD>("sgd", {{"lr", 0.1}}, SGDOptions(0.1));
  ExpectSameSteps<SGD>("sgd", {{"lr", 0.1}, {"momentum", 0.9}, {"dampening", 0.1}, {"weight_decay", 0.01}},
                       SGDOptions(0.1).momentum(0.9).dampening(0.1).weight_decay(0.01));
  ExpectSameSteps<SGD>("sgd", {{"lr", 0.1}, {"momentum", 0.9}, {"nesterov", true}},
                       SGDOptions(0.1).momentum(0.9).nesterov(true));
}

TEST(OptimizerSteps, AdamEqualsTorch) {
  using torch::optim::Adam;
  using torch::optim::AdamOptions;
  ExpectSameSteps<Adam>("adam", {}, AdamOptions());
  ExpectSameSteps<Adam>(
      "adam", {{"lr", 0.1}, {"beta1", 0.8}, {"beta2", 0.95}, {"eps", 1e-6}, {"weight_decay", 0.01}, {"amsgrad", true}},
      AdamOptions(0.1).betas({0.8, 0.95}).eps(1e-6).weight_decay(0.01).amsgrad(true));
}

TEST(OptimizerSteps, AdamwEqualsTorch) {
  using torch::optim::AdamW;
  using torch::optim::AdamWOptions;
  ExpectSameSteps<AdamW>("adamw", {}, AdamWOptions());
  ExpectSameSteps<AdamW>("adamw", {{"lr", 0.1}, {"beta1", 0.8}, {"weight_decay", 0.1}},
                         AdamWOptions(0.1).betas({0.8, 0.999}).weight_decay(0.1));
}

TEST(OptimizerSteps, RmspropEqualsTorch) {
  using torch::optim::RMSprop;
  using torch::optim::RMSpropOptions;
  ExpectSameSteps<RMSprop>("rmsprop", {}, RMSpropOptions());
  ExpectSameSteps<RMSprop>(
      "rmsprop",
      {{"lr", 0.1}, {"alpha", 0.9}, {"eps", 1e-6}, {"weight_decay", 0.01}, {"momentum", 0.5}, {"centered", true}},
      RMSpropOptions(0.1).alpha(0.9).eps(1e-6).weight_decay(0.01).momentum(0.5).centered(true));
}

TEST(OptimizerSteps, AdagradEqualsTorch) {
  using torch::optim::Adagrad;
  using torch::optim::AdagradOptions;
  ExpectSameSteps<Adagrad>("adagrad", {}, AdagradOptions());
  ExpectSameSteps<Adagrad>(
      "adagrad",
      {{"lr", 0.1}, {"lr_decay", 0.1}, {"weight_decay", 0.01}, {"initial_accumulator_value", 0.5}, {"eps", 1e-6}},
      AdagradOptions(0.1).lr_decay(0.1).weight_decay(0.01).initial_accumulator_value(0.5).eps(1e-6));
}

TEST(OptimizerSteps, SparseGradientsWorkWhereTorchTakesThem) {
  const at::Tensor gradient =
      at::sparse_coo_tensor(at::tensor({1}, at::kLong).reshape({1, 1}), at::ones({1, 2}, at::kDouble), {3, 2});
  for (const char* kind : {"sgd", "adagrad"}) {
    const at::Tensor parameter = Parameter({3, 2}, 1);
    ASSERT_TRUE(New(kind, {{"lr", 0.1}}, {parameter})->Step([&](const at::Tensor&) { return gradient; }).ok());
    ExpectEqual(parameter[0], Parameter({3, 2}, 1)[0]);
    EXPECT_TRUE(at::allclose(parameter[1], Parameter({3, 2}, 1)[1] - 0.1)) << parameter;
  }
  for (const char* kind : {"adam", "adamw", "rmsprop"}) {
    const at::Tensor parameter = Parameter({3, 2}, 1);
    const Status status = New(kind, {}, {parameter})->Step([&](const at::Tensor&) { return gradient; });
    EXPECT_CONTAINS(status.message(), "does not support sparse gradients");
    ExpectEqual(parameter, Parameter({3, 2}, 1));
  }
}

// ---- Parameters without a gradient ----

TEST(OptimizerSteps, AParameterWithoutAGradientIsNotTouched) {
  const std::pair<const char*, Options> cases[] = {
      {"sgd", {{"lr", 0.1}, {"momentum", 0.9}, {"weight_decay", 0.1}}},
      {"adam", {{"lr", 0.1}, {"weight_decay", 0.1}}},
      {"adamw", {{"lr", 0.1}, {"weight_decay", 0.1}}},
      {"rmsprop", {{"lr", 0.1}, {"momentum", 0.9}, {"weight_decay", 0.1}}},
      {"adagrad", {{"lr", 0.1}, {"weight_decay", 0.1}}},
  };
  for (const auto& [kind, options] : cases) {
    const std::vector<at::Tensor> parameters = Parameters();
    const auto optimizer = New(kind, options, parameters);
    const auto all = [](const at::Tensor& p) { return GradientFor(p, 1); };
    ASSERT_TRUE(optimizer->Step(all).ok());  // momentum and averages exist from here on
    const at::Tensor before = parameters[1].detach().clone();
    const uint32_t version = parameters[1]._version();
    const auto but_one = [&](const at::Tensor& p) { return p.is_same(parameters[1]) ? at::Tensor() : all(p); };
    ASSERT_TRUE(optimizer->Step(but_one).ok());
    ExpectEqual(parameters[1], before);
    EXPECT_EQ(parameters[1]._version(), version);
    EXPECT_FALSE(at::equal(parameters[0], Parameters()[0]));
  }
}

TEST(OptimizerSteps, AStaleGradIsNeverApplied) {
  const at::Tensor parameter = Parameter({4}, 1);
  parameter.mutable_grad() = at::ones({4}, at::kDouble);
  const auto optimizer = New("sgd", {{"lr", 0.1}}, {parameter});
  ASSERT_TRUE(optimizer->Step([](const at::Tensor&) { return at::Tensor(); }).ok());
  ExpectEqual(parameter, Parameter({4}, 1));
}

TEST(OptimizerSteps, GradIsNeitherReadNorWritten) {
  const at::Tensor with = Parameter({4}, 1), without = Parameter({4}, 1);
  const at::Tensor grad = at::full({4}, 7, at::kDouble);
  with.mutable_grad() = grad;
  const at::Tensor gradient = at::ones({4}, at::kDouble);
  const auto optimizer = New("sgd", {{"lr", 0.5}, {"momentum", 0.9}, {"weight_decay", 0.1}}, {with, without});
  for (int step = 0; step < 2; ++step) {
    ASSERT_TRUE(optimizer->Step([&](const at::Tensor&) { return gradient; }).ok());
  }
  EXPECT_TRUE(with.grad().is_same(grad));
  ExpectEqual(grad, at::full({4}, 7, at::kDouble));
  EXPECT_FALSE(without.grad().defined());
  ExpectEqual(with, without);
  ExpectEqual(gradient, at::ones({4}, at::kDouble));
}

TEST(OptimizerSteps, GradientsAreLetGoAfterTheStepAndAfterAFailure) {
  const at::Tensor parameter = Parameter({3, 2}, 1);
  for (const char* kind : {"sgd", "adam"}) {  // adam refuses the sparse one
    const auto optimizer = New(kind, {{"lr", 0.1}}, {parameter});
    const at::Tensor gradient = at::ones({3, 2}, at::kDouble).to_sparse();
    (void)optimizer->Step([&](const at::Tensor&) { return gradient; });
    EXPECT_EQ(gradient.use_count(), 1u) << kind;
  }
}

TEST(OptimizerSteps, AFailedStepLeavesNoGradientForTheNext) {
  const at::Tensor parameter = Parameter({3, 2}, 1);
  const auto optimizer = New("adam", {}, {parameter});
  EXPECT_FALSE(optimizer->Step([](const at::Tensor& p) { return at::ones_like(p).to_sparse(); }).ok());
  ASSERT_TRUE(optimizer->Step([](const at::Tensor&) { return at::Tensor(); }).ok());
  ExpectEqual(parameter, Parameter({3, 2}, 1));
}

// ---- What users do with parameters ----

TEST(OptimizerSteps, ParametersStayLeavesThatRequireGrad) {
  const at::Tensor parameter = Parameter({4}, 1);
  ASSERT_TRUE(New("sgd", {{"lr", 0.1}}, {parameter})->Step([](const at::Tensor& p) { return at::ones_like(p); }).ok());
  EXPECT_TRUE(parameter.is_leaf());
  EXPECT_TRUE(parameter.requires_grad());
}

TEST(OptimizerSteps, ABackwardOverAChangedParameterFails) {
  for (const char* kind : {"sgd", "adam", "adamw", "rmsprop", "adagrad"}) {
    const at::Tensor parameter = Parameter({4}, 1);
    const at::Tensor loss = (parameter * parameter).sum();
    ASSERT_TRUE(New(kind, {{"lr", 0.1}}, {parameter})->Step([](const at::Tensor& p) { return at::ones_like(p); }).ok());
    EXPECT_THROW(loss.backward(), c10::Error) << kind;
  }
}

TEST(OptimizerSteps, AParameterWithExchangedMemoryIsStillTheOneThatMoves) {
  at::Tensor parameter = Parameter({4}, 1);
  const auto optimizer = New("sgd", {{"lr", 1.}}, {parameter});
  const at::Tensor old = parameter.detach();
  parameter.set_data(at::zeros({4}, at::kDouble));
  ASSERT_TRUE(optimizer->Step([](const at::Tensor& p) { return at::ones_like(p); }).ok());
  ExpectEqual(parameter, at::full({4}, -1, at::kDouble));
  ExpectEqual(old, Parameter({4}, 1));
}

TEST(OptimizerSteps, TheThreadsStateDoesNotMatter) {
  const at::Tensor parameter = Parameter({4}, 1);
  const at::Tensor gradient = at::ones({4}, at::kDouble);
  std::unique_ptr<Optimizer> optimizer;
  {
    c10::InferenceMode inference;
    optimizer = New("sgd", {{"lr", 0.5}, {"momentum", 0.5}}, {parameter});
    ASSERT_TRUE(optimizer->Step([&](const at::Tensor&) { return gradient; }).ok());
    EXPECT_TRUE(c10::InferenceMode::is_enabled());
  }
  ASSERT_TRUE(optimizer->Step([&](const at::Tensor&) { return gradient; }).ok());
  EXPECT_TRUE(at::GradMode::is_enabled());
  ExpectEqual(parameter, Parameter({4}, 1) - 0.5 - 0.75);
}

TEST(OptimizerSteps, RunOneAfterTheOther) {
  constexpr int kThreads = 4, kSteps = 400;
  constexpr int64_t kSize = 1 << 17;  // so that a step lasts long enough to meet another
  const std::vector<at::Tensor> parameters = {at::zeros({kSize}).requires_grad_(), at::zeros({kSize}).requires_grad_()};
  const auto optimizer = New("sgd", {{"lr", 1.}}, parameters);
  const at::Tensor gradient = at::ones({kSize});
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (++ready; ready < kThreads;) std::this_thread::yield();
      for (int step = 0; step < kSteps; ++step) {
        EXPECT_TRUE(optimizer->Step([&](const at::Tensor&) { return gradient; }).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const at::Tensor& parameter : parameters) ExpectEqual(parameter, at::full({kSize}, -1. * kThreads * kSteps));
}

TEST(OptimizerSteps, AGradientThatDoesNotFitChangesNothing) {
  const std::vector<at::Tensor> parameters = Parameters();
  const auto optimizer = New("sgd", {{"lr", 0.1}}, parameters);
  const auto gradient_of = [&](const at::Tensor& p) {
    return p.is_same(parameters[1]) ? at::ones({5}, at::kDouble) : at::ones_like(p);
  };
  const Status shape = optimizer->Step(gradient_of);
  EXPECT_EQ(shape.code(), Code::kInvalidArgument);
  EXPECT_EQ(shape.message(), "the gradient of parameter 1 is float64[5], the parameter is float64[4]");
  const Status dtype = optimizer->Step([](const at::Tensor& p) { return at::ones_like(p, at::kFloat); });
  EXPECT_EQ(dtype.message(), "the gradient of parameter 0 is float32[3, 2], the parameter is float64[3, 2]");
  for (size_t i = 0; i < parameters.size(); ++i) ExpectEqual(parameters[i], Parameters()[i]);
}

TEST(OptimizerSteps, GradientsAreAskedForOnceInOrder) {
  const std::vector<at::Tensor> parameters = Parameters();
  const auto optimizer = New("sgd", {{"lr", 0.1}}, parameters);
  std::vector<const void*> asked;
  ASSERT_TRUE(optimizer
                  ->Step([&](const at::Tensor& p) {
                    asked.push_back(p.unsafeGetTensorImpl());
                    return at::Tensor();
                  })
                  .ok());
  ASSERT_EQ(asked.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(asked[i], parameters[i].unsafeGetTensorImpl());
  EXPECT_TRUE(optimizer->parameters()[2].is_same(parameters[2]));
}

// ---- Specs ----

TEST(OptimizerSpecs, AnUnknownKindGetsANearOne) {
  EXPECT_EQ(NewFails("adamm", {}).message(),
            "no optimizer is called 'adamm' (did you mean adam?); there are sgd, adam, adamw, rmsprop and adagrad");
  EXPECT_EQ(NewFails("lbfgsomething", {}).message(),
            "no optimizer is called 'lbfgsomething'; there are sgd, adam, adamw, rmsprop and adagrad");
}

TEST(OptimizerSpecs, AnUnknownOptionGetsANearOne) {
  EXPECT_EQ(NewFails("sgd", {{"lr", 0.1}, {"momentun", 0.9}}).message(),
            "optimizer sgd has no option 'momentun' (did you mean momentum?)");
  EXPECT_EQ(NewFails("adagrad", {{"nesterov", true}}).message(), "optimizer adagrad has no option 'nesterov'");
  EXPECT_CONTAINS(NewFails("adam", {{"betas", 0.9}}).message(), "optimizer adam has no option 'betas'");
}

TEST(OptimizerSpecs, OnlySgdNeedsALearningRate) {
  EXPECT_EQ(NewFails("sgd", {{"momentum", 0.9}}).message(), "optimizer sgd needs the option 'lr'");
  for (const char* kind : {"adam", "adamw", "rmsprop", "adagrad"}) New(kind, {}, Parameters());
}

TEST(OptimizerSpecs, TypesAreChecked) {
  EXPECT_EQ(NewFails("sgd", {{"lr", true}}).message(), "optimizer sgd wants a number for 'lr', got true");
  EXPECT_EQ(NewFails("sgd", {{"lr", 0.1}, {"nesterov", 1.0}}).message(),
            "optimizer sgd wants true or false for 'nesterov', got 1");
  EXPECT_EQ(NewFails("sgd", {{"lr", true}, {"unheard_of", 1.0}}).message(),
            "optimizer sgd wants a number for 'lr', got true")
      << "the first error counts";
}

TEST(OptimizerSpecs, RangesAreTorchs) {
  EXPECT_EQ(NewFails("sgd", {{"lr", -0.5}}).message(), "optimizer sgd: Invalid learning rate: -0.5");
  EXPECT_EQ(NewFails("adam", {{"beta1", 1.0}}).message(), "optimizer adam: Invalid beta parameter at index 0: 1");
  EXPECT_CONTAINS(NewFails("sgd", {{"lr", 0.1}, {"nesterov", true}}).message(), "Nesterov momentum requires");
  EXPECT_CONTAINS(NewFails("rmsprop", {{"alpha", std::nan("")}}).message(), "Invalid alpha value: nan");
}

TEST(OptimizerSpecs, ParametersAreChecked) {
  const Options options = {{"lr", 0.1}};
  const at::Tensor good = Parameter({2}, 1);
  EXPECT_EQ(NewFails("sgd", options, {}).message(), "an optimizer needs at least one parameter");
  EXPECT_EQ(NewFails("sgd", options, {good, at::Tensor()}).message(), "parameter 1 is undefined");
  EXPECT_CONTAINS(NewFails("sgd", options, {good, good * 2}).message(), "parameter 1 is not a leaf");
  EXPECT_EQ(NewFails("sgd", options, {at::ones({2}), good}).message(), "parameter 0 does not require grad");
  EXPECT_EQ(NewFails("sgd", options, {good, Parameter({2}, 1), good}).message(), "parameter 2 is there twice");
  EXPECT_EQ(NewFails("sgd", options, {at::eye(2).to_sparse().requires_grad_()}).message(),
            "parameter 0 is not strided");
}

}  // namespace
}  // namespace gradferry
