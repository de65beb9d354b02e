// Messages with so many bytes that they travel in chunks: whole at the other end, never in the way of others, and gone
// when nobody needs them any more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

// Not a divisor of anything.
const Settings kSmallChunks = {{"transport.chunk_bytes", "1009"}};

int64_t Metric(gf_worker* worker, const std::string& name) { return Info(worker)["metrics"][name]; }

List Echo(const Request& request) { return Arguments(request); }

class BulkTest : public TransportTest {};

TEST_P(BulkTest, LargeMessagesArriveWholeBothWays) {
  Group group(transport(), {"caller", "callee"}, kSmallChunks);
  group.server(1).On("echo", Echo);
  const Tensor large = Random({300, 70}, 1), larger = RandomDoubles({50000}, 2), small = Random({3}, 3);
  for (int round = 0; round < 3; ++round) {
    const List results = CallWorker(group[0], "callee", "echo", ListOf(large, "text", small, ListOf(larger), 7));
    ASSERT_EQ(Size(results), 5u);
    EXPECT_EQ(ReadFloats(TensorAt(results, 0)), ReadFloats(large));
    EXPECT_EQ(StringAt(results, 1), "text");
    EXPECT_EQ(ReadFloats(TensorAt(results, 2)), ReadFloats(small));
    EXPECT_EQ(ReadDoubles(TensorAt(ListAt(results, 3), 0)), ReadDoubles(larger));
    EXPECT_EQ(IntAt(results, 4), 7);
  }
  EXPECT_EQ(Metric(group[0], "transfers_sent"), 3);
  EXPECT_EQ(Metric(group[1], "transfers_sent"), 3);
}

TEST_P(BulkTest, ManyAtOnceArriveWhole) {
  Group group(transport(), {"caller", "callee"}, kSmallChunks);
  group.server(1).On("echo", Echo);
  std::vector<Tensor> sent;
  std::vector<Future> calls;
  for (uint32_t i = 0; i < 20; ++i) {
    sent.push_back(Random({1 + 4000 * (i % 5)}, i));
    calls.push_back(StartCall(group[0], "callee", "echo", ListOf(sent.back())));
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(ReadFloats(TensorAt(Await(calls[i]), 0)), ReadFloats(sent[i])) << i;
  }
}

TEST_P(BulkTest, LargeGradientsAreExact) {
  Group group(transport(), {"worker0", "worker1"}, kSmallChunks);
  const Tensor a = WithGrad(RandomDoubles({5000}, 1)), b = RandomDoubles({5000}, 2);
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, b);
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadDoubles(Gradient(context, a)), ReadDoubles(b));
}

// The last chunk of the one must not find the other in its place.
TEST_P(BulkTest, LargeCallsThatFailDoNotHarmOthers) {
  Group group(transport(), {"caller", "callee"}, kSmallChunks);
  group.server(1).On("echo", Echo);
  const Tensor tensor = Random({100000}, 1);
  std::vector<Future> cancelled, calls;
  for (int i = 0; i < 10; ++i) {
    cancelled.push_back(StartCall(group[0], "callee", "echo", ListOf(tensor)));
    calls.push_back(StartCall(group[0], "callee", "echo", ListOf(tensor)));
    Call(gf_future_cancel, cancelled.back());
  }
  for (const Future& call : cancelled) {
    const int32_t code = ErrorOf([&] { Await(call); }).code;
    EXPECT_TRUE(code == GF_OK || code == GF_CANCELLED) << code;
  }
  for (const Future& call : calls) EXPECT_EQ(ReadFloats(TensorAt(Await(call), 0)), ReadFloats(tensor));
}

TEST_P(BulkTest, AWorkerThatClosesSendsItsLargeRepliesFirst) {
  Group group(transport(), {"caller", "callee"}, kSmallChunks);
  group.server(1).On("echo", Echo);
  const Tensor tensor = Random({200000}, 1);
  const Future call = StartCall(group[0], "callee", "echo", ListOf(tensor));
  ASSERT_TRUE(Eventually([&] { return Metric(group[1], "transfers_sent") == 1; }));
  group.Close();
  EXPECT_EQ(ReadFloats(TensorAt(Await(call), 0)), ReadFloats(tensor));
}

GF_OVER_ALL_WAYS(BulkTest);

