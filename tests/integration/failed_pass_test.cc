// A pass that fails is an ordinary event: all who took part learn of it, free what they had of it, and can go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

class FailedPassTest : public TransportTest {};

// When no call and no pass is under way, and no handler holds on to what it has answered. Connections aside, which are
// made when they are needed and stay.
std::map<std::string, int64_t> LiveButConnections() {
  for (const uint32_t kind : {GF_LIVE_CALLS, GF_LIVE_PASSES, GF_LIVE_REQUESTS, GF_LIVE_LISTS}) {
    EXPECT_TRUE(Eventually([&] { return gf_live_objects(kind) == 0; })) << kind;
  }
  auto counts = LiveObjects();
  counts.erase("connections");
  return counts;
}

// B1, B2. PyTorch: who waits for a gradient is never told that it will not come, and keeps the pass, its gradients and
// its activations for ever, even when the context is long gone.
TEST_P(FailedPassTest, AWorkerThatWaitsForAGradientIsToldThatNoneWillCome) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  {
    const Tensor x = WithGrad(Floats({2}, {2, 3}));
    const Context context = NewContext(group[0]);
    const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", x, Floats({2}, {5, 7}));
    // worker1 is marked, and its gradient hangs on that of an operator, on worker2, which has no derivative.
    const Tensor bad = RemoteOp(group[0], "worker2", In(context), "aten::nextafter", product, Floats({2}, {9, 9}));
    const Error error = ErrorOf([&] { Backward(context, {Sum(bad)}, BackwardOptions().Retain()); });
    EXPECT_EQ(error.code, GF_PASS_ABORTED);
    EXPECT_EQ(error.worker, "worker2") << error.description;
    EXPECT_THAT(error.description, HasSubstr("nextafter"));
    for (size_t i = 0; i < group.size(); ++i) {
      EXPECT_TRUE(Eventually([&] { return Info(group[i])["passes"] == 0; })) << group.name(i);
    }
    EXPECT_FALSE(HasGradient(context, x));
    Backward(context, {Sum(product)});
    EXPECT_EQ(ReadFloats(Gradient(context, x)), std::vector<float>({5, 7}));
  }
  EXPECT_TRUE(Eventually(NothingUnderWay)) << "with all workers open";
}

// test_multiple_backward_with_errors, over two hops and with what lives counted afterwards.
TEST_P(FailedPassTest, FiftyFailuresLeaveNothingAndFortyNineGoodPassesAddUp) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  group.server(1).On("bad", [worker = group[1]](const Request& request) {
    return CallWorker(worker, "worker2", "aten::nextafter", Arguments(request), CallOptions().Parent(request));
  });
  {
    const Tensor x = WithGrad(Floats({2}, {2, 3})), ones = Floats({2}, {1, 1});
    const Context context = NewContext(group[0]);
    const Tensor bad = Sum(TensorAt(CallWorker(group[0], "worker1", "bad", ListOf(x, ones), In(context)), 0));
    const Tensor good =
        Sum(TensorAt(CallWorker(group[0], "worker1", "nested", ListOf(x, ones, ListOf("worker2")), In(context)), 0));
    Backward(context, {good}, BackwardOptions().Retain());
    const auto before = LiveButConnections();
    for (int i = 0; i < 50; ++i) {
      const Error error = ErrorOf([&] { Backward(context, {bad}, BackwardOptions().Retain()); });
      ASSERT_EQ(error.code, GF_PASS_ABORTED) << error.description;
      ASSERT_EQ(error.worker, "worker2") << error.description;
    }
    EXPECT_EQ(LiveButConnections(), before);
    for (int i = 0; i < 49; ++i) Backward(context, {good}, BackwardOptions().Retain());
    EXPECT_EQ(LiveButConnections(), before);
    EXPECT_EQ(ReadFloats(Gradient(context, x)), std::vector<float>({50, 50}));
  }
  EXPECT_TRUE(Eventually(NothingUnderWay)) << "with all workers open";
}

GF_OVER_ALL_WAYS(FailedPassTest);

}  // namespace
}  // namespace gf
