// Hooks that a program registers through the C ABI: order, number and effect are those of local autograd, which runs
// the same graph beside it with hooks of libtorch's.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/api/include/torch/version.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using torch::autograd::variable_list;

class CHooksTest : public TransportTest {};

at::Tensor ToAten(const Tensor& tensor) {
  void* out = nullptr;
  Call(gf_tensor_to_aten, tensor, TORCH_VERSION, std::strlen(TORCH_VERSION), &out);
  const std::unique_ptr<at::Tensor> owned(static_cast<at::Tensor*>(out));
  return *owned;
}

// What hooks saw, in their order.
class HookLog {
 public:
  void Add(const std::string& hook, const std::vector<float>& gradient) {
    std::lock_guard lock(mutex_);
    std::string line = hook + ":";
    for (float value : gradient) line += " " + std::to_string(value);
    lines_.push_back(std::move(line));
  }
  std::vector<std::string> Lines() const {
    std::lock_guard lock(mutex_);
    return lines_;
  }
  // Those of "<tensor> hook <number>" by tensor: tensors that do not depend on each other come in any order.
  std::map<std::string, std::vector<std::string>> PerTensor() const {
    std::map<std::string, std::vector<std::string>> seen;
    for (const std::string& line : Lines()) seen[line.substr(0, line.find(" hook"))].push_back(line);
    return seen;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

std::vector<float> FloatsOf(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor plain = tensor.contiguous();
  return std::vector<float>(plain.data_ptr<float>(), plain.data_ptr<float>() + plain.numel());
}

// A hook that logs, and multiplies when the factor is not 1. By the C ABI:
uint64_t Hook(const Tensor& tensor, HookLog& log, const std::string& name, float factor = 1) {
  return RegisterHook(tensor, [&log, name, factor](const Tensor& gradient) -> Tensor {
    log.Add(name, gradient == nullptr ? std::vector<float>() : ReadFloats(gradient));
    if (factor == 1) return Tensor();
    return Op("aten::mul.Scalar", gradient, double{factor});
  });
}
// By libtorch; at::Tensor's own register_hook fails when there is no gradient.
void Hook(const at::Tensor& tensor, HookLog& log, const std::string& name, float factor = 1) {
  static_cast<const at::TensorBase&>(tensor).register_hook([&log, name, factor](const at::TensorBase& given) {
    const at::Tensor gradient(given);
    log.Add(name, FloatsOf(gradient));
    return at::TensorBase(factor == 1 ? at::Tensor() : gradient * factor);
  });
}

class LoggingPreHook : public torch::autograd::FunctionPreHook {
 public:
  LoggingPreHook(HookLog& log, std::string name) : log_(log), name_(std::move(name)) {}
  variable_list operator()(const variable_list& gradients) override {
    log_.Add(name_, FloatsOf(gradients[0]));
    return gradients;
  }

 private:
  HookLog& log_;
  const std::string name_;
};

class LoggingPostHook : public torch::autograd::FunctionPostHook {
 public:
  LoggingPostHook(HookLog& log, std::string name) : log_(log), name_(std::move(name)) {}
  variable_list operator()(const variable_list& outputs, const variable_list& inputs) override {
    log_.Add(name_, inputs.empty() ? std::vector<float>() : FloatsOf(inputs[0]));
    return outputs;
  }

 private:
  HookLog& log_;
  const std::string name_;
};

void NodeHooks(const at::Tensor& tensor, HookLog& log, const std::string& name) {
  tensor.grad_fn()->add_pre_hook(std::make_unique<LoggingPreHook>(log, name + ".pre"));
  tensor.grad_fn()->add_post_hook(std::make_unique<LoggingPostHook>(log, name + ".post"));
}

// Leaf, a tensor in between, one that came back from a worker (or would have): each with several hooks, registered in
// an order that mixes ours and libtorch's.
TEST_P(CHooksTest, RunAsOftenAndInTheOrderOfLocalAutograd) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  HookLog log;
  Hook(a, log, "a1", 2);
  Hook(ToAten(a), log, "a2");
  Hook(a, log, "a3", 3);
  Hook(a, log, "a4");
  const Context context = NewContext(group[0]);
  const Tensor product = Mul(a, b);
  Hook(product, log, "product1", 10);
  Hook(product, log, "product2");
  const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", product, a);
  Hook(sum, log, "sum1", -1);
  Hook(ToAten(sum), log, "sum2", 5);
  Hook(sum, log, "sum3");
  NodeHooks(ToAten(product), log, "mul");
  Hook(product, log, "product3");
  Backward(context, {Sum(Mul(sum, sum))});

  const at::Tensor la = at::tensor({2.f, 3.f}).set_requires_grad(true),
                   lb = at::tensor({5.f, 7.f}).set_requires_grad(true);
  HookLog local;
  Hook(la, local, "a1", 2);
  Hook(la, local, "a2");
  Hook(la, local, "a3", 3);
  Hook(la, local, "a4");
  const at::Tensor lproduct = la * lb;
  Hook(lproduct, local, "product1", 10);
  Hook(lproduct, local, "product2");
  const at::Tensor lsum = lproduct + la;
  Hook(lsum, local, "sum1", -1);
  Hook(lsum, local, "sum2", 5);
  Hook(lsum, local, "sum3");
  NodeHooks(lproduct, local, "mul");
  Hook(lproduct, local, "product3");
  torch::autograd::backward({(lsum * lsum).sum()}, {});

  EXPECT_EQ(log.Lines(), local.Lines());
  EXPECT_EQ(log.Lines().size(), 12u);
  EXPECT_EQ(ReadFloats(Gradient(context, a)), FloatsOf(la.grad()));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), FloatsOf(lb.grad()));
}

