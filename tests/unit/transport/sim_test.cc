// What the simulated transport does beyond what every transport does: virtual time, the seed, networks and addresses,
// orderly ends.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/transport/sim_pair.h"

namespace gradferry::testing {
namespace {

constexpr int64_t kMs = 1000000;
constexpr int64_t kHour = int64_t{3600} * 1000 * kMs;
constexpr char kVirtual[] = R"({"time": "virtual"})";

// Records the times at which timers fire.
class Timers {
 public:
  explicit Timers(Clock& clock) : clock_(clock) {}
  TimerId Set(int64_t at) {
    return clock_.Schedule(at, [this] { signal_.Update([&] { fired_.push_back(clock_.Now()); }); });
  }
  std::vector<int64_t> Await(size_t count) {
    EXPECT_TRUE(signal_.Await([&] { return fired_.size() >= count; }));
    return fired();
  }
  std::vector<int64_t> fired() {
    return signal_.Get([&] { return fired_; });
  }

 private:
  Clock& clock_;
  Signal signal_;
  std::vector<int64_t> fired_;
};

// ---- Virtual time ----

TEST(SimVirtualTime, AnHourLongTimerFiresAtOnceWhenNobodyHasWork) {
  auto node = OpenNode("sim", kVirtual);
  Clock& clock = *node->transport->clock();
  Timers timers(clock);
  const int64_t at = clock.Now() + kHour;
  timers.Set(at);
  EXPECT_EQ(timers.Await(1), std::vector<int64_t>{at});
  EXPECT_EQ(clock.Now(), at);
}

TEST(SimVirtualTime, TimersFireInTheOrderOfTheirTimes) {
  auto node = OpenNode("sim", kVirtual);
  Clock& clock = *node->transport->clock();
  Timers timers(clock);
  const int64_t start = clock.Now();
  {
    HeldTime held(clock);
    for (int64_t ms : {30, 10, 20, 10, 0}) timers.Set(start + ms * kMs);
  }
  EXPECT_EQ(timers.Await(5),
            (std::vector<int64_t>{start, start + 10 * kMs, start + 10 * kMs, start + 20 * kMs, start + 30 * kMs}));
}

TEST(SimVirtualTime, StandsStillWhileItIsHeldByAnyTransportOfTheNetwork) {
  auto one = OpenNode("sim", kVirtual);
  auto other = OpenNode("sim", kVirtual);
  Clock& clock = *one->transport->clock();
  Timers timers(clock);
  const int64_t start = clock.Now();
  other->transport->clock()->Hold(+1);
  clock.Hold(+1);
  timers.Set(start + kHour);
  clock.Hold(-1);
  // What is due now is not kept up, so that when it has run the loop has seen the held timer.
  for (int i = 0; i < 3; ++i) timers.Set(start);
  EXPECT_EQ(timers.Await(3), (std::vector<int64_t>{start, start, start}));
  EXPECT_EQ(clock.Now(), start);
  other->transport->clock()->Hold(-1);
  EXPECT_EQ(timers.Await(4).back(), start + kHour);
}

TEST(SimVirtualTime, ACancelledTimerNeitherFiresNorMovesTime) {
  auto node = OpenNode("sim", kVirtual);
  Clock& clock = *node->transport->clock();
  Timers timers(clock);
  const int64_t start = clock.Now();
  {
    HeldTime held(clock);
    const TimerId cancelled = timers.Set(start + kHour);
    timers.Set(start + kMs);
    clock.Cancel(cancelled);
    clock.Cancel(cancelled);
  }
  EXPECT_EQ(timers.Await(1), std::vector<int64_t>{start + kMs});
  node->transport->Shutdown();
  EXPECT_EQ(timers.fired().size(), 1u);
  EXPECT_EQ(clock.Now(), start + kMs);
}

TEST(SimVirtualTime, ATimerForNeverDoesNotMoveTime) {
  auto node = OpenNode("sim", kVirtual);
  Clock& clock = *node->transport->clock();
  Timers timers(clock);
  const int64_t start = clock.Now();
  const TimerId never = timers.Set(kNever);
  timers.Set(start + kMs);
  EXPECT_EQ(timers.Await(1), std::vector<int64_t>{start + kMs});
  EXPECT_EQ(clock.Now(), start + kMs);
  clock.Cancel(never);
}

TEST(SimVirtualTime, DoesNotMoveWithinAnEvent) {
  Pair pair(kVirtual);
  Clock& clock = pair.clock();
  Timers timers(clock);
  const Accepted accepted = pair.accepted();
  std::atomic<int64_t> before{0};
  std::atomic<int64_t> after{0};
  accepted.events->on_frame = [&](const Received&) {
    before = clock.Now();
    timers.Set(before + kHour);
    std::this_thread::yield();
    after = clock.Now();
  };
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("x")).ok());
  const auto fired = timers.Await(1);
  EXPECT_EQ(fired, std::vector<int64_t>{before + kHour});
  EXPECT_EQ(before.load(), after.load());
}

