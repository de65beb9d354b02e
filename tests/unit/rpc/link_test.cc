// Frames between two links whose connection lies: what was lost, damaged or doubled on the way is seen, and named.
#include "impl/rpc/link.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace gradferry {
namespace {

// A frame as it lies on the wire.
struct Sent {
  std::string header;
  std::vector<std::string> segments;
};

// Keeps what is sent.
class Recorder final : public Connection {
 public:
  Status Send(OutFrame frame) override {
    Sent sent{frame.header, {}};
    for (const Segment& segment : frame.segments) {
      sent.segments.emplace_back(static_cast<const char*>(segment.data), segment.length);
    }
    frames.push_back(std::move(sent));
    return refuse ? Status(Code::kOutOfRange, "refused") : OkStatus();
  }
  void Close() override { closed = true; }

  std::vector<Sent> frames;
  bool refuse = false;
  bool closed = false;
};

// Stands still until it is told otherwise.
class FakeClock final : public Clock {
 public:
  int64_t Now() const override { return now; }
  TimerId Schedule(int64_t at, std::function<void()> fn) override {
    due = at;
    timer = std::move(fn);
    return 1;
  }
  void Cancel(TimerId) override { timer = nullptr; }
  int64_t now = 1;
  int64_t due = 0;
  std::function<void()> timer;  // the last one
};

class End final : public Link {
 public:
  explicit End(const LinkHome* home) : Link(home) {
    connection = std::make_shared<Recorder>();
    SetConnection(connection);
  }

  // What a transport does with a frame; false when it was refused.
  bool Deliver(const Sent& frame) {
    std::vector<Segment> segments(frame.segments.size());
    for (size_t i = 0; i < segments.size(); ++i) segments[i].length = frame.segments[i].size();
    if (!OnDescriptor(frame.header, segments).ok()) {
      OnClosed(OkStatus());
      return false;
    }
    for (size_t i = 0; i < segments.size(); ++i) {
      std::memcpy(segments[i].data, frame.segments[i].data(), segments[i].length);
    }
    OnFrame(OkStatus());
    if (connection->closed) OnClosed(OkStatus());
    return !connection->closed;
  }

  std::shared_ptr<Recorder> connection;
  std::vector<std::string> came;
  Status end;
  bool introduced = true;
  std::weak_ptr<Link> self;