// A handler's own tensors, and those that came with its call, have hooks over there.
TEST_P(CHooksTest, RunAtTheWorkerThatRegisteredThem) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor weight = WithGrad(Floats({2}, {3, 4}));
  HookLog log;
  group.server(1).On("product", [&](const Request& request) {
    const Tensor input = TensorAt(Arguments(request), 0);
    Hook(input, log, "input", 2);
    const Tensor product = Mul(input, weight);
    Hook(product, log, "product", 10);
    return ListOf(product);
  });
  const Tensor a = WithGrad(Floats({2}, {1, 2}));
  const Context context = NewContext(group[0]);
  const Tensor product = TensorAt(CallWorker(group[0], "worker1", "product", ListOf(a), In(context)), 0);
  Hook(product, log, "result");
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({60, 80}));
  EXPECT_EQ(ReadFloats(Gradient(FindContext(group[1], gf_context_id(context)), weight)), std::vector<float>({10, 20}));
  EXPECT_EQ(log.Lines().size(), 3u);
  EXPECT_EQ(log.Lines()[0], "result: 1.000000 1.000000");
  EXPECT_EQ(log.Lines()[1], "product: 1.000000 1.000000");
  EXPECT_EQ(log.Lines()[2], "input: 30.000000 40.000000");
}

// unbind gives two tensors of one node; only the first leads to the root.
TEST_P(CHooksTest, OfAResultThatIsNotReachedGetsNoGradient) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  HookLog log;
  const Context context = NewContext(group[0]);
  const List parts = ListAt(CallOperator("aten::unbind.int", ListOf(a)), 0);
  Hook(TensorAt(parts, 0), log, "first");
  Hook(TensorAt(parts, 1), log, "second");
  Backward(context, {TensorAt(parts, 0)});

  HookLog local;
  const at::Tensor la = at::tensor({2.f, 3.f}).set_requires_grad(true);
  const auto lparts = la.unbind();
  Hook(lparts[0], local, "first");
  Hook(lparts[1], local, "second");
  torch::autograd::backward({lparts[0]}, {});
  EXPECT_EQ(log.Lines(), local.Lines());
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({1, 0}));
}

// Of two tensors that one call returned only the first is used; the hook of the other one does not run, as it would not
// if they had been computed here.
TEST_P(CHooksTest, OfAnUnusedResultOfACallDoesNotRun) {
  Group group(transport(), {"worker0", "worker1"});
  group.server(1).On("both", [](const Request& request) {
    const Tensor input = TensorAt(Arguments(request), 0);
    return ListOf(Mul(input, input), Add(input, input));
  });
  const Tensor a = WithGrad(Floats({1}, {3}));
  HookLog log;
  const Context context = NewContext(group[0]);
  const List results = CallWorker(group[0], "worker1", "both", ListOf(a), In(context));
  Hook(TensorAt(results, 0), log, "used");
  Hook(TensorAt(results, 1), log, "unused");
  Backward(context, {TensorAt(results, 0)});
  EXPECT_EQ(log.Lines(), std::vector<std::string>({"used: 1.000000"}));
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
}

