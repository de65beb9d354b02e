// A thread that waits lends itself to the connection: it gets what comes, alone and in order, and is let go when it has
// what it wants, when somebody says so, when the time is over, and when the connection ends.
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/unit/thrift/test_host.h"

namespace gradferry::thrift::testing {
namespace {

constexpr uint64_t kNever = ~uint64_t{0};

class DriveTest : public ConnectedTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ConnectedTest::SetUp());
    // The client's connection is open when something has come by it.
    ASSERT_EQ(server_.Send(accepted_, {"welcome", {}}).code, GF_OK);
    ASSERT_TRUE(host_.WaitFrames(client_, 1));
  }

  size_t Received() {
    return host_.Locked([&] { return client_->frames.size(); });
  }
  // Drives until a frame more has come; how many times it had to be tried, as drive may return early.
  void DriveUntil(size_t frames) {
    while (Received() < frames) host_.Drive(client_, kNever, [&] { return Received() >= frames; });
  }
};

TEST_P(DriveTest, AnswersComeOnTheThreadThatWaits) {
  server_.Set(accepted_->on_frame, [&](Peer& peer) { server_.Send(&peer, {"answer", {Bytes(100, 1)}}); });
  std::atomic<size_t> here{0};
  host_.Set(client_->on_frame, [&, me = std::this_thread::get_id()](Peer&) {
    if (std::this_thread::get_id() == me) ++here;
  });
  for (size_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(host_.Send(client_, {"question", {}}).code, GF_OK);
    DriveUntil(i + 2);
  }
  // The plugin's own thread may have been faster now and then.
  EXPECT_GT(here, 500u);
  EXPECT_TRUE(host_.WaitSent(client_, 1001));
}

TEST_P(DriveTest, LargeFramesComeWhole) {
  const Frame large{"large", {Bytes(5 * 1000 * 1000, 1), "", Bytes(300 * 1000, 2)}};
  for (size_t i = 0; i < 5; ++i) ASSERT_EQ(server_.Send(accepted_, large).code, GF_OK);
  DriveUntil(6);
  host_.Locked([&] {
    for (size_t i = 1; i < 6; ++i) EXPECT_TRUE(client_->frames[i] == large);
  });
}

// Both directions at once: what the socket does not take at first is written while the connection is driven.
TEST_P(DriveTest, SendsWhatTheSocketDidNotTakeAtOnce) {
  const Frame large{"large", {Bytes(8 * 1000 * 1000, 1)}};
  for (int i = 0; i < 3; ++i) ASSERT_EQ(host_.Send(client_, large).code, GF_OK);
  server_.Set(accepted_->on_frame, [&](Peer& peer) {
    if (peer.frames.size() == 4) server_.Send(&peer, {"all there", {}});
  });
  // It may have them already.
  if (server_.Locked([&] { return accepted_->frames.size() >= 4; })) server_.Send(accepted_, {"all there", {}});
  DriveUntil(2);
  EXPECT_TRUE(server_.WaitFrames(accepted_, 4));
  EXPECT_TRUE(host_.WaitSent(client_, 4));
}

// What the socket did not take the driver writes as well, and tells the host.
TEST_P(DriveTest, TellsWhatWasSentWhileNothingComes) {
  std::atomic<bool> enough{false};
  std::thread waiting([&] {
    while (!enough) host_.Drive(client_, kNever, [&] { return enough.load(); });
  });
  const Frame large{"large", {Bytes(8 * 1000 * 1000, 1)}};
  for (uint64_t i = 1; i <= 10; ++i) {
    EXPECT_EQ(host_.Send(client_, large).code, GF_OK);
    EXPECT_TRUE(host_.WaitSent(client_, i + 1));
  }
  enough = true;
  host_.Wake(client_);
  waiting.join();
}

