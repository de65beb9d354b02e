// Frames: sizes, order, limits, over each transport and channel.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/tensorpipe/test_host.h"

namespace gradferry::tp::testing {
namespace {

class Channels : public ::testing::TestWithParam<const char*> {};

TEST_P(Channels, CarrySegmentsOfAllSizes) {
  Pair pair(GetParam());
  // Around the sizes from which segments travel otherwise.
  constexpr size_t kPayload = 64 * 1024, kTensor = 256 * 1024;
  const std::vector<std::vector<size_t>> shapes = {{},
                                                   {0},
                                                   {0, 0, 0},
                                                   {1},
                                                   {kPayload - 1},
                                                   {kPayload},
                                                   {kPayload + 1},
                                                   {kTensor - 1},
                                                   {kTensor},
                                                   {kTensor + 1},
                                                   {3 << 20},
                                                   {0, 5, 0, kPayload, 7, 0, kTensor * 3, 0},
                                                   {kTensor, kPayload, kTensor, 9, 9, kTensor},
                                                   {kPayload / 2, kPayload / 2, kPayload / 2, 1}};
  std::vector<Frame> frames;
  for (size_t i = 0; i < shapes.size(); ++i) {
    Frame frame{"frame " + std::to_string(i), {}};
    for (size_t j = 0; j < shapes[i].size(); ++j) frame.segments.push_back(Bytes(shapes[i][j], i * 100 + j));
    frames.push_back(frame);
    EXPECT_EQ(pair.client.Send(pair.out, frame).code, GF_OK);
    EXPECT_EQ(pair.server.Send(pair.in, frame).code, GF_OK);
  }
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, frames.size()));
  ASSERT_TRUE(pair.client.WaitFrames(pair.out, frames.size()));
  for (size_t i = 0; i < frames.size(); ++i) {
    EXPECT_TRUE(pair.in->frames[i] == frames[i]) << i;
    EXPECT_TRUE(pair.out->frames[i] == frames[i]) << i;
  }
}

TEST_P(Channels, Carry64MiB) {
  Pair pair(GetParam());
  const Frame frame{"large", {Bytes(64 << 20, 1), Bytes(1, 2)}};
  EXPECT_EQ(pair.client.Send(pair.out, frame).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, 1));
  EXPECT_TRUE(pair.in->frames[0] == frame);
  ASSERT_TRUE(pair.client.WaitSent(pair.out, 1));
  EXPECT_EQ(pair.client.Stats()["bytes_sent"], 5 + (64 << 20) + 1);
  EXPECT_EQ(pair.server.Stats()["bytes_received"], 5 + (64 << 20) + 1);
}

std::string ChannelName(const ::testing::TestParamInfo<const char*>& info) {
  static const char* const names[] = {"Cma", "Basic", "Xth", "Mpt", "UvThenShm", "Shm", "Ipv6"};
  return names[info.index];
}

INSTANTIATE_TEST_SUITE_P(Tensorpipe, Channels,
                         ::testing::Values(R"({"channels": ["cma", "basic"]})", R"({"channels": ["basic"]})",
                                           R"({"channels": ["xth"]})", R"({"channels": ["mpt"]})",
                                           R"({"transports": ["uv", "shm"], "channels": ["basic"]})",
                                           R"({"transports": ["shm"], "address": "shm://"})",
                                           R"({"address": "uv://[::1]:0"})"),
                         ChannelName);

TEST(Frames, ArriveInOrder) {
  Pair pair;
  constexpr size_t kFrames = 3000;
  for (size_t i = 0; i < kFrames; ++i) {
    // Some take slower ways; the order must hold across them.
    const size_t length = i % 50 == 0 ? 300000 : i % 25 == 0 ? 70000 : i % 40;
    ASSERT_EQ(pair.client.Send(pair.out, {std::to_string(i), {Bytes(length, i)}}).code, GF_OK);
  }
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, kFrames));
  for (size_t i = 0; i < kFrames; ++i) {
    const size_t length = i % 50 == 0 ? 300000 : i % 25 == 0 ? 70000 : i % 40;
    ASSERT_EQ(pair.in->frames[i].header, std::to_string(i));
    ASSERT_EQ(pair.in->frames[i].segments[0], Bytes(length, i));
  }
  ASSERT_TRUE(pair.client.WaitSent(pair.out, kFrames));
  EXPECT_EQ(pair.out->sent_ok, kFrames);
  EXPECT_EQ(pair.server.Stats()["frames_received"], kFrames);
}