TEST_P(CHooksTest, AnErrorOfAHookEndsThePassWithItAsItsCause) {
  Group group(transport(), {"worker0", "worker1"});
  Tensor kept;
  uint64_t hook = 0;
  group.server(1).On("square", [&](const Request& request) {
    const Tensor input = TensorAt(Arguments(request), 0);
    kept = Mul(input, input);
    hook = RegisterHook(kept, [](const Tensor&) -> Tensor {
      Error refused;
      refused.code = GF_OUT_OF_RANGE;
      refused.message = "the gradient is too large";
      throw Failure(refused);
    });
    return ListOf(kept);
  });
  const Tensor a = WithGrad(Floats({1}, {3}));
  const Context context = NewContext(group[0]);
  const Tensor square = TensorAt(CallWorker(group[0], "worker1", "square", ListOf(a), In(context)), 0);
  const Error error = ErrorOf([&] { Backward(context, {square}, BackwardOptions().Retain()); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_EQ(error.root().code, GF_OUT_OF_RANGE) << error.description;
  EXPECT_EQ(error.root().message, "the gradient is too large");
  EXPECT_EQ(error.root().worker, "worker1");
  EXPECT_EQ(error.root().operation, "MulBackward0");
  EXPECT_FALSE(HasGradient(context, a));
  // Without the hook it goes well.
  RemoveHook(kept, hook);
  Backward(context, {square});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
  kept.reset();
}

// However small the pass is: the thread that reads the caller's messages runs no code of a user's.
TEST_P(CHooksTest, AHookThatWaitsKeepsNothingElseWaiting) {
  Group group(transport(), {"worker0", "worker1"});
  std::mutex mutex;
  std::condition_variable changed;
  bool entered = false, answered = false;
  group.server(1).On("square", [&](const Request& request) {
    const Tensor input = TensorAt(Arguments(request), 0);
    const Tensor square = Mul(input, input);
    RegisterHook(square, [&](const Tensor&) -> Tensor {
      std::unique_lock lock(mutex);
      entered = true;
      changed.notify_all();
      changed.wait_for(lock, std::chrono::nanoseconds(kPatience), [&] { return answered; });
      return Tensor();
    });
    return ListOf(square);
  });
  group.server(1).On("ping", [](const Request&) { return NewList(); });
  const Tensor a = WithGrad(Floats({1}, {3}));
  const Context context = NewContext(group[0]);
  const Future pass =
      StartBackward(context, {TensorAt(CallWorker(group[0], "worker1", "square", ListOf(a), In(context)), 0)});
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::nanoseconds(kPatience), [&] { return entered; }));
  }
  CallWorker(group[0], "worker1", "ping", NewList());
  {
    std::lock_guard lock(mutex);
    answered = true;
  }
  changed.notify_all();
  Await(pass);
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6}));
}

TEST_P(CHooksTest, AReplacementOfAnotherShapeEndsThePass) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({2}, {3, 4}));
  RegisterHook(a, [](const Tensor&) { return Floats({3}, {1, 2, 3}); });
  const Context context = NewContext(group[0]);
  const Error error = ErrorOf([&] { Backward(context, {Sum(a)}); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_EQ(error.root().code, GF_INVALID_ARGUMENT);
  EXPECT_NE(error.root().message.find("float32[3]"), std::string::npos) << error.description;
}

TEST_P(CHooksTest, RemovedOnesDoNotRunAndAreDroppedOnce) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({1}, {3}));
  std::atomic<int> calls{0}, dropped{0};
  uint64_t itself = 0;
  itself = RegisterHook(
      a,
      [&](const Tensor&) {
        ++calls;
        RemoveHook(a, itself);
        EXPECT_EQ(dropped, 0);  // not while it runs
        return Tensor();
      },
      [&] { ++dropped; });
  const uint64_t other = RegisterHook(
      a, [&](const Tensor&) { return ++calls, Tensor(); }, [&] { ++dropped; });
  const Context context = NewContext(group[0]);
  Backward(context, {Sum(a)});
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(dropped, 1);
  Backward(context, {Sum(a)});
  EXPECT_EQ(calls, 3);
  RemoveHook(a, other);
  EXPECT_EQ(dropped, 2);
  Backward(context, {Sum(a)});
  EXPECT_EQ(calls, 3);
  for (uint64_t id : {itself, other, uint64_t{0}}) {
    EXPECT_EQ(ErrorOf([&] { RemoveHook(a, id); }).code, GF_NOT_FOUND);
  }
}