TEST(SimVirtualTime, AFrameUnderWayComesBeforeALaterTimerAndAfterAnEarlierOne) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 5000})");
  Clock& clock = pair.clock();
  const Accepted accepted = pair.accepted();
  std::vector<std::string> order;  // written on the loop's thread, read after the last event
  accepted.events->on_frame = [&](const Received&) { order.push_back("frame"); };
  Timers last(clock);
  const int64_t start = clock.Now();
  {
    HeldTime held(clock);
    last.Set(start + 7 * kMs);
    clock.Schedule(start + 6 * kMs, [&] { order.push_back("later"); });
    clock.Schedule(start + 4 * kMs, [&] { order.push_back("earlier"); });
    ASSERT_TRUE(pair.dialled->Send(MakeFrame("x")).ok());
  }
  last.Await(1);
  EXPECT_EQ(order, (std::vector<std::string>{"earlier", "frame", "later"}));
}

TEST(SimVirtualTime, AHoldKeepsFramesThatTakeTimeUnderWay) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 5000})");
  Clock& clock = pair.clock();
  const Accepted accepted = pair.accepted();
  std::atomic<int64_t> arrived{0};
  accepted.events->on_frame = [&](const Received&) { arrived = clock.Now(); };
  clock.Hold(+1);
  const int64_t start = clock.Now();
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("x")).ok());
  Timers due(clock);
  for (int i = 0; i < 3; ++i) due.Set(start);
  due.Await(3);
  EXPECT_EQ(arrived.load(), 0);
  clock.Hold(-1);
  ASSERT_TRUE(accepted.events->AwaitFrames(1));
  EXPECT_EQ(arrived.load(), start + 5 * kMs);
}

TEST(SimVirtualTime, FramesWithoutLatencyArriveThoughTimeIsHeld) {
  Pair pair(kVirtual);
  HeldTime held(pair.clock());
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("x")).ok());
  EXPECT_TRUE(pair.accepted().events->AwaitFrames(1));
}

TEST(SimVirtualTime, ShutdownDoesNotWaitForTimeThatOthersHold) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 5000})");
  pair.accepted();
  HeldTime held(*pair.server->transport->clock());
  pair.clock().Hold(+1);  // never let go: its transport ends first
  Releases releases;
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("x", {"y"}, &releases)).ok());
  pair.client->transport->Shutdown();
  EXPECT_TRUE(pair.dialled_events->AwaitClosed().ok());
  EXPECT_EQ(releases.count(), 1);
}

TEST(SimVirtualTime, AHoldEndsWithItsTransport) {
  auto one = OpenNode("sim", kVirtual);
  auto other = OpenNode("sim", kVirtual);
  other->transport->clock()->Hold(+2);
  other->transport->Shutdown();
  other->transport->clock()->Hold(-1);
  Timers timers(*one->transport->clock());
  timers.Set(kHour);
  EXPECT_EQ(timers.Await(1), std::vector<int64_t>{kHour});
}

TEST(SimVirtualTime, AStallIsLogged) {
  LogCapture log;
  auto node = OpenNode("sim", R"({"time": "virtual", "stall_ms": 1})");
  Clock& clock = *node->transport->clock();
  Timers timers(clock);
  {
    HeldTime held(clock);
    timers.Set(clock.Now() + kHour);
    EXPECT_TRUE(log.Await("virtual time has stood still for 1 ms of real time, held 1 times"));
  }
  timers.Await(1);
}