// ---- On a slow network ----

// A frame takes 5 ms, and so two chunks of 1,000 bytes do.
Settings SlowNetwork(const Settings& more = {}) {
  Settings settings = {{"transport.chunk_bytes", "1000"}, {"transport.sim.latency_min_us", "5000"}};
  settings.insert(more.begin(), more.end());
  return settings;
}

class SlowBulkTest : public LiveTest {
 protected:
  // 4 MB take 10 s, which no test waits for.
  const Tensor tensor_ = Random({1000000}, 1);
};

TEST_F(SlowBulkTest, OthersOvertakeALargeCall) {
  Group group("sim", {"worker0", "worker1"}, SlowNetwork());
  group.server(1).On("echo", Echo);
  const Future large = StartCall(group[0], "worker1", "echo", ListOf(tensor_));
  ASSERT_TRUE(Eventually([&] { return Metric(group[0], "transfers_sent") == 1; }));
  const uint64_t before = Metric(group[0], "frames_sent");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(IntAt(CallWorker(group[0], "worker1", "echo", ListOf(i)), 0), i);
  EXPECT_GT(Metric(group[0], "frames_sent"), before + 3);  // chunks went on meanwhile
  // A whole step with small gradients.
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({4, 6}));
  EXPECT_FALSE(IsDone(large));
  Call(gf_future_cancel, large);
}

TEST_F(SlowBulkTest, ACancelledCallGivesTheRestOfItsTransferUp) {
  Group group("sim", {"worker0", "worker1"}, SlowNetwork());
  group.server(1).On("echo", Echo);
  const Future large = StartCall(group[0], "worker1", "echo", ListOf(tensor_));
  ASSERT_TRUE(Eventually([&] { return Metric(group[0], "transfers_sent") == 1; }));
  Call(gf_future_cancel, large);
  EXPECT_EQ(ErrorOf([&] { Await(large); }).code, GF_CANCELLED);
  EXPECT_EQ(Metric(group[0], "transfers_given_up"), 1);
  EXPECT_LT(Metric(group[0], "bytes_sent"), 1000000);
  EXPECT_EQ(IntAt(CallWorker(group[0], "worker1", "echo", ListOf(4)), 0), 4);
}

TEST_F(SlowBulkTest, ACallOutOfTimeGivesTheRestOfItsTransferUp) {
  Group group("sim", {"worker0", "worker1"}, SlowNetwork());
  const Future large =
      StartCall(group[0], "worker1", "echo", ListOf(tensor_), CallOptions().Deadline(100 * kMillisecond));
  EXPECT_EQ(ErrorOf([&] { Await(large); }).code, GF_DEADLINE_EXCEEDED);
  EXPECT_EQ(Metric(group[0], "transfers_given_up"), 1);
}

TEST_F(SlowBulkTest, AReplyThatNobodyWaitsForIsGivenUp) {
  Group group("sim", {"worker0", "worker1"}, SlowNetwork());
  group.server(1).On("give", [this](const Request&) { return ListOf(tensor_); });
  const Future call = StartCall(group[0], "worker1", "give", NewList());
  ASSERT_TRUE(Eventually([&] { return Metric(group[1], "transfers_sent") == 1; }));
  Call(gf_future_cancel, call);
  EXPECT_TRUE(Eventually([&] { return Metric(group[1], "transfers_given_up") == 1; }));
}

TEST_F(SlowBulkTest, AConnectionThatBreaksWithinATransferFailsTheCall) {
  // The kind of a frame is its byte 4, and 22 is a TensorChunk.
  Group group(
      "sim", {"worker0", "worker1"},
      SlowNetwork({{"transport.sim.faults", "[{ fault = \"reset\", bytes = [[4, 22]], first = 5, count = 1 }]"}}));
  group.server(1).On("echo", Echo);
  const Error error = ErrorOf([&] { CallWorker(group[0], "worker1", "echo", ListOf(tensor_)); });
  EXPECT_EQ(error.code, GF_PEER_LOST) << error.description;
  EXPECT_THAT(error.description, HasSubstr("worker1"));
  EXPECT_EQ(IntAt(CallWorker(group[0], "worker1", "echo", ListOf(4)), 0), 4);
}

}  // namespace
}  // namespace gf
