// The host's wrapper around a plugin, with a plugin that does what it is told, also what the rules forbid: the wrapper
// must keep its promises to the host above all the same.
#include "impl/transport/plugin_transport.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "impl/transport/plugin.h"
#include "tests/unit/transport/transport_testing.h"

namespace gradferry::testing {
namespace {

constexpr int32_t kUnavailable = static_cast<int32_t>(Code::kUnavailable);
constexpr int32_t kPeerLost = static_cast<int32_t>(Code::kPeerLost);

gf_transport_error ErrorOf(int32_t code, const std::string& text) {
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  error.code = code;
  error.length = static_cast<uint32_t>(text.size());
  std::memcpy(error.text, text.data(), text.size());
  return error;
}

int32_t FailWith(gf_transport_error* error, int32_t code, const std::string& text) {
  *error = ErrorOf(code, text);
  return code;
}

// A plugin without threads: tests call the host's table themselves, as its threads would. One lives at a time.
struct FakePlugin {
  const gf_transport_host* host = nullptr;
  std::string options;
  int32_t fail_code = 0;  // what create, connect and send return
  void* token = nullptr;  // of the connection dialled last
  std::vector<void*> ops;
  std::vector<std::string> calls;
  std::function<void()> within_connect;
  bool silent_shutdown = false;
  std::map<uint64_t, uint64_t> timers;
  int32_t holds = 0;

  static FakePlugin* current;
  FakePlugin() { current = this; }
  ~FakePlugin() { current = nullptr; }

  gf_transport* transport() { return reinterpret_cast<gf_transport*>(this); }
  gf_transport_conn* conn() { return reinterpret_cast<gf_transport_conn*>(this); }

  // ---- Events ----

  void* Accept() { return host->on_accept(host->ctx, conn()); }
  int32_t Announce(void* to, const std::string& header, std::vector<uint64_t> lengths) {
    std::vector<gf_transport_segment> in;
    for (uint64_t length : lengths) in.push_back({nullptr, length});
    std::vector<gf_transport_segment> out = in;
    const gf_transport_frame frame{sizeof(frame), static_cast<uint32_t>(in.size()), header.data(), header.size(),
                                   in.data()};
    return host->on_descriptor(host->ctx, to, &frame, out.data());
  }
  void EndFrame(void* to, int32_t code = 0) { host->on_frame(host->ctx, to, code); }
  void Sent(void* to, void* op) { host->on_sent(host->ctx, to, op, nullptr); }
  void Closed(void* to, int32_t code = 0, const std::string& text = "") {
    const gf_transport_error error = ErrorOf(code, text);
    host->on_closed(host->ctx, to, code == 0 ? nullptr : &error);
  }
  void Fire(uint64_t timer) {
    timers.erase(timer);
    host->on_timer(host->ctx, timer);
  }

  // ---- The table ----

  static gf_transport_vtable Vtable() {
    gf_transport_vtable table{};
    table.struct_size = sizeof(table);
    table.create = [](const gf_transport_host* host, const char* options, size_t length, gf_transport** out,
                      gf_transport_error* error) {
      current->options.assign(options, length);
      if (current->fail_code != 0) return FailWith(error, current->fail_code, "no luck");
      current->host = host;
      *out = current->transport();
      return 0;
    };
    table.destroy = [](gf_transport*) { current->calls.push_back("destroy"); };
    table.listen = [](gf_transport*, const char* address, size_t address_length, char* buffer, size_t, size_t* length,
                      gf_transport_error*) {
      std::memcpy(buffer, address, address_length);
      *length = address_length;
      return 0;
    };
    table.connect = [](gf_transport*, const char*, size_t, void* token, gf_transport_conn** out,
                       gf_transport_error* error) {
      current->token = token;
      if (current->fail_code != 0) return FailWith(error, current->fail_code, "no luck");
      if (current->within_connect) current->within_connect();
      *out = current->conn();
      return 0;
    };
    table.send = [](gf_transport_conn*, const gf_transport_frame*, void* op, gf_transport_error* error) {
      if (current->fail_code != 0) return FailWith(error, current->fail_code, "no luck");
      current->ops.push_back(op);
      return 0;
    };
    table.close = [](gf_transport_conn*) { current->calls.push_back("close"); };
    table.shutdown = [](gf_transport*) {
      current->calls.push_back("shutdown");
      if (!current->silent_shutdown) current->host->on_shutdown(current->host->ctx);
    };
    table.now = [](gf_transport*) { return uint64_t{42}; };
    table.timer_set = [](gf_transport*, uint64_t timer, uint64_t at) { current->timers[timer] = at; };
    table.timer_cancel = [](gf_transport*, uint64_t timer) { current->timers.erase(timer); };
    table.hold = [](gf_transport*, int32_t delta) { current->holds += delta; };
    return table;
  }
};

FakePlugin* FakePlugin::current = nullptr;

class PluginTransportTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(Open("{}").ok()); }
  void TearDown() override {
    transport.reset();
    EXPECT_EQ(LiveCount(LiveKind::kConnections).load(), 0);
  }

