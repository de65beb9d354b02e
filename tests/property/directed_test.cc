// Graphs of which random ones are too small or too tame: long ones, and those in which some of what was sent takes no
// part in the backward pass. Handlers here never block: they go on when a future completes, on pools of one thread.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "impl/base/live.h"
#include "tests/property/group.h"

namespace gradferry::property {
namespace {

using at::Tensor;

Tensor Parameter(double value) { return at::full({}, value, at::kDouble).set_requires_grad(true); }

Tensor TensorAt(const ValueList& values, size_t index) { return *values.at(index).get<Tensor>(); }

class DirectedGraphs : public testing::Test {
 protected:
  DirectedGraphs() : group_(Options()) {
    auto context = group_.worker(0).NewContext();
    EXPECT_TRUE(context.ok());
    context_ = *std::move(context);
  }

  void TearDown() override {
    EXPECT_TRUE(group_.worker(0).ReleaseContext(context_->id()).ok());
    context_ = nullptr;
    kept_ = Tensor();
    AwaitCondition(
        [] {
          return LiveCount(LiveKind::kSendFunctions) == 0 && LiveCount(LiveKind::kRecvFunctions) == 0 &&
                 LiveCount(LiveKind::kPasses) == 0 && LiveCount(LiveKind::kAutogradContexts) == 0;
        },
        "the clean-up of the context");
  }

  static GroupOptions Options() {
    GroupOptions options;
    options.workers = 3;
    options.threads = {1, 1, 1};
    return options;
  }

  Worker& worker(int index) { return group_.worker(index); }

  void Handle(int at, const std::string& name, std::function<void(std::shared_ptr<Request>)> handler) {
    ASSERT_TRUE(worker(at).AddHandler(name, {std::move(handler), /*on_pool=*/true}).ok());
  }

  // A call from worker 0, waited for.
  ValueList Call(int to, const std::string& name, ValueList arguments) {
    CallSpec spec;
    spec.to_id = to;
    spec.name = name;
    spec.arguments = std::move(arguments);
    return Finish(std::move(spec));
  }

  ValueList CallOperator(int to, const std::string& name, const std::string& overload, ValueList arguments) {
    CallSpec spec;
    spec.to_id = to;
    spec.target = CallTarget::kOperator;
    spec.name = name;
    spec.overload = overload;
    spec.arguments = std::move(arguments);
    return Finish(std::move(spec));
  }

  ValueList Finish(CallSpec spec) {
    spec.context = context_;
    auto future = worker(0).StartCall(std::move(spec));
    if (!future.ok()) throw std::runtime_error(future.status().ToString());
    if (!(*future)->Wait(kLimit)) throw std::runtime_error("a call did not end");
    if (!(*future)->outcome().ok()) throw std::runtime_error((*future)->outcome().status().ToString());
    return *(*future)->outcome();
  }

  void Backward(std::vector<Tensor> roots, bool retain_graph = false) {
    BackwardRequest request;
    request.grads.resize(roots.size());
    request.roots = std::move(roots);
    request.retain_graph = retain_graph;
    auto future = worker(0).StartBackward(context_, std::move(request), 0);
    ASSERT_TRUE(future.ok()) << future.status().ToString();
    ASSERT_TRUE((*future)->Wait(kLimit)) << "the pass did not end";
    ASSERT_TRUE((*future)->outcome().ok()) << (*future)->outcome().status().ToString();
  }

  // As text: "none" or the number, so that a failure shows which.
  std::string Gradient(int at, const Tensor& leaf) {
    auto context = worker(at).FindContext(context_->id());
    const Tensor gradient = context.ok() ? (*context)->Gradient(leaf) : Tensor();
    return gradient.defined() ? StrCat(gradient.item().toDouble()) : "none";
  }

