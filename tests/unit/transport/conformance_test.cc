// What every transport has to do, seen through the host's wrapper. Runs for each plugin and set of options in the list
// at the end.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/transport/transport_testing.h"

namespace gradferry::testing {
namespace {

struct Setup {
  std::string label;
  std::string name;
  std::string options;
};

void PrintTo(const Setup& setup, std::ostream* out) { *out << setup.name << " " << setup.options; }

// A listener, and a node that has dialled it.
struct Pair {
  std::unique_ptr<Node> server;
  std::unique_ptr<Node> client;
  Accepted accepted;
  std::shared_ptr<Connection> dialled;
  std::shared_ptr<Recorder> dialled_events;
};

class TransportTest : public ::testing::TestWithParam<Setup> {
 protected:
  void TearDown() override { EXPECT_EQ(LiveCount(LiveKind::kConnections).load(), 0); }

  std::unique_ptr<Node> Open() { return OpenNode(GetParam().name, GetParam().options); }
  std::unique_ptr<Node> Listener() { return OpenListener(GetParam().name, GetParam().options); }

  std::shared_ptr<Connection> Dial(Node& from, const std::string& address, std::shared_ptr<Recorder> events) {
    auto connection = from.transport->Connect(address, std::move(events));
    EXPECT_TRUE(connection.ok()) << connection.status().ToString();
    return connection.ok() ? *connection : nullptr;
  }

  Pair Connected() {
    Pair pair;
    pair.server = Listener();
    pair.client = Open();
    pair.dialled_events = std::make_shared<Recorder>();
    pair.dialled = Dial(*pair.client, pair.server->address, pair.dialled_events);
    pair.accepted = pair.server->host.AwaitAccepted();
    return pair;
  }

  // The same, when a frame has gone each way: both ends know that it stands.
  Pair Standing() {
    Pair pair = Connected();
    EXPECT_TRUE(pair.dialled->Send(MakeFrame("hello")).ok());
    EXPECT_TRUE(pair.accepted.events->AwaitFrames(1));
    EXPECT_TRUE(pair.accepted.connection->Send(MakeFrame("welcome")).ok());
    EXPECT_TRUE(pair.dialled_events->AwaitFrames(1));
    return pair;
  }

