// The end of connections and of transports, at any moment and from anywhere.
#include <gtest/gtest.h>
#include <tensorpipe/tensorpipe.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/unit/tensorpipe/test_host.h"

namespace gradferry::tp::testing {
namespace {

TEST(Close, TellsBothEnds) {
  Pair pair;
  EXPECT_EQ(pair.client.Send(pair.out, {"x", {}}).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, 1));
  pair.client.Close(pair.out);
  ASSERT_TRUE(pair.client.WaitClosed(pair.out));
  ASSERT_TRUE(pair.server.WaitClosed(pair.in));
  EXPECT_EQ(pair.out->closed_code, GF_OK) << pair.out->closed_text;
  EXPECT_EQ(pair.in->closed_code, GF_PEER_LOST) << pair.in->closed_text;
}

TEST(Close, IsHeardByThePeerEvenWhileTheConnectionIsSetUp) {
  Host server, client;
  ASSERT_EQ(server.Listen().code, GF_OK);
  for (size_t i = 0; i < 50; ++i) {
    Peer* out = client.Connect(server.address());
    if (i % 2 == 0) server.Accepted(i);
    client.Close(out);
    ASSERT_TRUE(server.WaitClosed(server.Accepted(i)));
    ASSERT_TRUE(client.WaitClosed(out));
    EXPECT_EQ(out->closed_code, GF_OK);
  }
}

TEST(Close, HappensWhenThePeerStopsInTheMiddleOfConnecting) {
  Host server;
  ASSERT_EQ(server.Listen().code, GF_OK);
  const std::string url = server.address().substr(0, server.address().find('#'));
  ::tensorpipe::Context context;
  context.registerTransport(0, "uv", ::tensorpipe::transport::uv::create());
  context.registerChannel(0, "basic", ::tensorpipe::channel::basic::create());
  constexpr size_t kPeers = 10;
  for (size_t i = 0; i < kPeers; ++i) {
    auto pipe = context.connect(url);
    // The one before may have been the listener's death; it is reopened, and what came meanwhile was refused.
    while (!server.WaitAccepted(i + 1, std::chrono::milliseconds(500))) pipe = context.connect(url);
    pipe->close();
  }
  for (size_t i = 0; i < kPeers; ++i) {
    ASSERT_TRUE(server.WaitClosed(server.Accepted(i)));
    EXPECT_EQ(server.Accepted(i)->closed_code, GF_PEER_LOST);
  }
}

TEST(Close, MakesLaterSendsFail) {
  Pair pair;
  // Within an event, so that on_closed cannot have come yet.
  Result result;
  pair.client.Set(pair.out->on_sent, [&](Peer& peer) {
    pair.client.Close(&peer);
    result = pair.client.Send(&peer, {"late", {}});
  });
  EXPECT_EQ(pair.client.Send(pair.out, {"x", {}}).code, GF_OK);
  ASSERT_TRUE(pair.client.WaitClosed(pair.out));
  EXPECT_EQ(result.code, GF_CLOSED) << result;
}

TEST(Close, WithinEachKindOfEvent) {
  {
    Pair pair;
    pair.server.Set(pair.in->on_frame, [&](Peer& peer) { pair.server.Close(&peer); });
    for (int i = 0; i < 50; ++i) pair.client.Send(pair.out, {"x", {Bytes(i * 10000, i)}});
    ASSERT_TRUE(pair.server.WaitClosed(pair.in));
    ASSERT_TRUE(pair.client.WaitClosed(pair.out));
    EXPECT_EQ(pair.in->closed_code, GF_OK);
  }
  {
    Pair pair;
    pair.server.Set(pair.in->on_descriptor, [&](Peer& peer) {
      pair.server.Close(&peer);
      return GF_OK;
    });
    for (int i = 0; i < 50; ++i) pair.client.Send(pair.out, {"x", {Bytes(i * 10000, i)}});
    ASSERT_TRUE(pair.server.WaitClosed(pair.in));
    EXPECT_EQ(pair.in->closed_code, GF_OK);
    EXPECT_EQ(pair.in->frame_codes.size(), 1u);
  }
  {
    Pair pair;
    pair.client.Set(pair.out->on_sent, [&](Peer& peer) { pair.client.Close(&peer); });
    for (int i = 0; i < 50; ++i) pair.client.Send(pair.out, {"x", {Bytes(i * 10000, i)}});
    ASSERT_TRUE(pair.client.WaitClosed(pair.out));
    EXPECT_EQ(pair.out->closed_code, GF_OK);
  }
  {
    Host server, client;
    server.prepare = [&](Peer& peer) { server.Close(&peer); };
    ASSERT_EQ(server.Listen().code, GF_OK);
    Peer* out = client.Connect(server.address());
    Peer* in = server.Accepted();
    ASSERT_TRUE(server.WaitClosed(in));
    ASSERT_TRUE(client.WaitClosed(out));
    EXPECT_EQ(in->closed_code, GF_OK);
  }
}

TEST(Close, FromManyThreadsWhileOthersSend) {
  for (int round = 0; round < 5; ++round) {
    Pair pair;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        for (int j = 0; j < 50; ++j) {
          pair.client.Send(pair.out, {"x", {Bytes(j % 3 == 0 ? 300000 : 5, j)}});
          if (j == 25 && i % 2 == 0) pair.client.Close(pair.out);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_TRUE(pair.client.WaitClosed(pair.out));
    EXPECT_EQ(pair.out->closed_code, GF_OK);
  }
}

TEST(Shutdown, EndsEverythingInTheMiddleOfTraffic) {
  for (int round = 0; round < 5; ++round) {
    Pair pair;
    for (int i = 0; i < 200; ++i) {
      pair.client.Send(pair.out, {"x", {Bytes(i % 9 == 0 ? 300000 : 30, i)}});
      pair.server.Send(pair.in, {"y", {Bytes(i % 9 == 0 ? 300000 : 30, i)}});
    }
    if (round % 2 == 0) {
      ASSERT_TRUE(pair.server.WaitFrames(pair.in, 1));
    }
    pair.server.Shutdown();
    pair.server.Shutdown();
    ASSERT_TRUE(pair.server.WaitClosed(pair.in));
    EXPECT_EQ(pair.in->closed_code, GF_OK);
    ASSERT_TRUE(pair.client.WaitClosed(pair.out));
    EXPECT_NE(pair.out->closed_code, GF_OK);
  }
}

TEST(Shutdown, RefusesWhatComesAfter) {
  Host server, client;
  ASSERT_EQ(server.Listen().code, GF_OK);
  client.on_shutdown = [&] {
    EXPECT_EQ(client.Listen().code, GF_CLOSED);
    Peer* peer = nullptr;
    EXPECT_EQ(client.TryConnect(server.address(), &peer).code, GF_CLOSED);
  };
  client.Finish();
}

TEST(Shutdown, IsDoneByDestroyWhenTheHostForgot) {
  gf_transport_host table{};
  std::atomic<int> shutdowns{0};
  table.struct_size = sizeof(table);
  table.ctx = &shutdowns;
  table.log = [](void*, uint32_t, const char*, size_t) {};
  table.on_shutdown = [](void* ctx) { ++*static_cast<std::atomic<int>*>(ctx); };
  gf_transport_error error{sizeof(error), 0, 0, {}};
  gf_transport* transport = nullptr;
  const gf_transport_vtable* vtable = Descriptor()->vtable;
  ASSERT_EQ(vtable->create(&table, "", 0, &transport, &error), GF_OK);
  vtable->destroy(transport);
  EXPECT_EQ(shutdowns, 1);
}

}  // namespace
}  // namespace gradferry::tp::testing