// Those of tensors in between end with the graph.
TEST_P(CHooksTest, AreDroppedWithTheirTensor) {
  Group group(transport(), {"worker0", "worker1"});
  std::atomic<int> dropped{0};
  {
    const Tensor a = WithGrad(Floats({1}, {3}));
    const Context context = NewContext(group[0]);
    {
      const Tensor square = Mul(a, a);
      RegisterHook(
          square, [](const Tensor&) { return Tensor(); }, [&] { ++dropped; });
      const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", square, a);
      RegisterHook(
          sum, [](const Tensor&) { return Tensor(); }, [&] { ++dropped; });
      Backward(context, {sum}, BackwardOptions().Retain());
    }
    EXPECT_EQ(dropped, 0);
    Release(context);
  }
  EXPECT_TRUE(Eventually([&] { return dropped == 2; })) << dropped;
}

// A gradient that a hook has kept stays as it was: later contributions go elsewhere.
TEST_P(CHooksTest, AGradientThatAHookKeptIsNotAddedTo) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({2}, {3, 4}));
  std::vector<Tensor> kept;
  RegisterHook(a, [&](const Tensor& gradient) { return kept.push_back(gradient), Tensor(); });
  const Context context = NewContext(group[0]);
  for (int i = 0; i < 3; ++i) Backward(context, {Sum(Mul(a, a))});
  ASSERT_EQ(kept.size(), 3u);
  for (const Tensor& gradient : kept) EXPECT_EQ(ReadFloats(gradient), std::vector<float>({6, 8}));
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({18, 24}));
  // So does one that a hook gave and still holds.
  const Tensor b = WithGrad(Floats({1}, {1})), mine = Floats({1}, {100});
  RegisterHook(b, [&](const Tensor&) { return mine; });
  for (int i = 0; i < 2; ++i) Backward(context, {Sum(b)});
  EXPECT_EQ(ReadFloats(mine), std::vector<float>({100}));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({200}));
}

// libtorch's own backward runs them as well; their errors are its exceptions.
TEST_P(CHooksTest, RunInABackwardOfLibtorch) {
  const Tensor a = WithGrad(Floats({1}, {3}));
  const uint64_t hook = RegisterHook(a, [](const Tensor& gradient) { return Add(gradient, gradient); });
  torch::autograd::backward({ToAten(Sum(Mul(a, a)))}, {});
  EXPECT_EQ(ToAten(a).grad().item<float>(), 12.f);
  RemoveHook(a, hook);
  RegisterHook(a, [](const Tensor&) -> Tensor { throw std::runtime_error("no more"); });
  try {
    torch::autograd::backward({ToAten(Sum(Mul(a, a)))}, {});
    FAIL() << "the hook's error was lost";
  } catch (const std::exception& e) {
    EXPECT_NE(std::string(e.what()).find("no more"), std::string::npos) << e.what();
  }
}

// Hooks come and go, also while passes run.
TEST_P(CHooksTest, ComeAndGoWhilePassesRun) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({1}, {3}));
  std::atomic<int> dropped{0};
  RegisterHook(
      a, [](const Tensor&) { return Tensor(); }, [&] { ++dropped; });
  constexpr int kTurns = 50;
  Threads threads;
  for (int i = 0; i < 2; ++i) {
    threads.Start([&] {
      for (int turn = 0; turn < kTurns; ++turn) {
        const uint64_t id = RegisterHook(
            a, [](const Tensor&) { return Tensor(); }, [&] { ++dropped; });
        RemoveHook(a, id);
      }
    });
    threads.Start([&] {
      const Context context = NewContext(group[0]);
      for (int turn = 0; turn < kTurns; ++turn) Backward(context, {Sum(a)});
      EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({kTurns}));
    });
  }
  threads.Join();
  EXPECT_EQ(dropped, 2 * kTurns);
}