TEST(Frames, OfSeveralThreadsKeepEachThreadsOrder) {
  Pair pair;
  constexpr int kThreads = 4, kFrames = 300;
  const auto send = [&](Host& host, Peer* peer, int thread) {
    for (int i = 0; i < kFrames; ++i) {
      const Frame frame{std::to_string(thread) + " " + std::to_string(i), {Bytes(i % 7 == 0 ? 280000 : 20, i)}};
      EXPECT_EQ(host.Send(peer, frame).code, GF_OK);
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] { send(pair.client, pair.out, thread); });
    threads.emplace_back([&, thread] { send(pair.server, pair.in, thread); });
  }
  for (std::thread& thread : threads) thread.join();
  const auto check = [&](Host& host, Peer* peer) {
    ASSERT_TRUE(host.WaitFrames(peer, kThreads * kFrames));
    std::map<int, int> next;
    for (const Frame& frame : peer->frames) {
      int thread = 0, number = 0;
      ASSERT_EQ(std::sscanf(frame.header.c_str(), "%d %d", &thread, &number), 2);
      EXPECT_EQ(next[thread]++, number);
      EXPECT_EQ(frame.segments[0], Bytes(number % 7 == 0 ? 280000 : 20, number));
    }
  };
  check(pair.server, pair.in);
  check(pair.client, pair.out);
}

TEST(Frames, KeepTheirLimits) {
  Pair pair;
  const uint64_t max_header = Descriptor()->max_header;
  EXPECT_EQ(pair.client.Send(pair.out, {"", {}}).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(pair.client.Send(pair.out, {std::string(max_header + 1, 'x'), {}}).code, GF_OUT_OF_RANGE);
  EXPECT_EQ(pair.client.Send(pair.out, {"x", std::vector<std::string>(16 * 1024 + 1)}).code, GF_OUT_OF_RANGE);
  Outgoing without_memory;
  without_memory.frame = {"x", {"y"}};
  const gf_transport_segment nothing{nullptr, 1};
  EXPECT_EQ(pair.client.SendRaw(pair.out, &without_memory, &nothing).code, GF_INVALID_ARGUMENT);
  // None of that has harmed the connection.
  EXPECT_EQ(pair.client.Send(pair.out, {"x", {}}).code, GF_OK);
  EXPECT_TRUE(pair.server.WaitFrames(pair.in, 1));
}

// With shm all of it has to fit into a ring.
TEST_P(Channels, CarryTheLargestHeader) {
  Pair pair(GetParam());
  const Frame largest{Bytes(Descriptor()->max_header, 1), std::vector<std::string>(16 * 1024, "z")};
  EXPECT_EQ(pair.client.Send(pair.out, largest).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, 1));
  EXPECT_TRUE(pair.in->frames[0] == largest);
}

TEST(Frames, OverShmHaveSegmentsBelow4GiB) {
  Pair pair(R"({"transports": ["shm"], "address": "shm://"})");
  Outgoing op;
  op.frame = {"x", {"y"}};
  gf_transport_segment segment{op.frame.segments[0].data(), uint64_t{1} << 32};  // refused before it is looked at
  EXPECT_EQ(pair.client.SendRaw(pair.out, &op, &segment).code, GF_OUT_OF_RANGE);
}

TEST(Frames, MayBeRefused) {
  Pair pair;
  pair.server.Set(pair.in->on_descriptor, [](Peer&) { return GF_RESOURCE_EXHAUSTED; });
  EXPECT_EQ(pair.client.Send(pair.out, {"x", {Bytes(1 << 20, 1)}}).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitClosed(pair.in));
  ASSERT_TRUE(pair.client.WaitClosed(pair.out));
  EXPECT_EQ(pair.in->closed_code, GF_RESOURCE_EXHAUSTED);
  EXPECT_NE(pair.out->closed_code, GF_OK);
  EXPECT_TRUE(pair.in->frame_codes.empty());
}

TEST(Frames, EndWhenTheHostForgetsItsMemory) {
  Pair pair;
  pair.server.Set(pair.in->on_descriptor, [](Peer&) { return -1; });
  EXPECT_EQ(pair.client.Send(pair.out, {"x", {Bytes(10, 1)}}).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitClosed(pair.in));
  EXPECT_EQ(pair.in->frame_codes, std::vector<int32_t>{GF_INTERNAL});
}

TEST(Frames, MayBeAnsweredWithinTheEvent) {
  Host server, client;
  server.prepare = [&](Peer& peer) { peer.on_frame = [&](Peer& in) { server.Send(&in, in.frames.back()); }; };
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  constexpr size_t kRounds = 500;
  client.Set(out->on_frame, [&](Peer& peer) {
    if (peer.frames.size() < kRounds) {
      client.Send(&peer, {"ping", {Bytes(peer.frames.size() % 5 == 0 ? 270000 : 10, peer.frames.size())}});
    }
  });
  EXPECT_EQ(client.Send(out, {"ping", {}}).code, GF_OK);
  EXPECT_TRUE(client.WaitFrames(out, kRounds));
}

}  // namespace
}  // namespace gradferry::tp::testing
