// Peers that fall silent or die, and what they leave: calls, passes, contexts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/integration/fleet.h"
#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Shorter than the defaults, so that a test does not take them; long enough for a loaded machine.
const Settings kShortLimits = {{"liveness.interval", "200ms"}, {"liveness.suspect", "500ms"}, {"liveness.lost", "2s"}};

class SilentPeerTest : public TransportTest {};

std::string StateOf(gf_worker* worker, const std::string& peer) {
  const auto info = Info(worker);
  for (const auto& entry : info["peers"]) {
    if (entry["name"] == peer) return entry["state"];
  }
  return "";
}

TEST_P(SilentPeerTest, CallsToAWorkerThatStandsStillFailWithItsName) {
  Fleet fleet(2, transport(), kShortLimits);
  fleet.Stop(1);
  const Future call = StartCall(fleet.worker(), "worker1", "ready", NewList());
  EXPECT_TRUE(Eventually([&] { return StateOf(fleet.worker(), "worker1") == "suspect"; }));
  const Error error = ErrorOf([&] { Await(call); });
  EXPECT_EQ(error.code, GF_PEER_LOST);
  EXPECT_THAT(error.description, AllOf(HasSubstr("worker1"), HasSubstr("silent")));
  // It goes on, and so do we with it.
  fleet.process(1).Signal(SIGCONT);
  EXPECT_TRUE(Eventually(
      [&] { return ErrorOf([&] { CallWorker(fleet.worker(), "worker1", "ready", NewList()); }).code == GF_OK; }));
}

TEST_P(SilentPeerTest, APassThatWaitsForAWorkerThatStandsStillFailsWithItsName) {
  Fleet fleet(3, transport(), kShortLimits);
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(fleet.worker());
  // worker1 is not our peer in this pass, but one of worker2's.
  const Tensor sum =
      TensorAt(CallWorker(fleet.worker(), "worker2", "nested", ListOf(a, a, ListOf("worker1")), In(context)), 0);
  const Tensor beside = RemoteOp(fleet.worker(), "worker2", In(context), "aten::mul.Tensor", a, a);
  fleet.Stop(1);
  const Error error = ErrorOf([&] { Backward(context, {Sum(sum)}); });
  EXPECT_EQ(error.code, GF_PASS_ABORTED);
  EXPECT_THAT(error.description, AllOf(HasSubstr("worker1"), HasSubstr("silent")));
  // What does not need it is exact.
  Backward(context, {Sum(beside)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
  fleet.process(1).Signal(SIGCONT);
}

// A long call is no silence: the callee lives and says so.
TEST_P(SilentPeerTest, ASlowCallOfAHealthyWorkerGoesOn) {
  Fleet fleet(2, transport(), kShortLimits);
  const Future call = StartCall(fleet.worker(), "worker1", "hang", NewList());
  EXPECT_EQ(ErrorOf([&] { Call(gf_future_wait, call, 3 * kSecond); }).code, GF_DEADLINE_EXCEEDED);
  EXPECT_FALSE(IsDone(call));
  EXPECT_EQ(StateOf(fleet.worker(), "worker1"), "connected");
  Call(gf_future_cancel, call);
}

// Each of them takes its limits, and TCP shows nothing that TLS does not.
GF_OVER(SilentPeerTest, "tensorpipe", "thrift_unix", "thrift_tls");

class LeaseTest : public TransportTest {};

int64_t Contexts(gf_worker* worker) { return Info(worker)["contexts"]; }

// worker2 has never heard of worker0 but by the context.
TEST_P(LeaseTest, ContextsOfADeadMakerVanishAlsoTwoHopsAway) {
  Group group(transport(), {"worker0", "worker1", "worker2"}, kShortLimits);
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({2}, 1));
  const Context context = NewContext(group[0]);
  CallWorker(group[0], "worker1", "nested", ListOf(a, a, ListOf("worker2")), In(context));
  EXPECT_EQ(Contexts(group[1]), 1);
  EXPECT_EQ(Contexts(group[2]), 1);
  Call(gf_worker_abort, group[0]);
  EXPECT_TRUE(Eventually([&] { return Contexts(group[1]) == 0; }));
  EXPECT_TRUE(Eventually([&] { return Contexts(group[2]) == 0; }));
}

// The clean-up would have had to pass through worker1.
TEST_P(LeaseTest, ContextsBehindADeadWorkerVanishWhenTheyAreReleased) {
  Settings settings = kShortLimits;
  settings["liveness.lease"] = "500ms";
  Group group(transport(), {"worker0", "worker1", "worker2"}, settings);
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({2}, 1));
  const Context context = NewContext(group[0]);
  CallWorker(group[0], "worker1", "nested", ListOf(a, a, ListOf("worker2")), In(context));
  Call(gf_worker_abort, group[1]);
  EXPECT_EQ(Contexts(group[2]), 1);
  Release(context);
  EXPECT_TRUE(Eventually([&] { return Contexts(group[2]) == 0; }));
}

