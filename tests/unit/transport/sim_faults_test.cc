// The faults of the simulated transport: each is seen where it was asked for and nowhere else, a seed replays exactly,
// and switching one on leaves all other draws as they were.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/transport/sim_pair.h"

namespace gradferry::testing {
namespace {

constexpr int64_t kMs = 1000000;

// Virtual time with a latency, and more.
std::string Options(const std::string& more) { return R"({"time": "virtual", "latency_min_us": 1000)" + more + "}"; }
std::string WithFault(const std::string& fault) { return Options(R"(, "faults": [)" + fault + "]"); }

// The headers that arrive when ten frames "0x" to "9x" are sent over a link with this fault.
std::vector<std::string> TenWith(const std::string& fault) {
  Pair pair(WithFault(fault), Options(""));
  const Accepted accepted = pair.accepted();
  {
    HeldTime held(pair.clock());
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(pair.dialled->Send(MakeFrame(std::to_string(i) + "x")).ok());
    pair.dialled->Close();
  }
  EXPECT_EQ(accepted.events->AwaitClosed().code(), Code::kPeerLost);
  return accepted.events->Headers();
}

std::vector<std::string> Ten() {
  std::vector<std::string> all;
  for (int i = 0; i < 10; ++i) all.push_back(std::to_string(i) + "x");
  return all;
}

std::vector<std::string> Without(std::vector<std::string> all, std::vector<size_t> gone) {
  for (auto it = gone.rbegin(); it != gone.rend(); ++it) all.erase(all.begin() + static_cast<ptrdiff_t>(*it));
  return all;
}

TEST(SimFaults, LossTakesTheFramesThatTheRuleSelects) {
  EXPECT_EQ(TenWith(R"({"fault": "loss", "bytes": [[0, 51]]})"), Without(Ten(), {3}));  // '3'
  EXPECT_EQ(TenWith(R"({"fault": "loss", "bytes": [[0, 51], [1, 120]]})"), Without(Ten(), {3}));
  EXPECT_EQ(TenWith(R"({"fault": "loss", "bytes": [[0, 51], [1, 121]]})"), Ten());
  EXPECT_EQ(TenWith(R"({"fault": "loss", "bytes": [[7, 0]]})"), Ten());
  EXPECT_EQ(TenWith(R"({"fault": "loss", "first": 9})"), Without(Ten(), {8, 9}));
  EXPECT_EQ(TenWith(R"({"fault": "loss", "first": 2, "count": 3})"), Without(Ten(), {1, 2, 3}));
  EXPECT_EQ(TenWith(R"({"fault": "loss", "direction": "to_listener"})"),
            Without(Ten(), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(TenWith(R"({"fault": "loss", "direction": "to_dialler"})"), Ten());
  EXPECT_EQ(TenWith(R"({"fault": "loss", "to": [1], "count": 1})"), Without(Ten(), {0}));
  EXPECT_EQ(TenWith(R"({"fault": "loss", "to": [2, 3]})"), Ten());
  EXPECT_EQ(TenWith(R"({"fault": "loss", "from_us": 1000000})"), Ten());
  EXPECT_EQ(TenWith(R"({"fault": "loss", "until_us": 1000000})").size(), 0u);
  EXPECT_EQ(TenWith(R"({"fault": "loss", "probability": 0})"), Ten());
  const size_t left = TenWith(R"({"fault": "loss", "probability": 0.5})").size();
  EXPECT_GT(left, 0u);
  EXPECT_LT(left, 10u);
}

TEST(SimFaults, TheSenderOfALostFrameIsToldThatItWasSent) {
  Releases releases;
  Pair pair(WithFault(R"({"fault": "loss", "count": 1})"), Options(""));
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("lost", {"segment"}, &releases)).ok());
  EXPECT_TRUE(releases.Await(1));
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("next")).ok());
  const Accepted accepted = pair.accepted();
  ASSERT_TRUE(accepted.events->AwaitFrames(1));
  EXPECT_EQ(accepted.events->Headers(), std::vector<std::string>{"next"});
  EXPECT_FALSE(pair.dialled_events->closed());
  EXPECT_NE(pair.client->transport->StatsJson().find(R"("frames_lost":1)"), std::string::npos);
}