  Status Open(const std::string& options) {
    Plugin plugin;
    plugin.name = "fake";
    plugin.max_header = 100;
    plugin.capabilities = GF_TRANSPORT_CAP_TIME;
    plugin.vtable = FakePlugin::Vtable();
    auto opened = NewPluginTransport(std::make_shared<const Plugin>(plugin), options, &host);
    if (!opened.ok()) return opened.status();
    transport = std::move(*opened);
    return OkStatus();
  }

  std::shared_ptr<Connection> Dial() {
    auto connection = transport->Connect("there", events);
    EXPECT_TRUE(connection.ok()) << connection.status().ToString();
    return connection.ok() ? *connection : nullptr;
  }

  LogCapture log;
  FakePlugin fake;
  Host host;
  std::shared_ptr<Recorder> events = std::make_shared<Recorder>();
  Releases releases;
  std::unique_ptr<Transport> transport;
};

TEST_F(PluginTransportTest, OptionsReachThePluginAndItsErrorsTheHost) {
  fake.fail_code = kUnavailable;
  const Status status = Open(R"({"a": 1})");
  EXPECT_EQ(fake.options, R"({"a": 1})");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.message(), "no luck");
  EXPECT_EQ(status.error()->domain, "transport.fake");
  // The first transport is still there; the second never came to be and is not destroyed.
  EXPECT_TRUE(fake.calls.empty());
}

TEST_F(PluginTransportTest, ListenReturnsTheActualAddress) { EXPECT_EQ(*transport->Listen("here"), "here"); }

TEST_F(PluginTransportTest, AFailedConnectHasNoEventsAndLeavesNothing) {
  fake.fail_code = kUnavailable;
  EXPECT_EQ(transport->Connect("there", events).status().message(), "no luck");
  EXPECT_EQ(LiveCount(LiveKind::kConnections).load(), 0);
  EXPECT_FALSE(events->closed());
}

TEST_F(PluginTransportTest, OnClosedMayComeBeforeConnectHasReturned) {
  fake.within_connect = [&] { fake.Closed(fake.token, kUnavailable, "nobody there"); };
  auto connection = Dial();
  EXPECT_EQ(events->AwaitClosed().message(), "nobody there");
  EXPECT_EQ(connection->Send(MakeFrame("x")).code(), Code::kPeerLost);
  connection->Close();
  EXPECT_TRUE(fake.ops.empty());
  EXPECT_TRUE(fake.calls.empty()) << "the plugin was called with a conn that had become invalid";
}

TEST_F(PluginTransportTest, FramesAreReleasedWhenCompletedNotBefore) {
  auto connection = Dial();
  ASSERT_TRUE(connection->Send(MakeFrame("a", {"1"}, &releases)).ok());
  ASSERT_TRUE(connection->Send(MakeFrame("b", {"2"}, &releases)).ok());
  EXPECT_EQ(releases.count(), 0);
  fake.Sent(fake.token, fake.ops[0]);
  EXPECT_EQ(releases.count(), 1);
  fake.Sent(fake.token, fake.ops[1]);
  EXPECT_EQ(releases.count(), 2);
  fake.Closed(fake.token);
  EXPECT_EQ(log.text(), "");
}

TEST_F(PluginTransportTest, AFrameThatThePluginRefusesIsReleasedAtOnce) {
  auto connection = Dial();
  fake.fail_code = kUnavailable;
  EXPECT_EQ(connection->Send(MakeFrame("a", {"1"}, &releases)).message(), "no luck");
  EXPECT_EQ(releases.count(), 1);
  fake.fail_code = 0;
  fake.Closed(fake.token);
}