  // An address of this transport's at which nobody listens.
  std::string AddressOfNobody() { return Listener()->address; }
};

TEST_P(TransportTest, FramesArriveWholeAndInTheOrderOfSending) {
  Pair pair = Connected();
  for (int i = 0; i < 100; ++i) {
    const std::string number = std::to_string(i);
    ASSERT_TRUE(pair.dialled->Send(MakeFrame("frame " + number, {"a" + number, Pattern(1000 + i, i)})).ok());
  }
  ASSERT_TRUE(pair.accepted.events->AwaitFrames(100));
  const auto frames = pair.accepted.events->Frames();
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(frames[i].header, "frame " + std::to_string(i));
    ASSERT_EQ(frames[i].segments.size(), 2u);
    EXPECT_EQ(frames[i].segments[0], "a" + std::to_string(i));
    EXPECT_EQ(frames[i].segments[1], Pattern(1000 + i, i));
  }
}

TEST_P(TransportTest, FramesMayBeSentBeforeTheConnectionStands) {
  auto server = Listener();
  auto client = Open();
  auto connection = Dial(*client, server->address, std::make_shared<Recorder>());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(connection->Send(MakeFrame(std::to_string(i))).ok());
  const Accepted accepted = server->host.AwaitAccepted();
  ASSERT_TRUE(accepted.events->AwaitFrames(20));
  EXPECT_EQ(accepted.events->Headers().front(), "0");
  EXPECT_EQ(accepted.events->Headers().back(), "19");
}

TEST_P(TransportTest, AnAcceptedConnectionSendsToo) {
  Pair pair = Connected();
  ASSERT_TRUE(pair.accepted.connection->Send(MakeFrame("back", {"bytes"})).ok());
  ASSERT_TRUE(pair.dialled_events->AwaitFrames(1));
  EXPECT_EQ(pair.dialled_events->Frames()[0].segments[0], "bytes");
}

TEST_P(TransportTest, ThreadsThatSendOnOneConnectionLoseNothingAndKeepTheirOrder) {
  constexpr int kThreads = 4;
  constexpr int kFrames = 100;
  Pair pair = Connected();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kFrames; ++i) {
        EXPECT_TRUE(pair.dialled->Send(MakeFrame(std::to_string(t) + ":" + std::to_string(i))).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(pair.accepted.events->AwaitFrames(kThreads * kFrames));
  std::map<char, int> next;
  for (const std::string& header : pair.accepted.events->Headers()) {
    EXPECT_EQ(header.substr(2), std::to_string(next[header[0]]++));
  }
  for (const auto& [thread, count] : next) EXPECT_EQ(count, kFrames);
}

TEST_P(TransportTest, EachFramesMemoryIsReleasedOnceItIsSent) {
  Releases releases;
  Pair pair = Connected();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(pair.dialled->Send(MakeFrame("x", {"y"}, &releases)).ok());
  EXPECT_TRUE(releases.Await(50));
  pair.client->transport->Shutdown();
  EXPECT_EQ(releases.count(), 50);
}

TEST_P(TransportTest, FramesThatNeverArriveAreReleasedWhenTheConnectionEnds) {
  Releases releases;
  auto client = Open();
  auto events = std::make_shared<Recorder>();
  auto connection = Dial(*client, AddressOfNobody(), events);
  int sent = 0;
  for (int i = 0; i < 10; ++i) sent += connection->Send(MakeFrame("x", {"y"}, &releases)).ok() ? 1 : 0;
  EXPECT_FALSE(events->AwaitClosed().ok());
  EXPECT_TRUE(releases.Await(10)) << "of them " << sent << " were taken";
}

TEST_P(TransportTest, BigSegmentsArriveWhole) {
  Pair pair = Connected();
  const std::string big = Pattern(40 * 1000 * 1000 + 3);
  const std::string second = Pattern(5 * 1000 * 1000 + 1, 2);
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("big", {big, "small", second})).ok());
  ASSERT_TRUE(pair.accepted.events->AwaitFrames(1));
  const Received frame = pair.accepted.events->Frames()[0];
  ASSERT_EQ(frame.segments.size(), 3u);
  EXPECT_TRUE(frame.segments[0] == big);
  EXPECT_EQ(frame.segments[1], "small");
  EXPECT_TRUE(frame.segments[2] == second);
}

TEST_P(TransportTest, EmptySegmentsNeedNoMemory) {
  Pair pair = Connected();
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("one", {"", "x", ""})).ok());
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("two", {"", ""})).ok());
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("three")).ok());
  ASSERT_TRUE(pair.accepted.events->AwaitFrames(3));
  const auto frames = pair.accepted.events->Frames();
  EXPECT_EQ(frames[0].segments, (std::vector<std::string>{"", "x", ""}));
  EXPECT_EQ(frames[1].segments, (std::vector<std::string>{"", ""}));
  EXPECT_TRUE(frames[2].segments.empty());
}

TEST_P(TransportTest, AHeaderOfTheGreatestLengthArrivesAndALongerOneIsRefused) {
  Pair pair = Connected();
  const std::string longest = Pattern(pair.client->transport->max_header());
  EXPECT_EQ(pair.dialled->Send(MakeFrame(longest + "x")).code(), Code::kOutOfRange);
  EXPECT_EQ(pair.dialled->Send(MakeFrame("")).code(), Code::kInvalidArgument);
  ASSERT_TRUE(pair.dialled->Send(MakeFrame(longest, {"s"})).ok());
  ASSERT_TRUE(pair.accepted.events->AwaitFrames(1));
  EXPECT_TRUE(pair.accepted.events->Headers()[0] == longest);
}

