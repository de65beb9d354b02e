// Dialling: what is refused at once, what fails later, what stands.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <string>

#include "tests/unit/tensorpipe/test_host.h"

namespace gradferry::tp::testing {
namespace {

TEST(Connect, FailsAllSendsAndClosesWhenNobodyListens) {
  Host host;
  Peer* peer = host.Connect(NobodysAddress());
  for (int i = 0; i < 3; ++i) host.Send(peer, {"x", {Bytes(10, 1), Bytes(500000, 2)}});
  ASSERT_TRUE(host.WaitClosed(peer));
  EXPECT_EQ(peer->closed_code, GF_UNAVAILABLE) << peer->closed_text;
  EXPECT_NE(peer->closed_text.find("127.0.0.1"), std::string::npos) << peer->closed_text;
  for (const Outgoing& op : peer->outgoing) {
    EXPECT_EQ(op.completions, 1);
    EXPECT_TRUE(op.text.empty() || op.code == GF_UNAVAILABLE) << op.text;
  }
}

TEST(Connect, RefusesWhatTensorPipeWouldDieOf) {
  Host host;
  Peer* peer = nullptr;
  for (const char* address : {"uv://localhost:80", "uv://127.0.0.1", "uv://127.0.0.1:0", "uv://255.255.255.255:80",
                              "uv://224.0.0.1:80", "uv://0.0.0.0:80", "nonsense", "uv://127.0.0.1:99999999999"}) {
    const Result result = host.TryConnect(address, &peer);
    EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << address << ": " << result;
  }
  // A link-local address without its link has no route.
  EXPECT_EQ(host.TryConnect("uv://[fe80::1]:80", &peer).code, GF_UNAVAILABLE);
}

TEST(Connect, RefusesAPeerWithOtherChannels) {
  Host server(R"({"channels": ["basic", "xth"]})"), client;
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* peer = nullptr;
  const Result result = client.TryConnect(server.address(), &peer);
  EXPECT_EQ(result.code, GF_FAILED_PRECONDITION) << result;
  EXPECT_NE(result.text.find("basic, xth"), std::string::npos) << result;
}

TEST(Connect, TakesAnAddressWithoutChannels) {
  Host server, client;
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* peer = client.Connect(server.address().substr(0, server.address().find('#')));
  EXPECT_EQ(client.Send(peer, {"x", {Bytes(400000, 1)}}).code, GF_OK);
  EXPECT_TRUE(server.WaitFrames(server.Accepted(), 1));
}

TEST(Connect, RefusesWhenFileDescriptorsRunOut) {
  Host host;
  const std::string address = NobodysAddress();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = 40;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  Peer* peer = nullptr;
  const Result result = host.TryConnect(address, &peer);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(result.code, GF_RESOURCE_EXHAUSTED) << result;
}

TEST(Connect, CanBeClosedWhileThePeerIsSilent) {
  RawSocket silent;
  ASSERT_TRUE(silent.Bind(0) && silent.Listen());
  Host host;
  Peer* peer = host.Connect("uv://127.0.0.1:" + std::to_string(silent.port()));
  EXPECT_EQ(host.Send(peer, {"x", {}}).code, GF_OK);
  host.Close(peer);
  host.Close(peer);
  ASSERT_TRUE(host.WaitClosed(peer));
  EXPECT_EQ(peer->closed_code, GF_OK) << peer->closed_text;
  EXPECT_EQ(peer->outgoing.front().code, GF_CLOSED);
}

TEST(Connect, ReachesItself) {
  Host host;
  ASSERT_EQ(host.Listen().code, GF_OK);
  Peer* out = host.Connect(host.address());
  Peer* in = host.Accepted();
  const Frame frame{"self", {Bytes(10, 1), Bytes(300000, 2)}};
  EXPECT_EQ(host.Send(out, frame).code, GF_OK);
  EXPECT_EQ(host.Send(in, frame).code, GF_OK);
  ASSERT_TRUE(host.WaitFrames(in, 1));
  ASSERT_TRUE(host.WaitFrames(out, 1));
  EXPECT_TRUE(in->frames[0] == frame);
  EXPECT_TRUE(out->frames[0] == frame);
}

TEST(Connect, MayBeRefusedByTheHost) {
  Host server, client;
  server.take_accept = [](Peer&) { return false; };
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* peer = client.Connect(server.address());
  EXPECT_EQ(client.Send(peer, {"x", {}}).code, GF_OK);
  ASSERT_TRUE(client.WaitClosed(peer));
  EXPECT_NE(peer->closed_code, GF_OK);
}

TEST(Connect, MayBeRefusedByTheHostEvenAfterASend) {
  Host server, client;
  Outgoing op;
  op.frame.header = "goodbye";
  server.take_accept = [&](Peer& peer) {
    EXPECT_EQ(server.SendRaw(&peer, &op, nullptr).code, GF_OK);
    return false;
  };
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* peer = client.Connect(server.address());
  ASSERT_TRUE(client.WaitClosed(peer));
  server.Finish();
  EXPECT_EQ(op.completions, 0) << "there are no events for a connection that was refused";
}

}  // namespace
}  // namespace gradferry::tp::testing