TEST_F(PluginTransportTest, AFrameThatNoPluginCouldCarryDoesNotReachIt) {
  auto connection = Dial();
  EXPECT_EQ(connection->Send(MakeFrame(std::string(101, 'x'))).code(), Code::kOutOfRange);
  EXPECT_EQ(connection->Send(MakeFrame("")).code(), Code::kInvalidArgument);
  OutFrame hollow = MakeFrame("x");
  hollow.segments.push_back({nullptr, 4});
  EXPECT_EQ(connection->Send(std::move(hollow)).code(), Code::kInvalidArgument);
  EXPECT_TRUE(fake.ops.empty());
  fake.Closed(fake.token);
}

TEST_F(PluginTransportTest, AnOpThatIsCompletedTwiceIsReleasedOnce) {
  auto connection = Dial();
  ASSERT_TRUE(connection->Send(MakeFrame("a", {}, &releases)).ok());
  ASSERT_TRUE(connection->Send(MakeFrame("b", {}, &releases)).ok());
  fake.Sent(fake.token, fake.ops[0]);
  fake.Sent(fake.token, fake.ops[0]);
  EXPECT_EQ(releases.count(), 1);
  EXPECT_NE(log.text().find("broke GF-TRN-04"), std::string::npos) << log.text();
  fake.Sent(fake.token, fake.ops[1]);
  fake.Closed(fake.token);
}

TEST_F(PluginTransportTest, OpsCompletedOutOfOrderAreReleasedAndLogged) {
  auto connection = Dial();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(connection->Send(MakeFrame("a", {}, &releases)).ok());
  fake.Sent(fake.token, fake.ops[1]);
  fake.Sent(fake.token, fake.ops[0]);
  EXPECT_EQ(releases.count(), 2);
  EXPECT_NE(log.text().find("broke GF-TRN-03"), std::string::npos) << log.text();
  fake.Closed(fake.token);
}

TEST_F(PluginTransportTest, FramesThatWereNeverCompletedAreReleasedAtTheEnd) {
  auto connection = Dial();
  ASSERT_TRUE(connection->Send(MakeFrame("a", {}, &releases)).ok());
  fake.Closed(fake.token, kPeerLost, "gone");
  EXPECT_EQ(releases.count(), 1);
  EXPECT_NE(log.text().find("broke GF-TRN-04"), std::string::npos) << log.text();
}

TEST_F(PluginTransportTest, AFrameLeftOpenAtTheEndIsLostForTheHost) {
  auto connection = Dial();
  ASSERT_EQ(fake.Announce(fake.token, "head", {3}), 0);
  fake.Closed(fake.token, kPeerLost, "gone");
  EXPECT_EQ(events->lost(), 1);
  EXPECT_EQ(events->AwaitClosed().message(), "gone");
  EXPECT_NE(log.text().find("broke GF-TRN-05"), std::string::npos) << log.text();
}

TEST_F(PluginTransportTest, ALostFrameIsNotAReceivedOne) {
  auto connection = Dial();
  ASSERT_EQ(fake.Announce(fake.token, "head", {3}), 0);
  fake.EndFrame(fake.token, kPeerLost);
  EXPECT_EQ(events->lost(), 1);
  EXPECT_TRUE(events->Frames().empty());
  fake.Closed(fake.token);
}

TEST_F(PluginTransportTest, ASecondFrameWithinTheFirstIsRefused) {
  auto connection = Dial();
  ASSERT_EQ(fake.Announce(fake.token, "first", {}), 0);
  EXPECT_NE(fake.Announce(fake.token, "second", {}), 0);
  fake.EndFrame(fake.token);
  fake.EndFrame(fake.token);  // of nothing
  fake.Closed(fake.token);
  EXPECT_EQ(events->Headers(), std::vector<std::string>{"first"});
  EXPECT_NE(log.text().find("ended a frame that was not announced"), std::string::npos) << log.text();
}

TEST_F(PluginTransportTest, EventsAfterTheEndMeetNothing) {
  auto connection = Dial();
  ASSERT_TRUE(connection->Send(MakeFrame("a", {}, &releases)).ok());
  fake.Sent(fake.token, fake.ops[0]);
  fake.Closed(fake.token);
  fake.Sent(fake.token, fake.ops[0]);
  EXPECT_NE(fake.Announce(fake.token, "head", {}), 0);
  fake.EndFrame(fake.token);
  fake.Closed(fake.token);
  EXPECT_EQ(events->closed_count(), 1);
  EXPECT_NE(log.text().find("broke GF-TRN-06"), std::string::npos) << log.text();
}