// `.grad`, without libtorch's warning that this is no leaf.
bool HasGradField(const Tensor& tensor) {
  return torch::autograd::impl::get_autograd_meta(ToAten(tensor))->grad_.defined();
}

void Retain(const Tensor& tensor) { Call(gf_tensor_retain_grad, tensor); }

// What local autograd puts into `.grad` the context has: in a chain over two workers, after two passes, with hooks
// before and after.
TEST_P(CHooksTest, RetainedGradientsAreThoseOfLocalAutograd) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor square = Mul(a, a);
  HookLog log;
  Hook(square, log, "before", 2);
  Retain(square);
  Retain(square);
  Hook(square, log, "after", 3);
  const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", square, a);
  Retain(sum);
  Retain(a);
  for (int pass = 0; pass < 2; ++pass) Backward(context, {Sum(Mul(sum, sum))}, BackwardOptions().Retain());

  const at::Tensor la = at::tensor({2.f, 3.f}).set_requires_grad(true);
  const at::Tensor lsquare = la * la;
  HookLog local;
  Hook(lsquare, local, "before", 2);
  lsquare.retain_grad();
  Hook(lsquare, local, "after", 3);
  const at::Tensor lsum = lsquare + la;
  lsum.retain_grad();
  for (int pass = 0; pass < 2; ++pass) torch::autograd::backward({(lsum * lsum).sum()}, {}, true);

  EXPECT_EQ(log.Lines(), local.Lines());
  EXPECT_EQ(ReadFloats(Gradient(context, square)), FloatsOf(lsquare.grad()));
  EXPECT_EQ(ReadFloats(Gradient(context, sum)), FloatsOf(lsum.grad()));
  EXPECT_EQ(ReadFloats(Gradient(context, a)), FloatsOf(la.grad()));
  EXPECT_EQ(GradientCount(context), 3u);
  EXPECT_FALSE(HasGradField(square));
  // Each context has its own, and nobody else's memory.
  const Context other = NewContext(group[0]);
  Backward(other, {Sum(square)}, BackwardOptions().Retain());
  EXPECT_EQ(ReadFloats(Gradient(other, square)), std::vector<float>({2, 2}));
  const Tensor kept = Gradient(other, square);
  Backward(other, {Sum(square)}, BackwardOptions().Retain());
  EXPECT_EQ(ReadFloats(Gradient(other, square)), std::vector<float>({4, 4}));
}

TEST_P(CHooksTest, RetainedGradientsOfAFailedPassAreTakenBack) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({1}, {2}));
  const Context context = NewContext(group[0]);
  const Tensor square = Mul(a, a);
  Retain(square);
  const uint64_t failing = RegisterHook(a, [](const Tensor&) -> Tensor { throw std::runtime_error("no"); });
  EXPECT_EQ(ErrorOf([&] { Backward(context, {square}, BackwardOptions().Retain()); }).code, GF_PASS_ABORTED);
  EXPECT_FALSE(HasGradient(context, square));
  RemoveHook(a, failing);
  Backward(context, {square});
  EXPECT_EQ(ReadFloats(Gradient(context, square)), std::vector<float>({1}));
}

