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

class End final : public Link {
 public:
  End(const WireLimits* limits, RpcMetrics* metrics) : Link(limits, metrics) {
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

 protected:
  Status OnMessage(DecodedMessage message) override {
    came.emplace_back(MessageName(message.message));
    return OkStatus();
  }
  bool Introduced() const override { return true; }
  std::string PeerName() const override { return "worker b"; }
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
  End sender_{&limits_, &metrics_};
  End receiver_{&limits_, &metrics_};
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
    End receiver(&limits_, &metrics_);
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
  End sender(&limits_, &metrics_);
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

}  // namespace
}  // namespace gradferry