TEST_F(PluginTransportTest, ConnectionsThatThePluginForgetsEndAtShutdown) {
  auto connection = Dial();
  ASSERT_TRUE(connection->Send(MakeFrame("a", {}, &releases)).ok());
  transport->Shutdown();
  EXPECT_EQ(events->AwaitClosed().code(), Code::kPeerLost);
  EXPECT_EQ(releases.count(), 1);
  EXPECT_NE(log.text().find("broke GF-TRN-06"), std::string::npos) << log.text();
}

TEST_F(PluginTransportTest, TheHostMayForgetAConnectionThatLives) {
  Dial().reset();
  ASSERT_EQ(fake.Announce(fake.token, "head", {3}), 0);
  fake.EndFrame(fake.token);
  EXPECT_TRUE(events->AwaitFrames(1));
  fake.Closed(fake.token);
  EXPECT_TRUE(events->closed());
}

TEST_F(PluginTransportTest, TheEventsAreLetGoAtTheEnd) {
  std::weak_ptr<Recorder> watched = events;
  auto connection = transport->Connect("there", std::exchange(events, nullptr));
  EXPECT_FALSE(watched.expired());
  fake.Closed(fake.token);
  EXPECT_TRUE(watched.expired());
}

TEST_F(PluginTransportTest, ARefusedConnectionGetsNoToken) {
  host.on_accept = [](const auto&) { return nullptr; };
  EXPECT_EQ(fake.Accept(), nullptr);
  EXPECT_TRUE(fake.calls.empty());
}

TEST_F(PluginTransportTest, ARefusedConnectionThatWasUsedIsClosedInstead) {
  std::shared_ptr<Connection> kept;
  host.on_accept = [&](const std::shared_ptr<Connection>& connection) {
    kept = connection;
    EXPECT_TRUE(connection->Send(MakeFrame("x", {}, &releases)).ok());
    return nullptr;
  };
  void* const token = fake.Accept();
  ASSERT_NE(token, nullptr);
  EXPECT_EQ(fake.calls, std::vector<std::string>{"close"});
  EXPECT_EQ(releases.count(), 0);
  EXPECT_NE(fake.Announce(token, "head", {}), 0);
  fake.Sent(token, fake.ops[0]);
  fake.Closed(token);
  EXPECT_EQ(releases.count(), 1);
}

// Throws where it can.
class Thrower : public Recorder {
  Status OnDescriptor(std::string_view header, std::vector<Segment>&) override {
    if (header == "throw") throw std::runtime_error("in OnDescriptor");
    return OkStatus();
  }
  void OnFrame(Status) override { throw std::runtime_error("in OnFrame"); }
  void OnClosed(Status) override { throw std::runtime_error("in OnClosed"); }
};

TEST_F(PluginTransportTest, WhatTheHostThrowsStaysAwayFromThePlugin) {
  events = std::make_shared<Thrower>();
  auto connection = Dial();
  EXPECT_EQ(fake.Announce(fake.token, "head", {}), 0);
  fake.EndFrame(fake.token);
  EXPECT_NE(fake.Announce(fake.token, "throw", {}), 0);
  fake.Closed(fake.token);
  host.on_accept = [](const auto&) -> std::shared_ptr<Recorder> { throw std::runtime_error("in OnAccept"); };
  EXPECT_EQ(fake.Accept(), nullptr);
  for (const char* place : {"OnDescriptor", "OnFrame", "OnClosed", "OnAccept"}) {
    EXPECT_NE(log.text().find(std::string("in ") + place), std::string::npos) << place << " in " << log.text();
  }
}

// Accepts a frame and gives no memory for it.
class Miser : public Recorder {
  Status OnDescriptor(std::string_view, std::vector<Segment>&) override { return OkStatus(); }
};

TEST_F(PluginTransportTest, ASegmentWithoutMemoryRefusesTheFrame) {
  events = std::make_shared<Miser>();
  auto connection = Dial();
  EXPECT_NE(fake.Announce(fake.token, "head", {0, 3}), 0);
  fake.Closed(fake.token, kPeerLost, "closed for a refused frame");
  EXPECT_EQ(LiveCount(LiveKind::kConnections).load(), 1);
}