// libtorch's own backward keeps nothing, and a tensor that is gone is not missed.
TEST_P(CHooksTest, RetainingHoldsNobody) {
  Group group(transport(), {"worker0"});
  const Tensor a = WithGrad(Floats({1}, {2}));
  const Context context = NewContext(group[0]);
  Tensor square = Mul(a, a);
  Retain(square);
  torch::autograd::backward({ToAten(square)}, {}, true);
  EXPECT_FALSE(HasGradField(square));
  EXPECT_FALSE(HasGradient(context, square));
  const Tensor sum = Sum(square);
  square.reset();
  Backward(context, {sum});
  EXPECT_EQ(GradientCount(context), 1u);
  EXPECT_EQ(ErrorOf([&] { Retain(Floats({1}, {1})); }).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(ErrorOf([&] { Retain(Tensor()); }).code, GF_INVALID_ARGUMENT);
}

// A random graph, once over three workers with our hooks and once here with libtorch's. All values are small integers,
// so that sums are exact in any order.
class RandomGraph {
 public:
  RandomGraph(Group& group, uint32_t seed) : group_(group), random_(seed), context_(NewContext(group[0])) {}

  void Compare() {
    for (int i = 0; i < 3; ++i) {
      const float x = Below(5) - 2, y = Below(5) - 2;
      AddTensor(WithGrad(Floats({2}, {x, y})), at::tensor({x, y}).set_requires_grad(true));
    }
    for (int i = 0, nodes = 4 + Below(9); i < nodes; ++i) AddNode();
    Tensor root = ours_.back();
    at::Tensor local_root = locals_.back();
    for (int i = 0, more = Below(3); i < more; ++i) {
      const size_t other = Any();
      root = Add(root, ours_[other]);
      local_root = local_root + locals_[other];
    }
    for (int pass = 0, passes = 1 + Below(2); pass < passes; ++pass) {
      Backward(context_, {Sum(root)}, BackwardOptions().Retain());
      torch::autograd::backward({local_root.sum()}, {}, true);
    }
    EXPECT_EQ(log_.PerTensor(), local_log_.PerTensor());
    for (size_t i = 0; i < ours_.size(); ++i) {
      if (!locals_[i].is_leaf() && !locals_[i].retains_grad()) continue;
      const bool there = locals_[i].grad().defined();
      ASSERT_EQ(HasGradient(context_, ours_[i]), there) << "tensor " << i;
      if (!there) continue;
      EXPECT_EQ(ReadFloats(Gradient(context_, ours_[i])), FloatsOf(locals_[i].grad())) << "tensor " << i;
    }
  }

 private:
  int Below(int end) { return static_cast<int>(random_() % static_cast<uint32_t>(end)); }
  size_t Any() { return static_cast<size_t>(Below(static_cast<int>(ours_.size()))); }

  // A product only with a leaf, so that values stay small.
  void AddNode() {
    static const char* const kOperators[] = {"aten::add.Tensor", "aten::sub.Tensor", "aten::mul.Tensor"};
    const int which = Below(3);
    const size_t a = Any(), b = which == 2 ? static_cast<size_t>(Below(3)) : Any();
    const int place = Below(3);
    const Tensor ours = place == 0 ? Op(kOperators[which], ours_[a], ours_[b])
                                   : RemoteOp(group_[0], group_.name(static_cast<size_t>(place)), In(context_),
                                              kOperators[which], ours_[a], ours_[b]);
    const at::Tensor x = locals_[a], y = locals_[b];
    AddTensor(ours, which == 0 ? x + y : which == 1 ? x - y : x * y);
  }

  void AddTensor(const Tensor& ours, const at::Tensor& local) {
    const std::string name = "tensor " + std::to_string(ours_.size());
    for (int i = 0, hooks = Below(4); i < hooks; ++i) {
      const float factor = static_cast<float>(1 - Below(3));  // 1, 0 or -1
      Hook(ours, log_, name + " hook " + std::to_string(i), factor);
      Hook(local, local_log_, name + " hook " + std::to_string(i), factor);
      if (Below(3) == 0) RemoveHook(ours, Hook(ours, log_, "removed"));
      if (Below(4) != 0) continue;
      Call(gf_tensor_retain_grad, ours);
      local.retain_grad();
    }
    ours_.push_back(ours);
    locals_.push_back(local);
  }

  Group& group_;
  std::mt19937 random_;
  const Context context_;
  HookLog log_, local_log_;
  std::vector<Tensor> ours_;
  std::vector<at::Tensor> locals_;
};

TEST_P(CHooksTest, RandomGraphsRunThemAsLocalAutogradDoes) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (uint32_t seed = 0; seed < 150 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomGraph(group, seed).Compare();
  }
}

GF_OVER_ALL_WAYS(CHooksTest);

}  // namespace
}  // namespace gf