TEST_P(TransportTest, FramesMayBeSentWithinAnEvent) {
  Pair pair = Connected();
  // Ping-pong: each end answers what it gets, a hundred times.
  auto answer = [](const std::shared_ptr<Connection>& connection) {
    return [connection](const Received& frame) {
      const int number = std::stoi(frame.header);
      if (number == 100) return;
      EXPECT_TRUE(connection->Send(MakeFrame(std::to_string(number + 1))).ok());
    };
  };
  pair.accepted.events->on_frame = answer(pair.accepted.connection);
  pair.dialled_events->on_frame = answer(pair.dialled);
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("1")).ok());
  EXPECT_TRUE(pair.dialled_events->AwaitFrames(50));
  pair.client->transport->Shutdown();
  pair.server->transport->Shutdown();
  pair.accepted.events->on_frame = nullptr;
  pair.dialled_events->on_frame = nullptr;
}

TEST_P(TransportTest, EventsDoNotComeOnTheSendersThread) {
  Pair pair = Connected();
  std::atomic<bool> same{false};
  pair.accepted.events->on_frame = [&, caller = std::this_thread::get_id()](const Received&) {
    if (std::this_thread::get_id() == caller) same = true;
  };
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(pair.dialled->Send(MakeFrame("x")).ok());
  ASSERT_TRUE(pair.accepted.events->AwaitFrames(20));
  EXPECT_FALSE(same);
}

TEST_P(TransportTest, ARefusedFrameEndsTheConnectionAndSaysWhy) {
  Pair pair = Connected();
  pair.accepted.events->on_descriptor = [](std::string_view header) {
    return header == "bad" ? Status(Code::kResourceExhausted, "too much") : OkStatus();
  };
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("good", {"x"})).ok());
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("bad", {"x"})).ok());
  const Status here = pair.accepted.events->AwaitClosed();
  EXPECT_EQ(here.code(), Code::kResourceExhausted);
  EXPECT_NE(here.ToString().find("too much"), std::string::npos);
  EXPECT_EQ(pair.dialled_events->AwaitClosed().code(), Code::kPeerLost);
  EXPECT_EQ(pair.accepted.events->Headers(), std::vector<std::string>{"good"});
}

TEST_P(TransportTest, ARefusedConnectionEndsForWhoDialled) {
  auto server = Listener();
  server->host.on_accept = [](const auto&) { return nullptr; };
  auto client = Open();
  auto events = std::make_shared<Recorder>();
  auto connection = Dial(*client, server->address, events);
  (void)connection->Send(MakeFrame("x"));  // it may have been refused already
  EXPECT_FALSE(events->AwaitClosed().ok());
  EXPECT_TRUE(server->host.AwaitAsked(1));
}

TEST_P(TransportTest, ARefusedConnectionOnWhichSomethingWasSentEndsToo) {
  Releases releases;
  auto server = Listener();
  server->host.on_accept = [&](const std::shared_ptr<Connection>& connection) -> std::shared_ptr<Recorder> {
    EXPECT_TRUE(connection->Send(MakeFrame("bye", {"x"}, &releases)).ok());
    return nullptr;
  };
  auto client = Open();
  auto events = std::make_shared<Recorder>();
  auto connection = Dial(*client, server->address, events);
  EXPECT_FALSE(events->AwaitClosed().ok());
  EXPECT_TRUE(releases.Await(1));
}

TEST_P(TransportTest, CloseTellsBothEnds) {
  Pair pair = Standing();
  pair.dialled->Close();
  EXPECT_TRUE(pair.dialled_events->AwaitClosed().ok());
  const Status there = pair.accepted.events->AwaitClosed();
  ASSERT_EQ(there.code(), Code::kPeerLost);
  EXPECT_EQ(there.error()->domain, "transport." + GetParam().name);
}