// Its maker lives and uses it: leases only end what is gone.
TEST_P(LeaseTest, ALivingContextStays) {
  Settings settings = kShortLimits;
  settings["liveness.lease"] = "50ms";
  Group group(transport(), {"worker0", "worker1"}, settings);
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  // Several leases, as another context that vanishes shows.
  for (int i = 0; i < 5; ++i) {
    const Context other = NewContext(group[0]);
    RemoteOp(group[0], "worker1", In(other), "aten::mul.Tensor", a, a);
    Release(other);
    EXPECT_TRUE(Eventually([&] { return Contexts(group[1]) == 1; }));
  }
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
}

// A worker comes back under its name: calls reach the new one, what belonged to the old one is gone.
TEST_P(LeaseTest, AWorkerThatComesBackBeginsAnew) {
  Group group(transport(), {"worker0", "worker1"}, kShortLimits);
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Call(gf_worker_abort, group[0]);
  const Worker again = OpenWorker(WorkerConfig(transport(), group.network(), "worker0", 0, kShortLimits));
  AddPeer(again, 1, "worker1", Address(group[1]));
  AddPeer(group[1], 0, "worker0", Address(again));
  const Context anew = NewContext(again);
  const Tensor product = RemoteOp(again, "worker1", In(anew), "aten::mul.Tensor", a, a);
  Backward(anew, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(anew, a)), std::vector<float>({4, 6}));
  EXPECT_TRUE(Eventually([&] { return Contexts(group[1]) == 1; }));
  EXPECT_NO_THROW(FindContext(group[1], gf_context_id(anew)));
  Release(anew);
  Call(gf_worker_close, again, kPatience);
}

// The connection broke while nobody used it: the next call makes a new one.
TEST_P(LeaseTest, ACallAfterAPeerCameBackNeedsNoSecondTry) {
  Group group(transport(), {"worker0", "worker1"});
  CallWorker(group[0], "worker1", "aten::neg", ListOf(Floats({1}, {1})));
  Call(gf_worker_abort, group[1]);
  const Worker again = OpenWorker(WorkerConfig(transport(), group.network(), "worker1", 1));
  AddPeer(group[0], 1, "worker1", Address(again));
  EXPECT_TRUE(Eventually([&] { return StateOf(group[0], "worker1") != "connected"; }));
  CallWorker(group[0], "worker1", "aten::neg", ListOf(Floats({1}, {1})));
  Call(gf_worker_close, again, kPatience);
}

TEST(LivenessSettingsTest, WrongOnesAreRefusedByName) {
  auto refusal = [](const Settings& settings) {
    return ErrorOf([&] { OpenWorker(WorkerConfig("sim", UniqueName(), "worker0", 0, settings)); }).description;
  };
  EXPECT_THAT(refusal({{"liveness.suspect", "500ms"}}), HasSubstr("liveness.suspect"));
  EXPECT_THAT(refusal({{"liveness.lost", "1s"}}), HasSubstr("liveness.lost"));
  EXPECT_THAT(refusal({{"liveness.lost", "-1s"}}), HasSubstr("liveness.lost"));
  EXPECT_THAT(refusal({{"liveness.leas", "1s"}}), HasSubstr("liveness.lease"));
}

GF_OVER_ALL_WAYS(LeaseTest);

}  // namespace
}  // namespace gf