  static constexpr int64_t kLimit = int64_t{60} * 1000000000;
  Group group_;
  std::shared_ptr<DistAutogradContext> context_;
  Tensor kept_;
};

TEST_F(DirectedGraphs, AThousandCallsOneAfterTheOther) {
  const Tensor x = Parameter(3);
  Tensor y = x;
  for (int i = 0; i < 1000; ++i) y = TensorAt(CallOperator(1 + i % 2, "aten::add", "Tensor", {y, x}), 0);
  Backward({y});
  EXPECT_EQ(Gradient(0, x), "1001");
}

TEST_F(DirectedGraphs, AThousandCallsWithinEachOther) {
  const Tensor w[2] = {Parameter(1), Parameter(-1)};
  // Adds its parameter on the way there and multiplies with it on the way back.
  for (int at : {0, 1}) {
    Handle(at, "dive", [this, at, &w](std::shared_ptr<Request> request) {
      const int64_t depth = *request->arguments().at(0).get<int64_t>();
      const Tensor x = TensorAt(request->arguments(), 1) + w[at];
      if (depth == 0) return (void)request->Reply({x});
      CallSpec spec;
      spec.to_id = 1 - at;
      spec.name = "dive";
      spec.parent = request;
      spec.arguments = {depth - 1, x};
      auto future = worker(at).StartCall(std::move(spec));
      if (!future.ok()) return (void)request->Fail(future.status());
      (*future)->WhenDone([request, weight = w[at]](const Future::Outcome& outcome) {
        if (!outcome.ok()) return (void)request->Fail(outcome.status());
        (void)request->Reply({TensorAt(*outcome, 0) * weight});
      });
    });
  }
  const Tensor x = Parameter(2);
  const Tensor y = TensorAt(Call(1, "dive", {int64_t{999}, x}), 0);
  Backward({y});
  // y = (x + 500 w1 + 500 w0) * w0^499 * w1^500, the last multiplications undone on the way back: 999 of them.
  Tensor a = Parameter(1), b = Parameter(-1), z = Parameter(2), sum = z;
  for (int i = 0; i < 1000; ++i) sum = sum + (i % 2 == 0 ? b : a);
  for (int i = 998; i >= 0; --i) sum = sum * (i % 2 == 0 ? b : a);
  sum.backward();
  EXPECT_EQ(y.item().toDouble(), sum.item().toDouble());
  EXPECT_EQ(Gradient(0, x), StrCat(z.grad().item().toDouble()));
  EXPECT_EQ(Gradient(0, w[0]), StrCat(a.grad().item().toDouble()));
  EXPECT_EQ(Gradient(1, w[1]), StrCat(b.grad().item().toDouble()));
}

TEST_F(DirectedGraphs, AHundredThousandLocalNodes) {
  const Tensor w = Parameter(1);
  Handle(1, "long", [&w](std::shared_ptr<Request> request) {
    Tensor x = TensorAt(request->arguments(), 0);
    for (int i = 0; i < 100000; ++i) x = x + w;
    (void)request->Reply({x});
  });
  const Tensor x = Parameter(2);
  const Tensor y = TensorAt(Call(1, "long", {x}), 0);
  Backward({y});
  EXPECT_EQ(Gradient(0, x), "1");
  EXPECT_EQ(Gradient(1, w), "100000");
}

// ---- What was sent and takes no part ---------------------------------------------------------------------------

TEST_F(DirectedGraphs, ResultsThatNobodyUsesHoldNothingUp) {
  const Tensor w = Parameter(2);
  Handle(1, "times",
         [&w](std::shared_ptr<Request> request) { (void)request->Reply({TensorAt(request->arguments(), 0) * w}); });
  const Tensor x = Parameter(5);
  Call(1, "times", {x});
  Backward({TensorAt(Call(1, "times", {x}), 0)});
  Call(1, "times", {x});
  EXPECT_EQ(Gradient(0, x), "2");
  EXPECT_EQ(Gradient(1, w), "5");
}

TEST_F(DirectedGraphs, AnIntegerResultEndsTheGraphThere) {
  Handle(1, "count",
         [](std::shared_ptr<Request> request) { (void)request->Reply({TensorAt(request->arguments(), 0).numel()}); });
  const Tensor x = Parameter(5);
  const Tensor y = x * 3;
  const int64_t count = *Call(1, "count", {y}).at(0).get<int64_t>();
  Backward({y * count});
  EXPECT_EQ(Gradient(0, x), "3");
}

TEST_F(DirectedGraphs, OfAListOnlyWhatIsUsedGetsGradients) {
  const Tensor x = at::ones({4}, at::kDouble).set_requires_grad(true);
  const auto parts = *CallOperator(1, "aten::unbind", "int", {x * 2, int64_t{0}}).at(0).get<ValueList>();
  Backward({TensorAt(parts, 2)});
  const Tensor gradient = (*worker(0).FindContext(context_->id()))->Gradient(x);
  ASSERT_TRUE(gradient.defined());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(gradient[i].item().toDouble(), i == 2 ? 2 : 0) << i;
}

TEST_F(DirectedGraphs, ANodeBetweenALiveAndADeadSendRunsOnceWithAll) {
  const Tensor w = Parameter(3);
  Handle(2, "metric", [](std::shared_ptr<Request> request) { (void)request->Reply({int64_t{1}}); });
  // Replies with h and has sent it to worker 2 as well, for a metric.
  Handle(1, "diamond", [this, &w](std::shared_ptr<Request> request) {
    const Tensor h = TensorAt(request->arguments(), 0) * w;
    CallSpec spec;
    spec.to_id = 2;
    spec.name = "metric";
    spec.parent = request;
    spec.arguments = {h};
    auto future = worker(1).StartCall(std::move(spec));
    if (!future.ok()) return (void)request->Fail(future.status());
    (*future)->WhenDone([request, h](const Future::Outcome&) { (void)request->Reply({h, h * 10}); });
  });
  const Tensor x = Parameter(7);
  const ValueList results = Call(1, "diamond", {x});
  Backward({TensorAt(results, 0) + TensorAt(results, 1)});
  EXPECT_EQ(Gradient(0, x), "33");
  EXPECT_EQ(Gradient(1, w), "77");
}

TEST_F(DirectedGraphs, OfTwoSendsFromOneNodeOnlyTheLaterIsLive) {
  const Tensor w = Parameter(3);
  Handle(1, "first", [this, &w](std::shared_ptr<Request> request) {
    kept_ = TensorAt(request->arguments(), 0) * w;
    (void)request->Reply({kept_ * 5});
  });
  Handle(1, "later", [this](std::shared_ptr<Request> request) { (void)request->Reply({kept_ * 2}); });
  const Tensor x = Parameter(7);
  const Tensor first = TensorAt(Call(1, "first", {x}), 0);
  const Tensor later = TensorAt(Call(1, "later", {}), 0);
  Backward({later}, /*retain_graph=*/true);
  EXPECT_EQ(Gradient(0, x), "6");
  EXPECT_EQ(Gradient(1, w), "14");
  // Both, in the next pass: the gradients of the two passes add up.
  Backward({later, first});
  EXPECT_EQ(Gradient(0, x), "27");
  EXPECT_EQ(Gradient(1, w), "63");
}

TEST_F(DirectedGraphs, MarksThatArriveOneByOneReachASharedNodeTogether) {
  // worker 1 sends h to worker 2 and to worker 0; worker 2's part comes back by a longer way.
  const Tensor w = Parameter(3);
  Handle(2, "square", [](std::shared_ptr<Request> request) {
    const Tensor x = TensorAt(request->arguments(), 0);
    (void)request->Reply({x * x});
  });
  Handle(1, "fork", [this, &w](std::shared_ptr<Request> request) {
    const Tensor h = TensorAt(request->arguments(), 0) * w;
    CallSpec spec;
    spec.to_id = 2;
    spec.name = "square";
    spec.parent = request;
    spec.arguments = {h};
    auto future = worker(1).StartCall(std::move(spec));
    if (!future.ok()) return (void)request->Fail(future.status());
    (*future)->WhenDone([request, h](const Future::Outcome& outcome) {
      if (!outcome.ok()) return (void)request->Fail(outcome.status());
      (void)request->Reply({h, TensorAt(*outcome, 0) * 1.0});
    });
  });
  const Tensor x = Parameter(2);
  const ValueList results = Call(1, "fork", {x});
  Backward({TensorAt(results, 0) + TensorAt(results, 1)});
  EXPECT_EQ(Gradient(0, x), "39");  // (1 + 2 h) w, h = 6
  EXPECT_EQ(Gradient(1, w), "26");
}

// ---- What the pass does not reach does not run --------------------------------------------------------------------

class ZerosForNothing : public torch::autograd::Function<ZerosForNothing> {
 public:
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& x) { return x * 1; }
  // libtorch makes zeros of an undefined gradient before it calls this.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    return gradients;
  }
};