TEST(SimVirtualTime, LettingGoOfMoreThanIsHeldIsLoggedAndChangesNothing) {
  LogCapture log;
  auto node = OpenNode("sim", kVirtual);
  node->transport->clock()->Hold(-1);
  EXPECT_TRUE(log.Await("more was let go than was held"));
  Timers timers(*node->transport->clock());
  timers.Set(kHour);
  timers.Await(1);
}

// ---- Real time ----

TEST(SimRealTime, IsTheMachinesAndTimersFireNoEarlier) {
  auto node = OpenNode("sim", "{}");
  Clock& clock = *node->transport->clock();
  const auto machine = NewSteadyClock();
  const int64_t before = machine->Now();
  const int64_t now = clock.Now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, machine->Now());
  Timers timers(clock);
  timers.Set(now + 20 * kMs);
  timers.Set(now + 5 * kMs);
  const auto fired = timers.Await(2);
  EXPECT_GE(fired[0], now + 5 * kMs);
  EXPECT_GE(fired[1], now + 20 * kMs);
}

TEST(SimRealTime, LatencyTakesRealTime) {
  Pair pair(R"({"latency_min_us": 3000})");
  const Accepted accepted = pair.accepted();
  const int64_t start = pair.clock().Now();
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("x")).ok());
  ASSERT_TRUE(accepted.events->AwaitFrames(1));
  EXPECT_GE(pair.clock().Now(), start + 3 * kMs);
}

// ---- The seed ----

// The virtual times at which 50 frames arrive, sent at once.
std::vector<int64_t> ArrivalTimes(const std::string& seed) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 100, "latency_max_us": 90000, "seed": )" + seed + "}");
  std::vector<int64_t> times;
  const Accepted accepted = pair.accepted();
  accepted.events->on_frame = [&](const Received&) { times.push_back(pair.clock().Now()); };
  {
    HeldTime held(pair.clock());
    for (int i = 0; i < 50; ++i) EXPECT_TRUE(pair.dialled->Send(MakeFrame(std::to_string(i))).ok());
  }
  EXPECT_TRUE(accepted.events->AwaitFrames(50));
  pair.client->transport->Shutdown();
  pair.server->transport->Shutdown();
  accepted.events->on_frame = nullptr;
  return times;
}

TEST(SimSeed, TheSameSeedGivesTheSameTimesAndAnotherOneOthers) {
  const auto times = ArrivalTimes("1");
  EXPECT_EQ(times, ArrivalTimes("1"));
  EXPECT_NE(times, ArrivalTimes("2"));
  EXPECT_NE(times, ArrivalTimes("-1"));
}

TEST(SimSeed, NothingOvertakesWhateverLatencyIsDrawn) {
  Pair pair(R"({"time": "virtual", "latency_max_us": 90000})");
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(pair.dialled->Send(MakeFrame(std::to_string(i))).ok());
  const Accepted accepted = pair.accepted();
  ASSERT_TRUE(accepted.events->AwaitFrames(200));
  const auto headers = accepted.events->Headers();
  for (int i = 0; i < 200; ++i) EXPECT_EQ(headers[i], std::to_string(i));
}

TEST(SimSeed, EachDirectionHasTheLatencyOfItsSender) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 1000})", R"({"time": "virtual", "latency_min_us": 7000})");
  const Accepted accepted = pair.accepted();
  std::atomic<int64_t> there{0};
  std::atomic<int64_t> back{0};
  accepted.events->on_frame = [&](const Received&) {
    there = pair.clock().Now();
    EXPECT_TRUE(accepted.connection->Send(MakeFrame("back")).ok());
  };
  pair.dialled_events->on_frame = [&](const Received&) { back = pair.clock().Now(); };
  const int64_t start = pair.clock().Now();
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("there")).ok());
  ASSERT_TRUE(pair.dialled_events->AwaitFrames(1));
  EXPECT_EQ(there - start, kMs);
  EXPECT_EQ(back - there, 7 * kMs);
}

// ---- The end ----