TEST_F(PluginTransportTest, ErrorsOfThePluginAreTakenWithCare) {
  gf_transport_error error = ErrorOf(12345, "odd");
  EXPECT_EQ(StatusFromPlugin("fake", 7, &error).code(), Code::kUnknown);
  error.code = 0;
  EXPECT_EQ(StatusFromPlugin("fake", kUnavailable, &error).code(), Code::kUnavailable);
  error.length = 0;
  EXPECT_NE(StatusFromPlugin("fake", kUnavailable, &error).message().find("code 14 and no text"), std::string::npos);
  std::memset(error.text, 'x', sizeof(error.text));
  error.length = 1u << 31;
  EXPECT_EQ(StatusFromPlugin("fake", kUnavailable, &error).message(), std::string(500, 'x'));
  EXPECT_FALSE(StatusFromPlugin("fake", 0, nullptr).ok());
}

TEST_F(PluginTransportTest, LogTextAndAddressesArePassedOn) {
  fake.host->log(fake.host->ctx, 2, "look here", 9);
  EXPECT_EQ(log.text(), "transport.fake: look here\n");
  fake.host->on_address(fake.host->ctx, "moved", 5);
  EXPECT_EQ(host.address(), "moved");
  EXPECT_GT(fake.host->now(fake.host->ctx), 0u);
}

TEST_F(PluginTransportTest, TheClockIsThePlugins) {
  Clock& clock = *transport->clock();
  EXPECT_EQ(clock.Now(), 42);
  clock.Hold(+1);
  clock.Hold(-1);
  EXPECT_EQ(fake.holds, 0);
  int fired = 0;
  const TimerId one = clock.Schedule(100, [&] { ++fired; });
  const TimerId two = clock.Schedule(-5, [&] { ++fired; });
  EXPECT_EQ(fake.timers, (std::map<uint64_t, uint64_t>{{one, 100}, {two, 0}}));
  fake.Fire(one);
  fake.Fire(one);
  EXPECT_EQ(fired, 1);
  clock.Cancel(two);
  EXPECT_TRUE(fake.timers.empty());
  fake.Fire(two);  // was under way
  EXPECT_EQ(fired, 1);
}

TEST_F(PluginTransportTest, ATimerForNeverDoesNotReachThePlugin) {
  auto held = std::make_shared<int>(0);
  const TimerId never = transport->clock()->Schedule(kNever, [held] {});
  EXPECT_TRUE(fake.timers.empty());
  EXPECT_EQ(held.use_count(), 2);
  transport->clock()->Cancel(never);
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(PluginTransportTest, TimersThatAreLeftAreLetGoAtShutdown) {
  auto held = std::make_shared<int>(0);
  transport->clock()->Schedule(100, [held] {});
  transport->Shutdown();
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(PluginTransportTest, ShutdownWaitsForThePluginsWord) {
  fake.silent_shutdown = true;
  std::atomic<bool> returned{false};
  std::thread waiting([&] {
    transport->Shutdown();
    returned = true;
  });
  std::thread waiting_too([&] { transport->Shutdown(); });
  // Until the shutdown has reached the wrapper, connecting still works.
  while (transport->Connect("there", events).ok()) fake.Closed(fake.token);
  EXPECT_FALSE(returned);
  fake.host->on_shutdown(fake.host->ctx);
  waiting.join();
  waiting_too.join();
  transport.reset();
  EXPECT_EQ(fake.calls, (std::vector<std::string>{"shutdown", "destroy"}));
}

TEST_F(PluginTransportTest, WithoutStatsThereIsAnEmptyObject) {
  transport.reset();
  gf_transport_descriptor descriptor{};
  descriptor.struct_size = sizeof(descriptor);
  descriptor.name = "fake";
  descriptor.max_header = 1;
  gf_transport_vtable table = FakePlugin::Vtable();
  descriptor.vtable = &table;
  auto plugin = CheckDescriptor(&descriptor, "");
  ASSERT_TRUE(plugin.ok()) << plugin.status().ToString();
  auto opened = NewPluginTransport(std::make_shared<const Plugin>(*plugin), "{}", &host);
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ((*opened)->StatsJson(), "{}");
  EXPECT_EQ((*opened)->clock(), nullptr);
}

}  // namespace
}  // namespace gradferry::testing