TEST_P(DriveTest, ReturnsAtOnceWhenThereIsNothingToWaitFor) {
  int asked = 0;
  host_.Drive(client_, kNever, [&] { return ++asked > 0; });
  EXPECT_EQ(asked, 1);
}

TEST_P(DriveTest, ReturnsWhenTheTimeIsOver) {
  const uint64_t until = host_.Now() + 20 * 1000 * 1000;
  while (host_.Now() < until) host_.Drive(client_, until, [] { return false; });
  host_.Drive(client_, until, [] { return false; });
}

TEST_P(DriveTest, AsksAgainWhenItIsWoken) {
  std::atomic<bool> enough{false}, drives{false};
  std::thread waiting([&] {
    while (!enough) {
      host_.Drive(client_, kNever, [&] {
        drives = true;
        return enough.load();
      });
    }
  });
  while (!drives) std::this_thread::yield();
  enough = true;
  host_.Wake(client_);
  waiting.join();
}

TEST_P(DriveTest, IsForOneThreadAtATime) {
  ASSERT_TRUE(host_.WaitSent(client_, 1));  // so that the plugin's own thread has nothing to do
  std::atomic<bool> enough{false}, inside{false};
  std::thread waiting([&] {
    while (!enough) {
      int asked = 0;  // for the first time before it has the connection
      host_.Drive(client_, kNever, [&] {
        if (++asked > 1) inside = true;
        return enough.load();
      });
    }
  });
  while (!inside) std::this_thread::yield();
  // Past the host's own guard.
  int asked = 0;
  const auto count = [](void* arg) { return ++*static_cast<int*>(arg) > 1000000 ? 1 : 0; };
  host_.vtable()->drive(client_->conn, host_.Now() + 10 * uint64_t{1000000000}, count, &asked);
  EXPECT_LE(asked, 1);
  enough = true;
  host_.Wake(client_);
  waiting.join();
}

TEST_P(DriveTest, EndsWithTheConnection) {
  for (const bool by_peer : {true, false}) {
    Peer* client = host_.Connect(server_.address());
    ASSERT_EQ(host_.Send(client, {"hello", {}}).code, GF_OK);
    Peer* accepted = server_.Accepted(by_peer ? 1 : 2);
    ASSERT_TRUE(server_.WaitFrames(accepted, 1));
    std::atomic<bool> drives{false};
    std::thread waiting([&] {
      while (!host_.Locked([&] { return client->closed > 0; })) {
        host_.Drive(client, kNever, [&] {
          drives = true;
          return false;
        });
      }
    });
    while (!drives) std::this_thread::yield();
    if (by_peer) {
      server_.Close(accepted);
    } else {
      host_.Close(client);
    }
    waiting.join();
    EXPECT_EQ(client->closed_code, by_peer ? GF_PEER_LOST : GF_OK);
  }
}

// Threads that wait, send, wake and close at once; the host checks every event.
TEST_P(DriveTest, ThreadsMayDoEverythingAtOnce) {
  server_.Set(accepted_->on_frame, [&](Peer& peer) { server_.Send(&peer, {"answer", {Bytes(3000, 1)}}); });
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(i);
      for (int k = 0; k < 300; ++k) {
        host_.Send(client_, {"question", {Bytes(random() % 100000, k)}});
        const uint64_t until = host_.Now() + random() % 200000;
        host_.Drive(client_, until, [&] { return over.load(); });
        if (random() % 4 == 0) host_.Wake(client_);
      }
    });
  }
  threads[0].join();
  over = true;
  host_.Close(client_);
  for (size_t i = 1; i < threads.size(); ++i) threads[i].join();
  EXPECT_TRUE(host_.WaitClosed(client_));
}

INSTANTIATE_TEST_SUITE_P(Sockets, DriveTest, ::testing::Values("{}", kTcp),
                         [](const auto& info) { return info.index == 0 ? "Unix" : "Tcp"; });

}  // namespace
}  // namespace gradferry::thrift::testing