TEST(SimEnd, WhatWasSentBeforeACloseArrivesBeforeThePeerSeesTheEnd) {
  for (const char* options : {"{}", kVirtual, R"({"time": "virtual", "latency_max_us": 9000})"}) {
    Releases releases;
    Pair pair(options);
    const std::string bytes = Pattern(100000);
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(pair.dialled->Send(MakeFrame(std::to_string(i), {bytes, "", "tail"}, &releases)).ok());
    }
    pair.dialled->Close();
    EXPECT_EQ(pair.dialled->Send(MakeFrame("after")).ok(), false);
    EXPECT_TRUE(pair.dialled_events->AwaitClosed().ok());
    EXPECT_EQ(releases.count(), 20) << options;

    const Accepted accepted = pair.accepted();
    const Status end = accepted.events->AwaitClosed();
    EXPECT_EQ(end.code(), Code::kPeerLost);
    EXPECT_EQ(end.message(), "the peer has closed the connection");
    const auto frames = accepted.events->Frames();
    ASSERT_EQ(frames.size(), 20u) << options;
    EXPECT_EQ(frames[19].header, "19");
    EXPECT_TRUE(frames[19].segments == (std::vector<std::string>{bytes, "", "tail"}));
  }
}

TEST(SimEnd, AConnectionThatIsClosedBeforeItStandsEndsAtBothEnds) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 9000})");
  pair.dialled->Close();
  EXPECT_TRUE(pair.dialled_events->AwaitClosed().ok());
  EXPECT_EQ(pair.accepted().events->AwaitClosed().code(), Code::kPeerLost);
}

TEST(SimEnd, ConnectionsThatAreDialledDuringTheListenersShutdownEnd) {
  auto server = OpenListener("sim", "{}");
  auto client = OpenNode("sim", "{}");
  std::vector<std::shared_ptr<Recorder>> ends;
  std::thread dialler([&] {
    for (int i = 0; i < 20; ++i) {
      ends.push_back(std::make_shared<Recorder>());
      const auto connection = client->transport->Connect(server->address, ends.back());
      ASSERT_TRUE(connection.ok()) << connection.status().ToString();
      (void)(*connection)->Send(MakeFrame("hello"));
    }
  });
  server->transport->Shutdown();
  dialler.join();
  for (const auto& end : ends) EXPECT_FALSE(end->AwaitClosed().ok());
}

TEST(SimEnd, WhatATransportSentBeforeItsShutdownArrives) {
  Pair pair(R"({"time": "virtual", "latency_min_us": 9000})");
  pair.accepted();
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("last words", {"x"})).ok());
  pair.client.reset();
  const Accepted accepted = pair.accepted();
  EXPECT_EQ(accepted.events->AwaitClosed().code(), Code::kPeerLost);
  EXPECT_EQ(accepted.events->Headers(), std::vector<std::string>{"last words"});
}

TEST(SimEnd, FramesForAnEndThatHasClosedAreReleased) {
  Releases releases;
  Pair pair(R"({"time": "virtual", "latency_min_us": 9000})");
  const Accepted accepted = pair.accepted();
  {
    HeldTime held(pair.clock());
    ASSERT_TRUE(accepted.connection->Send(MakeFrame("x", {"y"}, &releases)).ok());
    pair.dialled->Close();
    EXPECT_TRUE(pair.dialled_events->AwaitClosed().ok());
  }
  EXPECT_EQ(accepted.events->AwaitClosed().code(), Code::kPeerLost);
  EXPECT_TRUE(releases.Await(1));
  EXPECT_TRUE(pair.dialled_events->Frames().empty());
}

// ---- Networks and addresses ----

TEST(SimNetwork, AddressesAreCountedOrChosen) {
  auto first = OpenListener("sim", "{}");
  EXPECT_EQ(first->address, "sim://default/1");
  auto chosen = OpenListener("sim", "{}", "sim://default/2");
  EXPECT_EQ(chosen->address, "sim://default/2");
  EXPECT_EQ(OpenListener("sim", "{}")->address, "sim://default/3");
  EXPECT_EQ(first->transport->Listen("").status().code(), Code::kFailedPrecondition);
}

TEST(SimNetwork, AnAddressIsFreeAgainAfterItsListenersShutdown) {
  auto keeper = OpenNode("sim", "{}");  // keeps the network
  auto first = OpenListener("sim", "{}", "sim://default/7");
  auto second = OpenNode("sim", "{}");
  EXPECT_EQ(second->transport->Listen("sim://default/7").status().message(), "address in use: sim://default/7");
  first->transport->Shutdown();
  EXPECT_EQ(*second->transport->Listen("sim://default/7"), "sim://default/7");
}