 protected:
  Status OnMessage(DecodedMessage message) override {
    came.emplace_back(MessageName(message.message));
    return OkStatus();
  }
  bool Introduced() const override { return introduced; }
  std::string PeerName() const override { return "worker b"; }
  std::shared_ptr<Link> Self() override { return self.lock(); }
  void Closed(Status status) override { end = std::move(status); }
};

class LinkTest : public ::testing::Test {
 protected:
  LinkTest() {
    limits_.checksum_segments = true;
    for (uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(sender_.SendMessage(Cancel{i}).ok());
    EXPECT_TRUE(sender_.SendMessage(Reply{3, OkStatus(), {Value(at::ones({5000})), Value(at::ones({2}))}}).ok());
  }

  const Sent& frame(size_t index) { return sender_.connection->frames[index]; }
  void ExpectLoss(const std::string& text) {
    EXPECT_EQ(receiver_.end.code(), Code::kDataLoss);
    EXPECT_NE(receiver_.end.message().find(text), std::string::npos) << receiver_.end.message();
  }

  WireLimits limits_;
  RpcMetrics metrics_;
  LivenessOptions liveness_;
  FakeClock clock_;
  const LinkHome home_{&limits_, &metrics_, &liveness_, &clock_, nullptr, nullptr, 0};
  End sender_{&home_};
  End receiver_{&home_};
};

TEST_F(LinkTest, FramesArriveInOrder) {
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(receiver_.Deliver(frame(i)));
  EXPECT_EQ(receiver_.came, (std::vector<std::string>{"Cancel", "Cancel", "Cancel", "Reply"}));
  EXPECT_EQ(metrics_.frames_sent, 4u);
  EXPECT_EQ(metrics_.frames_received, 4u);
  EXPECT_EQ(metrics_.bytes_sent, metrics_.bytes_received);
  EXPECT_GT(metrics_.bytes_sent, 20000u);
}

TEST_F(LinkTest, AMissingFrameIsNamed) {
  EXPECT_TRUE(receiver_.Deliver(frame(0)));
  EXPECT_FALSE(receiver_.Deliver(frame(2)));
  ExpectLoss("frame 1 of the connection from worker b is missing: frame 2 came");
  EXPECT_EQ(receiver_.came.size(), 1u);
}

TEST_F(LinkTest, AFrameThatComesTwiceCountsOnce) {
  for (const size_t i : {0, 0, 1, 0, 2, 3, 3}) EXPECT_TRUE(receiver_.Deliver(frame(i)));
  EXPECT_EQ(receiver_.came, (std::vector<std::string>{"Cancel", "Cancel", "Cancel", "Reply"}));
  EXPECT_EQ(metrics_.frames_duplicate, 3u);
  EXPECT_EQ(metrics_.frames_received, 4u);
}

TEST_F(LinkTest, EveryDamageToAHeaderIsSeen) {
  for (size_t at = 0; at < frame(0).header.size(); ++at) {
    End receiver(&home_);
    Sent damaged = frame(0);
    damaged.header[at] = static_cast<char>(damaged.header[at] ^ 0x10);
    EXPECT_FALSE(receiver.Deliver(damaged));
    // A version is believed on the first frame, so that workers of different versions can tell each other apart.
    const bool version = at == 2 || at == 3;
    EXPECT_EQ(receiver.end.code(), version ? Code::kUnsupported : Code::kDataLoss) << at;
    EXPECT_TRUE(receiver.came.empty());
  }
}

TEST_F(LinkTest, ACutHeaderIsSeen) {
  EXPECT_TRUE(receiver_.Deliver(frame(0)));
  Sent cut = frame(1);
  cut.header.resize(cut.header.size() - 1);
  EXPECT_FALSE(receiver_.Deliver(cut));
  ExpectLoss("frame 1 of the connection from worker b is damaged: ");
}

TEST_F(LinkTest, EveryDamageToATensorIsSeen) {
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(receiver_.Deliver(frame(i)));
  Sent damaged = frame(3);
  ASSERT_EQ(damaged.segments.size(), 2u);
  damaged.segments[1][19999] ^= 1;
  EXPECT_FALSE(receiver_.Deliver(damaged));
  ExpectLoss("the tensors of frame 3 of the connection from worker b are damaged: ");
  EXPECT_EQ(receiver_.came.size(), 3u);
}

TEST_F(LinkTest, TensorsAreNotCoveredUnlessAsked) {
  limits_.checksum_segments = false;
  End sender(&home_);
  ASSERT_TRUE(sender.SendMessage(Reply{3, OkStatus(), {Value(at::ones({2}))}}).ok());
  Sent damaged = sender.connection->frames[0];
  damaged.segments[0][7] ^= 1;
  EXPECT_TRUE(receiver_.Deliver(damaged));
}

TEST_F(LinkTest, NothingIsTakenAfterALoss) {
  EXPECT_FALSE(receiver_.Deliver(frame(1)));
  EXPECT_FALSE(receiver_.Deliver(frame(0)));
  EXPECT_TRUE(receiver_.came.empty());
  ExpectLoss("frame 0 of the connection from worker b is missing: frame 1 came");
}

TEST_F(LinkTest, AFrameThatTheTransportRefusesHasNoNumber) {
  sender_.connection->refuse = true;
  EXPECT_EQ(sender_.SendMessage(Cancel{9}).code(), Code::kOutOfRange);
  sender_.connection->refuse = false;
  EXPECT_TRUE(sender_.SendMessage(Cancel{10}).ok());
  for (const size_t i : {0, 1, 2, 3, 5}) EXPECT_TRUE(receiver_.Deliver(frame(i)));
}

// ---- Introduction ----

TEST_F(LinkTest, WhoDoesNotIntroduceItselfIsCutOff) {
  auto stranger = std::make_shared<End>(&home_);
  stranger->self = stranger;
  stranger->introduced = false;
  stranger->ExpectIntroduction();
  EXPECT_EQ(clock_.due, clock_.now + 5000000000);
  clock_.timer();
  EXPECT_TRUE(stranger->connection->closed);
  stranger->OnClosed(OkStatus());
  EXPECT_EQ(stranger->end.code(), Code::kUnavailable);
  EXPECT_EQ(stranger->end.message(), "worker b did not introduce itself within 5000 ms (liveness.introduction)");
}

TEST_F(LinkTest, WhoIntroducesItselfInTimeIsNot) {
  auto peer = std::make_shared<End>(&home_);
  peer->self = peer;
  peer->ExpectIntroduction();
  clock_.timer();
  EXPECT_FALSE(peer->connection->closed);
  peer->CancelIntroduction();
  EXPECT_EQ(clock_.timer, nullptr);
}

// ---- Silence ----

constexpr int64_t kSecond = 1000000000;

TEST_F(LinkTest, ASilentPeerIsAskedThenSuspectedThenLost) {
  const size_t before = receiver_.connection->frames.size();
  const int64_t start = 100 * kSecond;
  EXPECT_EQ(receiver_.LookAfter(start, 0), start + kSecond);
  EXPECT_EQ(receiver_.connection->frames.size(), before);
  EXPECT_EQ(receiver_.LookAfter(start + kSecond, 0), start + 2 * kSecond);
  EXPECT_EQ(receiver_.connection->frames.size(), before + 1);
  EXPECT_FALSE(receiver_.suspect());
  receiver_.LookAfter(start + 2 * kSecond, 0);
  EXPECT_TRUE(receiver_.suspect());
  EXPECT_EQ(receiver_.LookAfter(start + 3 * kSecond, 0), start + 4 * kSecond);
  EXPECT_FALSE(receiver_.connection->closed);
  receiver_.LookAfter(start + 4 * kSecond, 0);
  EXPECT_TRUE(receiver_.connection->closed);
  EXPECT_TRUE(receiver_.lost());
  receiver_.OnClosed(OkStatus());
  EXPECT_EQ(receiver_.end.code(), Code::kPeerLost);
  EXPECT_EQ(receiver_.end.message(), "worker b was silent for 4 s");
}

TEST_F(LinkTest, AHeartbeatIsAnsweredAndCountsAsASignOfLife) {
  const int64_t start = 100 * kSecond;
  End asking(&home_), asked(&home_);
  asking.LookAfter(start, 0);
  asking.LookAfter(start + kSecond, 0);
  ASSERT_EQ(asking.connection->frames.size(), 1u);
  EXPECT_TRUE(asked.Deliver(asking.connection->frames[0]));
  ASSERT_EQ(asked.connection->frames.size(), 1u);
  asking.LookAfter(start + 2 * kSecond, 0);
  EXPECT_TRUE(asking.suspect());
  clock_.now = start + 3 * kSecond;
  EXPECT_TRUE(asking.Deliver(asked.connection->frames[0]));
  EXPECT_TRUE(asking.came.empty() && asked.came.empty());  // they are the link's own business
  asking.LookAfter(start + 3 * kSecond, 0);
  EXPECT_FALSE(asking.suspect());
  asking.LookAfter(start + 6 * kSecond, 0);
  EXPECT_FALSE(asking.connection->closed);
}

TEST_F(LinkTest, SilenceDoesNotCountWhileNobodyWaits) {
  const int64_t start = 100 * kSecond;
  receiver_.LookAfter(start, 0);
  receiver_.LookAfter(start + 2 * kSecond, 0);
  EXPECT_TRUE(receiver_.suspect());
  receiver_.Rest();
  EXPECT_FALSE(receiver_.suspect());
  receiver_.LookAfter(start + 1000 * kSecond, 0);
  EXPECT_FALSE(receiver_.connection->closed);
}

TEST_F(LinkTest, SilenceDoesNotCountWhileWeStoodStill) {
  const int64_t start = 100 * kSecond;
  receiver_.LookAfter(start, 0);
  receiver_.LookAfter(start + 500 * kSecond, /*grace=*/start + 500 * kSecond);
  EXPECT_FALSE(receiver_.connection->closed);
  receiver_.LookAfter(start + 504 * kSecond, /*grace=*/start + 500 * kSecond);
  EXPECT_TRUE(receiver_.connection->closed);
}

TEST_F(LinkTest, AFrameThatIsUnderWayIsNoSilence) {
  const int64_t start = 100 * kSecond;
  clock_.now = start;
  receiver_.LookAfter(start, 0);
  std::vector<Segment> segments(2);
  for (size_t i = 0; i < 3; ++i) receiver_.Deliver(frame(i));
  segments[0].length = 8;
  segments[1].length = 20000;
  ASSERT_TRUE(receiver_.OnDescriptor(frame(3).header, segments).ok());
  receiver_.LookAfter(start + 4 * kSecond, 0);  // 20 KB get 2 ms more
  EXPECT_FALSE(receiver_.connection->closed);
  receiver_.LookAfter(start + 4 * kSecond + kSecond / 100, 0);
  EXPECT_TRUE(receiver_.connection->closed);
}

}  // namespace
}  // namespace gradferry