TEST_P(TransportTest, CloseOfTheAcceptedEndTellsBothEnds) {
  Pair pair = Standing();
  pair.accepted.connection->Close();
  EXPECT_TRUE(pair.accepted.events->AwaitClosed().ok());
  EXPECT_EQ(pair.dialled_events->AwaitClosed().code(), Code::kPeerLost);
}

TEST_P(TransportTest, CloseMayBeCalledOftenAndFromBothEndsAtOnce) {
  Pair pair = Connected();
  std::thread other([&] {
    pair.accepted.connection->Close();
    pair.accepted.connection->Close();
  });
  pair.dialled->Close();
  pair.dialled->Close();
  other.join();
  (void)pair.dialled_events->AwaitClosed();
  (void)pair.accepted.events->AwaitClosed();
  pair.dialled->Close();
  pair.client->transport->Shutdown();
  pair.server->transport->Shutdown();
  EXPECT_EQ(pair.dialled_events->closed_count(), 1);
  EXPECT_EQ(pair.accepted.events->closed_count(), 1);
}

TEST_P(TransportTest, AConnectionThatHasEndedMayStillBeUsed) {
  Releases releases;
  Pair pair = Connected();
  pair.accepted.connection->Close();
  (void)pair.dialled_events->AwaitClosed();
  EXPECT_EQ(pair.dialled->Send(MakeFrame("late", {"x"}, &releases)).code(), Code::kPeerLost);
  EXPECT_EQ(releases.count(), 1);
  pair.dialled->Close();
  // Even when the transport is gone.
  pair.client.reset();
  EXPECT_EQ(pair.dialled->Send(MakeFrame("later")).code(), Code::kPeerLost);
  pair.dialled->Close();
}

TEST_P(TransportTest, SendingRacesWithClosingHarmlessly) {
  Releases releases;
  Pair pair = Connected();
  std::thread sender([&] {
    for (int i = 0; i < 200; ++i) (void)pair.dialled->Send(MakeFrame("x", {"y"}, &releases));
  });
  pair.accepted.connection->Close();
  pair.dialled->Close();
  sender.join();
  (void)pair.dialled_events->AwaitClosed();
  (void)pair.accepted.events->AwaitClosed();
  EXPECT_TRUE(releases.Await(200));
  pair.client->transport->Shutdown();
  EXPECT_EQ(releases.count(), 200);
}

TEST_P(TransportTest, DiallingNobodyEndsUnavailableAndNamesTheAddress) {
  const std::string address = AddressOfNobody();
  auto client = Open();
  auto events = std::make_shared<Recorder>();
  auto connection = Dial(*client, address, events);
  const Status status = events->AwaitClosed();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find(address), std::string::npos) << status.message();
}

TEST_P(TransportTest, AnAddressInUseCannotBeListenedAt) {
  auto first = Listener();
  auto second = Open();
  const auto taken = second->transport->Listen(first->address);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.status().code(), Code::kAlreadyExists);
  EXPECT_NE(taken.status().message().find(first->address), std::string::npos) << taken.status().message();
}

TEST_P(TransportTest, AnAddressThatIsNoneIsRefusedAtOnce) {
  auto node = Open();
  EXPECT_FALSE(node->transport->Listen("no address at all").ok());
  EXPECT_FALSE(node->transport->Connect("no address at all", std::make_shared<Recorder>()).ok());
}

TEST_P(TransportTest, AnUnknownOptionIsNamed) {
  Host host;
  const auto transport = OpenTransport(GetParam().name, PluginSearch(), R"({"colour": "red"})", &host);
  ASSERT_FALSE(transport.ok());
  EXPECT_EQ(transport.status().code(), Code::kInvalidArgument);
  EXPECT_NE(transport.status().message().find("colour"), std::string::npos);
  EXPECT_EQ(transport.status().error()->domain, "transport." + GetParam().name);
}