// The virtual times at which the frames arrive, sent at once, and whose they are.
using Arrivals = std::vector<std::pair<int64_t, std::string>>;
Arrivals ArrivalsWith(const std::string& options, int connections, int frames, std::string* stats = nullptr) {
  auto server = OpenListener("sim", options);
  std::mutex mutex;  // guards arrivals
  Arrivals arrivals;
  server->host.on_accept = [&](const std::shared_ptr<Connection>&) {
    auto recorder = std::make_shared<Recorder>();
    recorder->on_frame = [&](const Received& frame) {
      std::lock_guard lock(mutex);
      std::string text = frame.header;
      for (const std::string& segment : frame.segments) text += "|" + segment;
      arrivals.emplace_back(server->transport->clock()->Now(), text);
    };
    return recorder;
  };
  auto client = OpenNode("sim", options);
  std::vector<std::shared_ptr<Recorder>> ends;
  std::vector<std::shared_ptr<Connection>> dialled;
  {
    HeldTime held(*client->transport->clock());
    for (int c = 0; c < connections; ++c) {
      ends.push_back(std::make_shared<Recorder>());
      dialled.push_back(*client->transport->Connect(server->address, ends.back()));
    }
    for (int i = 0; i < frames; ++i) {
      for (int c = 0; c < connections; ++c) {
        (void)dialled[c]->Send(MakeFrame(std::to_string(c) + "." + std::to_string(i), {"segment"}));
      }
    }
    for (int c = 0; c < connections; ++c) dialled[c]->Close();
  }
  for (int c = 0; c < connections; ++c) EXPECT_TRUE(ends[c]->AwaitClosed().ok());
  client->transport->Shutdown();
  for (int c = 0; c < connections; ++c) EXPECT_FALSE(server->host.AwaitAccepted(c).events->AwaitClosed().ok());
  if (stats != nullptr) {
    // When the ends are all there time moves on to what nobody waits for.
    *stats = std::regex_replace(server->transport->StatsJson(), std::regex(R"("now_ns":\d+,)"), "");
  }
  server->transport->Shutdown();
  return arrivals;
}

TEST(SimFaults, ADelayMakesOthersOvertakeOnOtherConnectionsOnly) {
  const auto arrivals =
      ArrivalsWith(WithFault(R"({"fault": "delay", "delay_us": 5000, "first": 1, "count": 1})"), 2, 3);
  // The first matching frame is that of connection 0; what follows on it waits behind it.
  std::vector<std::string> texts;
  for (const auto& [at, text] : arrivals) texts.push_back(text);
  EXPECT_EQ(texts, (std::vector<std::string>{"1.0|segment", "1.1|segment", "1.2|segment", "0.0|segment", "0.1|segment",
                                             "0.2|segment"}));
  EXPECT_EQ(arrivals[3].first - arrivals[0].first, 5 * kMs);
}

TEST(SimFaults, DrawnDelaysReorderAcrossConnectionsAndNeverWithin) {
  const auto arrivals =
      ArrivalsWith(WithFault(R"({"fault": "delay", "delay_us": 0, "delay_max_us": 90000, "probability": 0.5})"), 4, 20);
  ASSERT_EQ(arrivals.size(), 80u);
  std::vector<int> next(4, 0);
  bool overtaken = false;
  for (const auto& [at, text] : arrivals) {
    const int connection = text[0] - '0';
    EXPECT_EQ(text, std::to_string(connection) + "." + std::to_string(next[connection]++) + "|segment");
    for (int other = 0; other < connection; ++other) overtaken = overtaken || next[other] < next[connection] - 1;
  }
  EXPECT_TRUE(overtaken);
}

TEST(SimFaults, ADuplicateArrivesAgainAtOnceOrLater) {
  EXPECT_EQ(TenWith(R"({"fault": "duplicate", "first": 2, "count": 1})"),
            (std::vector<std::string>{"0x", "1x", "1x", "2x", "3x", "4x", "5x", "6x", "7x", "8x", "9x"}));
  Pair pair(WithFault(R"({"fault": "duplicate", "delay_us": 7000, "count": 1})"), Options(""));
  const Accepted accepted = pair.accepted();
  std::vector<int64_t> times;
  accepted.events->on_frame = [&](const Received&) { times.push_back(pair.clock().Now()); };
  Releases releases;
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("twice", {"segment"}, &releases)).ok());
  ASSERT_TRUE(accepted.events->AwaitFrames(2));
  EXPECT_EQ(times[1] - times[0], 7 * kMs);
  EXPECT_EQ(accepted.events->Frames()[1].segments, std::vector<std::string>{"segment"});
  EXPECT_EQ(releases.count(), 1);
}