TEST(SimNetwork, AnotherNetworkIsOutOfReach) {
  auto here = OpenNode("sim", R"({"network": "here"})");
  auto there = OpenListener("sim", R"({"network": "there"})");
  EXPECT_EQ(there->address, "sim://there/1");
  for (const std::string& address :
       {there->address, std::string("sim://here/"), std::string("sim://here/x"), std::string("sim://here/1/2"),
        std::string("tcp://here/1"), std::string(), std::string("sim://here/99999999999999999999")}) {
    const auto connection = here->transport->Connect(address, std::make_shared<Recorder>());
    ASSERT_FALSE(connection.ok()) << address;
    EXPECT_EQ(connection.status().code(), Code::kInvalidArgument);
    EXPECT_NE(connection.status().message().find("'here'"), std::string::npos) << connection.status().message();
  }
}

TEST(SimNetwork, ItsTransportsAgreeOnSeedAndTime) {
  Host host;
  auto open = [&](const std::string& options) {
    return OpenTransport("sim", PluginSearch(), options, &host).status().ToString();
  };
  auto node = OpenNode("sim", R"({"network": "agreed", "seed": 5})");
  EXPECT_NE(open(R"({"network": "agreed", "seed": 6})").find("runs with seed 5"), std::string::npos);
  EXPECT_NE(open(R"({"network": "agreed", "seed": 5, "time": "virtual"})").find("runs in real time"),
            std::string::npos);
  EXPECT_EQ(open(R"({"network": "agreed", "seed": 5, "latency_max_us": 10})"), "OK");
  EXPECT_EQ(open(R"({"network": "another", "seed": 6, "time": "virtual"})"), "OK");
}

TEST(SimNetwork, ItEndsWithItsLastTransport) {
  for (const char* options : {R"({"seed": 1})", R"({"seed": 2, "time": "virtual"})", R"({"seed": 3})"}) {
    auto one = OpenListener("sim", options);
    auto two = OpenListener("sim", options);
    EXPECT_EQ(two->address, "sim://default/2");
  }
}

TEST(SimOptions, EachMistakeNamesItsKey) {
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {R"({"colour": 1})", "transport.sim.colour is not an option"},
      {R"({"network": 1})", "transport.sim.network must be a string, not number"},
      {R"({"network": "a/b"})", "transport.sim.network must consist of"},
      {R"({"network": ""})", "transport.sim.network must consist of"},
      {R"({"seed": "1"})", "transport.sim.seed must be an integer, not string"},
      {R"({"seed": 1.5})", "transport.sim.seed must be an integer"},
      {R"({"time": true})", "transport.sim.time must be a string, not boolean"},
      {R"({"time": "slow"})", "transport.sim.time must be real or virtual, not slow"},
      {R"({"latency_min_us": -1})", "transport.sim.latency_min_us must be from 0 to"},
      {R"({"latency_max_us": 3600000001})", "transport.sim.latency_max_us must be from 0 to"},
      {R"({"latency_min_us": 5, "latency_max_us": 4})", "transport.sim.latency_max_us is less than"},
      {R"({"stall_ms": null})", "transport.sim.stall_ms must be an integer, not null"},
      {R"([1])", "no JSON object"},
      {R"({"seed": )", "no JSON object"},
  };
  Host host;
  for (const auto& [options, expected] : mistakes) {
    const auto transport = OpenTransport("sim", PluginSearch(), options, &host);
    ASSERT_FALSE(transport.ok()) << options;
    EXPECT_EQ(transport.status().code(), Code::kInvalidArgument);
    EXPECT_NE(transport.status().message().find(expected), std::string::npos) << transport.status().message();
  }
  EXPECT_TRUE(OpenTransport("sim", PluginSearch(), "", &host).ok());
}

TEST(SimStats, CountFrames) {
  Pair pair(kVirtual);
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("head", {"12345"})).ok());
  ASSERT_TRUE(pair.accepted().events->AwaitFrames(1));
  const std::string sent = pair.client->transport->StatsJson();
  EXPECT_NE(sent.find(R"("frames_sent":1)"), std::string::npos) << sent;
  EXPECT_NE(sent.find(R"("bytes_sent":9)"), std::string::npos) << sent;
  const std::string received = pair.server->transport->StatsJson();
  EXPECT_NE(received.find(R"("frames_received":1)"), std::string::npos) << received;
}

}  // namespace
}  // namespace gradferry::testing