TEST_P(TransportTest, ShutdownEndsAllConnectionsAndMayBeCalledAgain) {
  Pair pair = Standing();
  auto more_events = std::make_shared<Recorder>();
  auto more = Dial(*pair.client, pair.server->address, more_events);
  pair.server->host.AwaitAccepted(1);
  pair.client->transport->Shutdown();
  EXPECT_TRUE(pair.dialled_events->closed());
  EXPECT_TRUE(more_events->closed());
  EXPECT_EQ(pair.accepted.events->AwaitClosed().code(), Code::kPeerLost);
  pair.client->transport->Shutdown();
  EXPECT_EQ(pair.client->transport->Connect(pair.server->address, std::make_shared<Recorder>()).status().code(),
            Code::kClosed);
  EXPECT_EQ(pair.dialled->Send(MakeFrame("x")).code(), Code::kPeerLost);
}

TEST_P(TransportTest, ShutdownMayComeWhileConnectionsAreMade) {
  auto server = Listener();
  auto client = Open();
  std::vector<std::shared_ptr<Recorder>> ends;
  std::thread dialler([&] {
    for (int i = 0; i < 20; ++i) {
      auto events = std::make_shared<Recorder>();
      auto connection = client->transport->Connect(server->address, events);
      ASSERT_TRUE(connection.ok()) << connection.status().ToString();
      (void)(*connection)->Send(MakeFrame("hello"));
      ends.push_back(events);
    }
  });
  server->transport->Shutdown();
  dialler.join();
  // A library may be deaf to the peer while it dials; our own end it must see.
  client->transport->Shutdown();
  for (const auto& end : ends) EXPECT_EQ(end->closed_count(), 1);
}

TEST_P(TransportTest, OneTransportServesManyConnections) {
  constexpr int kConnections = 20;
  auto server = Listener();
  std::vector<std::unique_ptr<Node>> clients;
  std::vector<std::shared_ptr<Connection>> connections;
  for (int i = 0; i < kConnections; ++i) {
    if (i % 5 == 0) clients.push_back(Open());
    connections.push_back(Dial(*clients.back(), server->address, std::make_shared<Recorder>()));
    ASSERT_TRUE(connections.back()->Send(MakeFrame(std::to_string(i))).ok());
  }
  std::vector<std::string> headers;
  for (int i = 0; i < kConnections; ++i) {
    const Accepted accepted = server->host.AwaitAccepted(i);
    ASSERT_TRUE(accepted.events->AwaitFrames(1));
    headers.push_back(accepted.events->Headers()[0]);
  }
  std::sort(headers.begin(), headers.end(), [](const auto& a, const auto& b) { return std::stoi(a) < std::stoi(b); });
  for (int i = 0; i < kConnections; ++i) EXPECT_EQ(headers[i], std::to_string(i));
}

TEST_P(TransportTest, StatsAreAJsonObject) {
  Pair pair = Connected();
  const std::string stats = pair.client->transport->StatsJson();
  EXPECT_EQ(stats.front(), '{');
  EXPECT_EQ(stats.back(), '}');
}

// Under a sanitizer it takes a while to make what is sent first.
INSTANTIATE_TEST_SUITE_P(
    All, TransportTest,
    ::testing::Values(Setup{"Sim", "sim", "{}"}, Setup{"SimVirtualTime", "sim", R"({"time": "virtual"})"},
                      Setup{"SimLatency", "sim", R"({"time": "virtual", "latency_max_us": 3000, "seed": 7})"},
                      Setup{"TensorPipe", "tensorpipe", "{}"},
                      Setup{"ThriftUnix", "thrift", R"({"handshake_timeout_ms": 600000})"},
                      Setup{"ThriftTcp", "thrift",
                            R"({"address": "tcp://127.0.0.1:0", "handshake_timeout_ms": 600000})"},
                      Setup{"ThriftThreads", "thrift",
                            R"({"address": "tcp://[::1]:0", "threads": 3, "handshake_timeout_ms": 600000})"}),
    [](const auto& info) { return info.param.label; });

}  // namespace
}  // namespace gradferry::testing