TEST(SimFaults, TruncationShortensTheHeaderAndTakesTheSegments) {
  Pair pair(WithFault(R"({"fault": "truncate", "keep": 3, "count": 1})"), Options(""));
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("header", {"segment"})).ok());
  const Accepted accepted = pair.accepted();
  ASSERT_TRUE(accepted.events->AwaitFrames(1));
  EXPECT_EQ(accepted.events->Headers(), std::vector<std::string>{"hea"});
  EXPECT_TRUE(accepted.events->Frames()[0].segments.empty());
}

TEST(SimFaults, TruncationWithinTheSegmentsEndsTheConnectionWithDataLoss) {
  Pair pair(WithFault(R"({"fault": "truncate", "part": "segments", "keep": 4})"), Options(""));
  const Accepted accepted = pair.accepted();
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("header", {"abc", "defgh"})).ok());
  const Status end = accepted.events->AwaitClosed();
  EXPECT_EQ(end.code(), Code::kDataLoss) << end.ToString();
  EXPECT_EQ(end.message(), "a frame was cut short");
  EXPECT_EQ(accepted.events->lost(), 1);
  EXPECT_EQ(accepted.events->Headers().size(), 0u);
  EXPECT_EQ(pair.dialled_events->AwaitClosed().code(), Code::kPeerLost);
}

TEST(SimFaults, AFlippedBitArrives) {
  EXPECT_EQ(TenWith(R"({"fault": "flip", "part": "header", "bit": 9, "first": 3, "count": 1})")[2], "2z");
  Pair pair(WithFault(R"({"fault": "flip", "part": "segments", "bit": 8})"), Options(""));
  const Accepted accepted = pair.accepted();
  const std::string segment = "abc";
  ASSERT_TRUE(pair.dialled->Send(MakeFrame("header", {segment})).ok());
  ASSERT_TRUE(accepted.events->AwaitFrames(1));
  EXPECT_EQ(accepted.events->Frames()[0].header, "header");
  EXPECT_EQ(accepted.events->Frames()[0].segments, std::vector<std::string>{"acc"});
}

TEST(SimFaults, AResetEndsBothSidesAndCompletesWhatWasUnderWay) {
  Releases releases;
  Pair pair(WithFault(R"({"fault": "reset", "first": 2, "count": 1})"), Options(""));
  const Accepted accepted = pair.accepted();
  {
    HeldTime held(pair.clock());
    for (const char* header : {"one", "two", "three"}) {
      ASSERT_TRUE(pair.dialled->Send(MakeFrame(header, {"segment"}, &releases)).ok());
    }
  }
  const Status ours = pair.dialled_events->AwaitClosed();
  EXPECT_EQ(ours.code(), Code::kPeerLost);
  EXPECT_EQ(ours.message(), "the connection was reset");
  EXPECT_EQ(accepted.events->AwaitClosed().code(), Code::kPeerLost);
  EXPECT_EQ(accepted.events->Headers(), std::vector<std::string>{"one"});
  EXPECT_TRUE(releases.Await(3));

  // The rule counts on: a new connection is not reset.
  auto events = std::make_shared<Recorder>();
  const auto again = pair.client->transport->Connect(pair.server->address, events);
  ASSERT_TRUE(again.ok());
  ASSERT_TRUE((*again)->Send(MakeFrame("four")).ok());
  EXPECT_TRUE(pair.server->host.AwaitAccepted(1).events->AwaitFrames(1));
}

// ---- Partitions and deaths ----

TEST(SimPartition, WhatIsSentWhileItLastsIsLostAndTheConnectionLivesOn) {
  Pair pair(Options(R"(, "partitions": [{"sets": [[1]], "from_us": 10000, "until_us": 20000}])"), Options(""));
  const Accepted accepted = pair.accepted();
  Clock& clock = pair.clock();
  const int64_t began = 1000 * kMs;  // of virtual time
  Signal signal;
  int sent = 0;
  {
    HeldTime held(clock);
    for (int at : {5, 12, 25}) {
      clock.Schedule(began + at * kMs, [&, at] {
        (void)pair.dialled->Send(MakeFrame(std::to_string(at)));
        signal.Update([&] { ++sent; });
      });
    }
  }
  ASSERT_TRUE(signal.Await([&] { return sent == 3; }));
  ASSERT_TRUE(accepted.events->AwaitFrames(2));
  EXPECT_EQ(accepted.events->Headers(), (std::vector<std::string>{"5", "25"}));
}