TEST_F(DirectedGraphs, BehindAnUnusedOutputNothingRuns) {
  const Tensor used = Parameter(2), unused = Parameter(3);
  std::atomic<int> hooks{0};
  Handle(1, "pair", [&](std::shared_ptr<Request> request) {
    const Tensor idle = ZerosForNothing::apply(unused);
    idle.register_hook([&](Tensor gradient) {
      ++hooks;
      return gradient;
    });
    (void)request->Reply({TensorAt(request->arguments(), 0) * used, idle});
  });
  const Tensor x = Parameter(5);
  Backward({TensorAt(Call(1, "pair", {x}), 0)});
  EXPECT_EQ(Gradient(0, x), "2");
  EXPECT_EQ(Gradient(1, used), "5");
  EXPECT_EQ(Gradient(1, unused), "none");
  EXPECT_EQ(hooks, 0);
}

TEST_F(DirectedGraphs, AHookOnAReceivedTensorRunsOnlyIfThePassReachesIt) {
  const Tensor w = Parameter(2);
  Handle(1, "pair", [&w](std::shared_ptr<Request> request) {
    const Tensor x = TensorAt(request->arguments(), 0);
    (void)request->Reply({x * w, x + w});
  });
  const Tensor x = Parameter(5);
  const ValueList results = Call(1, "pair", {x});
  std::atomic<int> hooks[2] = {};
  for (int i : {0, 1}) {
    TensorAt(results, i).register_hook([&hooks, i](Tensor gradient) {
      ++hooks[i];
      return gradient.mul(10);
    });
  }
  TensorAt(results, 0).retain_grad();
  TensorAt(results, 1).retain_grad();
  Backward({TensorAt(results, 1) * 3});
  EXPECT_EQ(hooks[0], 0);
  EXPECT_EQ(hooks[1], 1);
  EXPECT_EQ(Gradient(0, x), "30");
  EXPECT_EQ(Gradient(1, w), "30");
  EXPECT_FALSE(TensorAt(results, 0).grad().defined());
  EXPECT_EQ(TensorAt(results, 1).grad().item().toDouble(), 30);
}

TEST_F(DirectedGraphs, OneTensorSentToManyAndOneReceivedTensorUsedTwice) {
  const Tensor x = Parameter(3);
  const Tensor shared = x * 1;
  Tensor sum = shared * 0;
  for (int to : {0, 1, 2, 1}) {
    const Tensor remote = TensorAt(CallOperator(to, "aten::mul", "Tensor", {shared, shared}), 0);
    sum = sum + remote + remote;
  }
  Backward({sum});
  EXPECT_EQ(Gradient(0, x), "48");  // four times two times 2 x
}

}  // namespace
}  // namespace gradferry::property
