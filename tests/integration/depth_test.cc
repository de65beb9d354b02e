// Depth and width beyond what any thread pool or stack holds: calls within calls, passes within handlers, long chains
// and large graphs.
#include <gtest/gtest.h>

#include "tests/integration/modes.h"

namespace gf {
namespace {

class DepthTest : public TransportTest {};

constexpr int kDepth = 256;

// B8. PyTorch: a pool runs handlers and delivers answers and timeouts; as many nested calls as it has threads deadlock.
TEST_P(DepthTest, CallsNestTwoHundredFiftySixDeepOverPoolsOfOneThread) {
  Group group(transport(), {"worker0", "worker1"}, {{"worker.threads", "1"}});
  // The handlers block threads of the program, one for each level.
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i, kDepth / 2 + 1));
  const Tensor a = WithGrad(Floats({2}, {2, 3})), b = WithGrad(Floats({2}, {5, 7}));
  const List path = NewList();
  for (int i = 1; i < kDepth; ++i) Push(path, group.name(static_cast<size_t>((i + 1) % 2)));
  const Context context = NewContext(group[0]);
  const Tensor sum = TensorAt(CallWorker(group[0], "worker1", "nested", ListOf(a, b, path), In(context)), 0);
  EXPECT_EQ(ReadFloats(sum), std::vector<float>({7, 10}));
  Backward(context, {Sum(sum)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({1, 1}));
  EXPECT_EQ(ReadFloats(Gradient(context, b)), std::vector<float>({1, 1}));
}

// B8, with a pass at every level: each handler differentiates, in a context of its own, what the next one computes.
TEST_P(DepthTest, PassesNestTwoHundredFiftySixDeepOverPoolsOfOneThread) {
  Group group(transport(), {"worker0", "worker1"}, {{"worker.threads", "1"}});
  // f(0, x) = x * x; f(n, x) = x * the gradient, at x, of the sum of f(n - 1, x), which is a constant there.
  auto level = [&group](size_t self, int64_t depth, const Tensor& x) {
    if (depth == 0) return Mul(x, x);
    const Tensor input = WithGrad(TensorAt(CallOperator("aten::clone", ListOf(x), GF_GRAD_OFF), 0));
    const Context context = NewContext(group[self]);
    const Tensor below =
        TensorAt(CallWorker(group[self], group.name(1 - self), "level", ListOf(depth - 1, input), In(context)), 0);
    Backward(context, {Sum(below)});
    return Mul(x, Gradient(context, input));
  };
  for (size_t i = 0; i < group.size(); ++i) {
    group.server(i, kDepth / 2 + 1).On("level", [i, level](const Request& request) {
      const List arguments = Arguments(request);
      return ListOf(level(i, IntAt(arguments, 0), TensorAt(arguments, 1)));
    });
  }
  // f(1, x) = x * 2 x, and since g is a constant in x * g, f(n, x) = x * 2 x for all n above.
  const Tensor result = level(0, kDepth, Floats({2}, {2, 3}));
  EXPECT_EQ(ReadFloats(result), std::vector<float>({8, 18}));
}

// B8: more calls at once than threads anywhere, all for one worker, whose handlers call on.
TEST_P(DepthTest, ManyCallsAtOnceMeetPoolsOfOneThread) {
  Group group(transport(), {"worker0", "worker1", "worker2"}, {{"worker.threads", "1"}});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i, 8));
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  std::vector<Future> calls;
  for (int i = 0; i < 256; ++i) {
    calls.push_back(StartCall(group[0], "worker1", "nested", ListOf(a, a, ListOf("worker2")), In(context)));
  }
  std::vector<Tensor> sums;
  for (const Future& call : calls) sums.push_back(TensorAt(Await(call), 0));
  Backward(context, {Sum(Op("aten::stack", sums))});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({512, 512}));
}

TEST_P(DepthTest, AChainOfAThousandCallsInOneContext) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  const Tensor x = WithGrad(Floats({2}, {2, 3})), one = Floats({2}, {1, 1});
  const Context context = NewContext(group[0]);
  Tensor value = x;
  for (size_t i = 0; i < 1000; ++i) {
    value = RemoteOp(group[0], group.name(1 + i % 2), In(context), "aten::mul.Tensor", value, one);
  }
  Backward(context, {Sum(Add(value, x))});
  EXPECT_EQ(ReadFloats(Gradient(context, x)), std::vector<float>({2, 2}));
}

TEST_P(DepthTest, AGraphOfAHundredThousandNodesOnAPeer) {
  Group group(transport(), {"worker0", "worker1"});
  group.server(1).On("long", [](const Request& request) {
    const Tensor x = TensorAt(Arguments(request), 0);
    Tensor value = x;
    for (int i = 0; i < 100000; ++i) value = Add(value, x);
    return ListOf(value);
  });
  const Tensor x = WithGrad(Floats({}, {2}));
  const Context context = NewContext(group[0]);
  const Tensor value = TensorAt(CallWorker(group[0], "worker1", "long", ListOf(x), In(context)), 0);
  Backward(context, {value});
  EXPECT_EQ(ReadFloats(Gradient(context, x)), std::vector<float>({100001}));
}

GF_OVER_ALL_WAYS(DepthTest);

}  // namespace
}  // namespace gf