TEST(SimPartition, ADialDuringItIsAnsweredByNobodyAndFailsAtTheFirstFrameAfterIt) {
  const std::string cut = Options(R"(, "partitions": [{"sets": [[1], [2]], "until_us": 20000}])");
  auto server = OpenListener("sim", Options(""));
  auto client = OpenListener("sim", cut);
  Clock& clock = *client->transport->clock();
  auto events = std::make_shared<Recorder>();
  const auto dialled = client->transport->Connect(server->address, events);
  ASSERT_TRUE(dialled.ok());
  clock.Schedule(1010 * kMs, [&] { (void)(*dialled)->Send(MakeFrame("lost")); });
  clock.Schedule(1030 * kMs, [&] { (void)(*dialled)->Send(MakeFrame("too late")); });
  const Status end = events->AwaitClosed();
  EXPECT_EQ(end.code(), Code::kPeerLost);
  EXPECT_EQ(end.message(), "the peer knows nothing of this connection");
  EXPECT_EQ(clock.Now(), 1031 * kMs);
}

TEST(SimPartition, AnEndDuringItIsLearnedAfterIt) {
  const std::string cut = Options(R"(, "partitions": [{"sets": [[1]], "from_us": 5000, "until_us": 20000}])");
  Pair pair(cut, cut);
  const Accepted accepted = pair.accepted();
  Clock& clock = pair.clock();
  clock.Schedule(1010 * kMs, [&] { accepted.connection->Close(); });
  clock.Schedule(1015 * kMs, [&] { (void)pair.dialled->Send(MakeFrame("lost")); });
  clock.Schedule(1030 * kMs, [&] { (void)pair.dialled->Send(MakeFrame("too late")); });
  EXPECT_TRUE(accepted.events->AwaitClosed().ok());
  EXPECT_EQ(pair.dialled_events->AwaitClosed().code(), Code::kPeerLost);
  EXPECT_EQ(clock.Now(), 1031 * kMs);
}

TEST(SimDeath, BreaksAllConnectionsAndRefusesNewOnesUntilItLivesAgain) {
  Pair pair(Options(""), Options(R"(, "deaths": [{"from_us": 10000, "until_us": 20000}])"));
  const Accepted accepted = pair.accepted();
  Clock& clock = pair.clock();
  const Status end = pair.dialled_events->AwaitClosed();
  EXPECT_EQ(end.code(), Code::kPeerLost);
  EXPECT_EQ(end.message(), "the transport of one side has died");
  EXPECT_EQ(accepted.events->AwaitClosed().code(), Code::kPeerLost);

  auto dead = std::make_shared<Recorder>();
  auto reborn = std::make_shared<Recorder>();
  std::shared_ptr<Connection> dialled;
  {
    HeldTime held(clock);
    clock.Schedule(1015 * kMs, [&] { (void)pair.client->transport->Connect(pair.server->address, dead); });
    clock.Schedule(1025 * kMs, [&] {
      dialled = *pair.client->transport->Connect(pair.server->address, reborn);
      (void)dialled->Send(MakeFrame("hello again"));
    });
  }
  EXPECT_EQ(dead->AwaitClosed().code(), Code::kUnavailable);
  EXPECT_TRUE(pair.server->host.AwaitAccepted(1).events->AwaitFrames(1));
}

// ---- The seed ----

constexpr char kAll[] = R"(, "latency_max_us": 9000, "faults": [
    {"fault": "loss", "probability": 0.1}, {"fault": "delay", "delay_us": 0, "delay_max_us": 5000, "probability": 0.1},
    {"fault": "duplicate", "delay_us": 0, "delay_max_us": 5000, "probability": 0.1},
    {"fault": "flip", "probability": 0.1}, {"fault": "truncate", "part": "header", "probability": 0.1}], "seed": )";

TEST(SimFaults, ASeedReplaysExactly) {
  std::string stats, again, other;
  const auto arrivals = ArrivalsWith(Options(std::string(kAll) + "5"), 3, 100, &stats);
  EXPECT_EQ(arrivals, ArrivalsWith(Options(std::string(kAll) + "5"), 3, 100, &again));
  EXPECT_EQ(stats, again);  // the trace of all events is part of it
  EXPECT_NE(stats.find("\"trace\":"), std::string::npos);
  EXPECT_NE(arrivals, ArrivalsWith(Options(std::string(kAll) + "6"), 3, 100, &other));
  EXPECT_NE(stats, other);
}

