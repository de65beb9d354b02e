// Passes that take long: a healthy one is left alone, and one whose time is up, or that is cancelled, ends at once, on
// every worker and for good. A gate in the graph stands for work that lasts as long as the test likes.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "tests/integration/gate.h"
#include "tests/integration/modes.h"

namespace gf {
namespace {

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class WaitingPassTest : public TransportTest {
 protected:
  // The gate is on worker2, two hops away; worker1 is between.
  Tensor LossBehindGate(const Group& group, const Context& context) {
    const Tensor gated =
        TensorAt(CallWorker(group[0], "worker1", "through", ListOf(x_), In(context).Deadline(kPatience)), 0);
    return Sum(gated);
  }

  void Serve(Group& group) {
    group.server(1).On("through", [worker = group[1]](const Request& request) {
      return CallWorker(worker, "worker2", "gate", Arguments(request), CallOptions().Parent(request));
    });
    group.server(2).On(
        "gate", [this](const Request& request) { return ListOf(gate_.Behind(TensorAt(Arguments(request), 0))); });
  }

  // Ends a pass that stands before the gate, and says after how many ns it has ended.
  void ExpectEndsAtOnce(const BackwardOptions& options, int32_t code, const std::function<void(const Future&)>& end) {
    Group group(transport(), {"worker0", "worker1", "worker2"});
    Serve(group);
    {
      const Context context = NewContext(group[0]);
      const Tensor loss = LossBehindGate(group, context);
      const Future pass = StartBackward(context, {loss}, options);
      ASSERT_TRUE(Eventually([&] { return gate_.reached(); }));
      end(pass);
      const Error error = ErrorOf([&] { Await(pass); });
      EXPECT_EQ(error.code, code) << error.description;
      EXPECT_TRUE(Eventually([&] { return Info(group[0])["passes"] == 0 && Info(group[1])["passes"] == 0; }))
          << "the gate is still shut";
      gate_.Open();
      EXPECT_TRUE(Eventually([&] { return Info(group[2])["passes"] == 0; }));
      EXPECT_FALSE(HasGradient(context, x_));
      // The context is as good as new.
      Backward(context, {loss});
      EXPECT_EQ(ReadFloats(Gradient(context, x_)), std::vector<float>({1, 1}));
    }
    EXPECT_TRUE(Eventually(NothingUnderWay));
  }

  const Tensor x_ = WithGrad(Floats({2}, {2, 3}));
  Gate gate_;
};

// E11. PyTorch: the timeout of calls bounds everything that a gradient sets off, and ends a healthy pass.
TEST_P(WaitingPassTest, ASlowPassIsNotBoundByTheTimeoutOfCalls) {
  Group group(transport(), {"worker0", "worker1", "worker2"}, {{"call.timeout", "100ms"}});
  Serve(group);
  const Context context = NewContext(group[0]);
  const Tensor loss = LossBehindGate(group, context);
  const Future pass = StartBackward(context, {loss});
  ASSERT_TRUE(Eventually([&] { return gate_.reached(); }));
  const int64_t reached = Now();
  EXPECT_TRUE(Eventually([&] { return IsDone(pass) || Now() - reached > 500 * kMillisecond; }));
  EXPECT_FALSE(IsDone(pass));
  gate_.Open();
  Await(pass);
  EXPECT_EQ(ReadFloats(Gradient(context, x_)), std::vector<float>({1, 1}));
}

TEST_P(WaitingPassTest, ADeadlineEndsAPassEverywhere) {
  int64_t began = Now();
  int64_t lasted = 0;
  ExpectEndsAtOnce(BackwardOptions().Retain().Deadline(200 * kMillisecond), GF_DEADLINE_EXCEEDED,
                   [&](const Future& pass) {
                     ErrorOf([&] { Call(gf_future_wait, pass, kPatience); });
                     lasted = Now() - began;
                   });
  EXPECT_GE(lasted, 200 * kMillisecond);
  EXPECT_LT(lasted, 5 * kSecond);
}

TEST_P(WaitingPassTest, AnyThreadMayCancelAPass) {
  int64_t lasted = kPatience;
  ExpectEndsAtOnce(BackwardOptions().Retain(), GF_CANCELLED, [&](const Future& pass) {
    const int64_t began = Now();
    Threads threads;
    threads.Start([&] { Call(gf_future_cancel, pass); });
    Call(gf_future_wait, pass, kPatience);
    lasted = Now() - began;
  });
  RecordProperty("cancel_us", static_cast<int>(lasted / 1000));
  EXPECT_LT(lasted, 5 * kSecond);
}

GF_OVER_ALL_WAYS(WaitingPassTest);

}  // namespace
}  // namespace gf