TEST(SimFaults, SwitchingOneOnLeavesTheDrawsOfOthersAsTheyWere) {
  const std::string latency = R"(, "latency_max_us": 90000, "seed": 3)";
  const std::string loss = R"({"fault": "loss", "probability": 0.3})";
  const std::string flip = R"({"fault": "flip", "part": "segments", "bit": 1, "probability": 0.3})";
  const auto plain = ArrivalsWith(Options(latency), 1, 100);
  const auto lossy = ArrivalsWith(Options(latency + R"(, "faults": [)" + loss + "]"), 1, 100);
  const auto both = ArrivalsWith(Options(latency + R"(, "faults": [)" + loss + "," + flip + "]"), 1, 100);
  ASSERT_EQ(plain.size(), 100u);
  // What arrives with loss arrives at the same times as without, and flips change nothing of who is lost.
  ASSERT_LT(lossy.size(), 90u);
  ASSERT_EQ(lossy.size(), both.size());
  size_t flipped = 0;
  for (size_t i = 0; i < lossy.size(); ++i) {
    EXPECT_NE(std::find(plain.begin(), plain.end(), lossy[i]), plain.end());
    EXPECT_EQ(lossy[i].first, both[i].first);
    const size_t bar = lossy[i].second.find('|');
    EXPECT_EQ(lossy[i].second.substr(0, bar), both[i].second.substr(0, bar));
    flipped += lossy[i].second != both[i].second;
  }
  EXPECT_GT(flipped, 5u);
}

TEST(SimFaults, EachMistakeInThemNamesItsKey) {
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {R"({"faults": {}})", "transport.sim.faults must be an array of tables, not object"},
      {R"({"faults": [1]})", "transport.sim.faults[0] must be a table, not number"},
      {R"({"faults": [{}]})", "transport.sim.faults[0].fault is missing"},
      {R"({"faults": [{"fault": "loss"}, {"fault": "fire"}]})", "transport.sim.faults[1].fault must be one of loss, "},
      {R"({"faults": [{"fault": "loss", "colour": 1}]})", "transport.sim.faults[0].colour is not known"},
      {R"({"faults": [{"fault": "loss", "delay_us": 1}]})", "transport.sim.faults[0].delay_us is not known"},
      {R"({"faults": [{"fault": "loss", "bytes": [4, 9]}]})", "faults[0].bytes must be an array of pairs"},
      {R"({"faults": [{"fault": "loss", "bytes": [[4, 256]]}]})", "faults[0].bytes must be from 0 to 255, not 256"},
      {R"({"faults": [{"fault": "loss", "bytes": [[-1, 2]]}]})", "faults[0].bytes must be from 0 to"},
      {R"({"faults": [{"fault": "loss", "direction": "up"}]})", "faults[0].direction must be one of to_listener"},
      {R"({"faults": [{"fault": "loss", "to": 3}]})", "faults[0].to must be an array of integers, not number"},
      {R"({"faults": [{"fault": "loss", "first": 0}]})", "faults[0].first must be from 1 to"},
      {R"({"faults": [{"fault": "loss", "count": "1"}]})", "faults[0].count must be an integer, not string"},
      {R"({"faults": [{"fault": "loss", "probability": 1.5}]})", "faults[0].probability must be from 0 to 1, not 1.5"},
      {R"({"faults": [{"fault": "loss", "from_us": 5, "until_us": 5}]})", "faults[0].until_us must be after from_us"},
      {R"({"faults": [{"fault": "delay", "delay_us": 5, "delay_max_us": 4}]})", "delay_max_us is less than delay_us"},
      {R"({"faults": [{"fault": "flip", "part": "tail"}]})", "faults[0].part must be one of any, header, segments"},
      {R"({"partitions": [{}]})", "transport.sim.partitions[0].sets must be an array of arrays"},
      {R"({"partitions": [{"sets": [1]}]})", "transport.sim.partitions[0].sets must be an array of integers"},
      {R"({"deaths": [{"from_us": "now"}]})", "transport.sim.deaths[0].from_us must be an integer, not string"},
  };
  Host host;
  for (const auto& [options, expected] : mistakes) {
    const auto transport = OpenTransport("sim", PluginSearch(), options, &host);
    ASSERT_FALSE(transport.ok()) << options;
    EXPECT_EQ(transport.status().code(), Code::kInvalidArgument);
    EXPECT_NE(transport.status().message().find(expected), std::string::npos) << transport.status().message();
  }
}

}  // namespace
}  // namespace gradferry::testing
