// What goes when: large frames in chunks and in turns, the others between them; and what the other side makes of that.
#include "impl/rpc/outbox.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "impl/rpc/link.h"

namespace gradferry {
namespace {

// A chunk, which is what the connection has at most, goes in two pieces.
constexpr uint64_t kPiece = 100 * 1024;
constexpr size_t kWindow = 2;

// Keeps what is sent until it is told that the transport has taken it.
class SlowConnection final : public Connection {
 public:
  Status Send(OutFrame frame) override {
    if (refuse) return Status(Code::kInternal, "refused");
    frames.push_back(std::move(frame));
    return OkStatus();
  }
  void Close() override { closed = true; }

  OutFrame Take() {
    OutFrame frame = std::move(frames.front());
    frames.pop_front();
    return frame;
  }

  std::deque<OutFrame> frames;
  bool refuse = false;
  bool closed = false;
};

class Receiver final : public Link {
 public:
  explicit Receiver(const LinkHome* home) : Link(home) {
    connection = std::make_shared<SlowConnection>();
    SetConnection(connection);
  }

  // Without its owner, as if it had been copied: false when it was refused.
  bool Deliver(const OutFrame& frame) {
    std::vector<Segment> segments(frame.segments.size());
    for (size_t i = 0; i < segments.size(); ++i) segments[i].length = frame.segments[i].length;
    if (!OnDescriptor(frame.header, segments).ok()) {
      OnClosed(OkStatus());
      return false;
    }
    for (size_t i = 0; i < segments.size(); ++i) {
      std::memcpy(segments[i].data, frame.segments[i].data, segments[i].length);
    }
    OnFrame(OkStatus());
    if (connection->closed) OnClosed(OkStatus());
    return !connection->closed;
  }

  using Link::SetAccount;

  std::shared_ptr<SlowConnection> connection;
  std::vector<DecodedMessage> came;
  std::vector<std::string> names;
  Status end;
  bool introduced = true;

 protected:
  Status OnMessage(DecodedMessage message) override {
    names.emplace_back(MessageName(message.message));
    came.push_back(std::move(message));
    return OkStatus();
  }
  bool Introduced() const override { return introduced; }
  std::string PeerName() const override { return "worker b"; }
  std::shared_ptr<Link> Self() override { return nullptr; }
  void Closed(Status status) override { end = std::move(status); }
};

class StoppedClock final : public Clock {
 public:
  int64_t Now() const override { return 1; }
  TimerId Schedule(int64_t, std::function<void()>) override { return 1; }
  void Cancel(TimerId) override {}
};

at::Tensor Bytes(uint64_t bytes) { return at::arange(static_cast<int64_t>(bytes), at::kByte); }

class OutboxTest : public ::testing::Test {
 protected:
  OutboxTest() : connection_(std::make_shared<SlowConnection>()) { outbox_->SetConnection(connection_); }

  void Send(const Message& message, uint64_t tag = 0) {
    auto frame = EncodeFrame(message, {}, limits_);
    ASSERT_TRUE(frame.ok());
    ASSERT_TRUE(outbox_->Send(std::move(*frame), tag).ok());
  }
  void SendCall(uint64_t call_id, at::Tensor tensor) {
    Call call;
    call.call_id = call_id;
    call.name = "f";
    call.arguments = {Value(std::move(tensor))};
    Send(call, call_id);
  }
  void SendGradients(uint64_t call_id, at::Tensor tensor) {
    PropagateGradients gradients;
    gradients.call_id = call_id;
    gradients.gradients = {std::move(tensor)};
    Send(gradients, call_id);
  }

  // "Call", "Call in chunks", "chunk of 3", ...: what the transport gets next, and gives to the receiver.
  std::string Next() {
    if (connection_->frames.empty()) return "";
    const OutFrame frame = connection_->Take();
    const auto seal = ReadSeal(frame.header);
    const std::string_view header = std::string_view(frame.header).substr(0, frame.header.size() - kSealBytes);
    std::string what;
    if (IsTensorChunk(header)) {
      auto chunk = (*FrameDecoder::New(header, {}, limits_))->Finish();
      what = StrCat("chunk of ", std::get<TensorChunk>(chunk->message).transfer);
    } else if (seal->in_chunks) {
      what = "announcement";
    } else {
      std::vector<uint64_t> lengths;
      for (const Segment& segment : frame.segments) lengths.push_back(segment.length);
      what = MessageName((*(*FrameDecoder::New(header, lengths, limits_))->Finish()).message);
    }
    receiver_.Deliver(frame);
    return what;
  }
  std::vector<std::string> All() {
    std::vector<std::string> all;
    for (std::string next = Next(); !next.empty(); next = Next()) all.push_back(next);
    return all;
  }

  using Names = std::vector<std::string>;

  WireLimits limits_;
  RpcMetrics metrics_;
  LivenessOptions liveness_;
  StoppedClock clock_;
  const LinkHome home_{&limits_, &metrics_, &liveness_, &clock_, nullptr, nullptr, kWindow* kPiece};
  std::shared_ptr<Outbox> outbox_ =
      std::make_shared<Outbox>(&limits_, &metrics_, std::make_shared<Silence>(), kWindow* kPiece);
  std::shared_ptr<SlowConnection> connection_;
  Receiver receiver_{&home_};
};

TEST_F(OutboxTest, ALargeMessageComesFromItsChunks) {
  // A small tensor in the inline segment, two large ones, and chunks that end within and at the end of segments.
  const std::vector<at::Tensor> tensors = {Bytes(10), Bytes(2 * kPiece - 10), Bytes(kPiece / 2)};
  Call call;
  call.call_id = 7;
  call.name = "f";
  for (const auto& tensor : tensors) call.arguments.emplace_back(tensor);
  Send(call);
  EXPECT_EQ(All(), (Names{"announcement", "chunk of 0", "chunk of 0", "chunk of 0"}));
  ASSERT_EQ(receiver_.names, Names{"Call"});
  const auto& came = std::get<Call>(receiver_.came[0].message);
  EXPECT_EQ(came.call_id, 7u);
  for (size_t i = 0; i < tensors.size(); ++i)
    EXPECT_TRUE(at::equal(*came.arguments[i].get<at::Tensor>(), tensors[i])) << i;
}

TEST_F(OutboxTest, NothingIsCopied) {
  const at::Tensor tensor = Bytes(3 * kPiece);
  SendCall(1, tensor);
  connection_->Take();  // the announcement
  const OutFrame chunk = connection_->Take();
  ASSERT_EQ(chunk.segments.size(), 1u);
  EXPECT_EQ(chunk.segments[0].data, tensor.data_ptr());
  EXPECT_EQ(chunk.segments[0].length, kPiece);
}

TEST_F(OutboxTest, SmallFramesAreNotBehindMoreThanAChunkAndLessWhenThereAreMany) {
  SendCall(1, Bytes(10 * kPiece));
  Send(Cancel{5});
  SendCall(6, Bytes(1000));
  EXPECT_EQ(connection_->frames.size(), 1 + kWindow + 2);
  const Names all = All();
  EXPECT_EQ(Names(all.begin(), all.begin() + 5), (Names{"announcement", "chunk of 0", "chunk of 0", "Cancel", "Call"}));
  // 32 pieces of a sixteenth, and then whole ones again.
  EXPECT_EQ(all.size(), 1 + 2 + 2 + 32 + 6);
  EXPECT_EQ(receiver_.names, (Names{"Cancel", "Call", "Call"}));
  EXPECT_EQ(metrics_.transfers_sent, 1u);
}

TEST_F(OutboxTest, LargeMessagesTakeTurns) {
  SendCall(1, Bytes(4 * kPiece));  // frame 0; two chunks go at once
  SendCall(2, Bytes(2 * kPiece));
  SendCall(3, Bytes(kPiece));  // not more than one chunk: a frame of its own
  EXPECT_EQ(All(), (Names{"announcement", "chunk of 0", "chunk of 0", "chunk of 0", "announcement", "chunk of 4",
                          "Call", "chunk of 0", "chunk of 4"}));
  EXPECT_EQ(receiver_.names, (Names{"Call", "Call", "Call"}));
}

TEST_F(OutboxTest, EveryOtherTurnBelongsToGradients) {
  SendCall(1, Bytes(4 * kPiece));  // frame 0
  SendCall(2, Bytes(4 * kPiece));
  SendGradients(3, Bytes(3 * kPiece));
  const Names all = All();
  EXPECT_EQ(Names(all.begin(), all.begin() + 10),
            (Names{"announcement", "chunk of 0", "chunk of 0", "announcement", "chunk of 3", "chunk of 0", "chunk of 3",
                   "announcement", "chunk of 7", "chunk of 3"}));
  EXPECT_EQ(receiver_.names, (Names{"PropagateGradients", "Call", "Call"}));
}

TEST_F(OutboxTest, WhatIsGivenUpIsNotSent) {
  const at::Tensor begun = Bytes(10 * kPiece), waiting = Bytes(10 * kPiece);
  SendCall(1, begun);
  SendCall(2, waiting);
  EXPECT_TRUE(outbox_->GiveUp(2));
  EXPECT_EQ(waiting.storage().use_count(), 1);
  EXPECT_TRUE(outbox_->GiveUp(1));
  EXPECT_FALSE(outbox_->GiveUp(1));
  EXPECT_FALSE(outbox_->GiveUp(9));
  Send(Cancel{5});
  EXPECT_EQ(All(), (Names{"announcement", "chunk of 0", "chunk of 0", "TransferGivenUp", "Cancel"}));
  EXPECT_EQ(receiver_.names, Names{"Cancel"});
  EXPECT_EQ(begun.storage().use_count(), 1);
  EXPECT_EQ(metrics_.transfers_given_up, 2u);
}

TEST_F(OutboxTest, WhatIsSentInFullCannotBeGivenUp) {
  SendCall(1, Bytes(2 * kPiece));
  EXPECT_FALSE(outbox_->GiveUp(1));
  All();
  EXPECT_EQ(receiver_.names, Names{"Call"});
}

TEST_F(OutboxTest, APeerOfTheFirstVersionGetsMessagesInOneFrame) {
  outbox_->SetVersion(1, /*peer_takes_chunks=*/false);
  SendCall(1, Bytes(10 * kPiece));
  SendCall(2, Bytes(10 * kPiece));
  EXPECT_EQ(FrameVersion(connection_->frames[0].header), 1);
  EXPECT_EQ(connection_->frames.size(), 1u);
  EXPECT_EQ(All(), (Names{"Call", "Call"}));
}

TEST_F(OutboxTest, GoodbyeIsLast) {
  SendCall(1, Bytes(5 * kPiece));
  outbox_->SendLast(*EncodeFrame(Goodbye{"bye"}, {}, limits_));
  Send(Cancel{5});
  All();
  EXPECT_EQ(receiver_.names, (Names{"Cancel", "Call", "Goodbye"}));
}

TEST_F(OutboxTest, AConnectionThatEndsFreesWhatWaits) {
  const at::Tensor tensor = Bytes(10 * kPiece);
  SendCall(1, tensor);
  EXPECT_TRUE(outbox_->Close().ok());
  connection_->frames.clear();
  EXPECT_EQ(tensor.storage().use_count(), 1);
  EXPECT_EQ(outbox_->Send(*EncodeFrame(Cancel{1}, {}, limits_)).code(), Code::kPeerLost);
}

TEST_F(OutboxTest, AChunkThatCannotBeSentEndsTheConnection) {
  SendCall(1, Bytes(10 * kPiece));
  connection_->refuse = true;
  Next();
  Next();
  EXPECT_TRUE(connection_->closed);
  EXPECT_EQ(outbox_->Close().code(), Code::kInternal);
}

// ---- The other side ----

class ChunkTest : public OutboxTest {
 protected:
  ChunkTest() { limits_.checksum_segments = true; }
  void ExpectRefused(Code code, const std::string& text) {
    EXPECT_EQ(receiver_.end.code(), code);
    EXPECT_NE(receiver_.end.message().find(text), std::string::npos) << receiver_.end.message();
    EXPECT_TRUE(receiver_.names.empty());
  }
  // A frame of its own making, sealed as the n-th.
  static OutFrame Sealed(EncodedFrame encoded, uint64_t number, bool in_chunks = false) {
    OutFrame frame;
    AppendSeal(encoded.header, {number, std::nullopt, in_chunks});
    frame.header = std::move(encoded.header);
    for (const auto& segment : encoded.segments) frame.segments.push_back({segment.data, segment.length});
    frame.owner = std::move(encoded.owner);
    return frame;
  }
  OutFrame Chunk(uint64_t transfer, uint64_t bytes, uint64_t number) {
    auto frame = *EncodeFrame(TensorChunk{transfer}, {}, limits_);
    frame.segments = {{memory_.data(), bytes}};
    return Sealed(std::move(frame), number);
  }

  std::vector<char> memory_ = std::vector<char>(4 * kPiece);
};

TEST_F(ChunkTest, ADoubledChunkIsDropped) {
  const at::Tensor tensor = Bytes(3 * kPiece);
  SendCall(1, tensor);
  while (!connection_->frames.empty()) {
    const OutFrame frame = connection_->Take();
    EXPECT_TRUE(receiver_.Deliver(frame));
    EXPECT_TRUE(receiver_.Deliver(frame));
  }
  ASSERT_EQ(receiver_.names, Names{"Call"});
  EXPECT_TRUE(at::equal(*std::get<Call>(receiver_.came[0].message).arguments[0].get<at::Tensor>(), tensor));
  EXPECT_EQ(metrics_.frames_duplicate, 4u);
}

TEST_F(ChunkTest, ADamagedChunkIsSeen) {
  at::Tensor tensor = Bytes(3 * kPiece);
  SendCall(1, tensor);
  EXPECT_TRUE(receiver_.Deliver(connection_->Take()));
  OutFrame chunk = connection_->Take();
  static_cast<char*>(chunk.segments[0].data)[kPiece - 1] ^= 1;
  EXPECT_FALSE(receiver_.Deliver(chunk));
  ExpectRefused(Code::kDataLoss, "the tensors of frame 1 of the connection from worker b are damaged");
}

TEST_F(ChunkTest, AMissingChunkIsNamed) {
  SendCall(1, Bytes(3 * kPiece));
  EXPECT_TRUE(receiver_.Deliver(connection_->Take()));
  connection_->Take();
  EXPECT_FALSE(receiver_.Deliver(connection_->Take()));
  ExpectRefused(Code::kDataLoss, "frame 1 of the connection from worker b is missing: frame 2 came");
}

TEST_F(ChunkTest, AChunkOfNothingIsRefused) {
  EXPECT_FALSE(receiver_.Deliver(Chunk(3, 10, 0)));
  ExpectRefused(Code::kDataLoss, "nothing was announced by frame 3");
}

TEST_F(ChunkTest, AChunkLongerThanItsMessageIsRefused) {
  SendCall(1, Bytes(2 * kPiece));
  EXPECT_TRUE(receiver_.Deliver(connection_->Take()));
  EXPECT_FALSE(receiver_.Deliver(Chunk(0, 2 * kPiece + 1, 1)));
  ExpectRefused(Code::kDataLoss, "TensorChunk: a slice of ");
}

TEST_F(ChunkTest, AnEmptyChunkIsRefused) {
  SendCall(1, Bytes(2 * kPiece));
  EXPECT_TRUE(receiver_.Deliver(connection_->Take()));
  EXPECT_FALSE(receiver_.Deliver(Chunk(0, 0, 1)));
  ExpectRefused(Code::kDataLoss, "TensorChunk");
}

TEST_F(ChunkTest, WhatWasNotAnnouncedCannotBeGivenUp) {
  EXPECT_FALSE(receiver_.Deliver(Sealed(*EncodeFrame(TransferGivenUp{0}, {}, limits_), 0)));
  ExpectRefused(Code::kDataLoss, "nothing was announced by frame 0");
}

TEST_F(ChunkTest, AMessageWithoutTensorsDoesNotComeInChunks) {
  EXPECT_FALSE(receiver_.Deliver(Sealed(*EncodeFrame(Cancel{0}, {}, limits_), 0, /*in_chunks=*/true)));
  ExpectRefused(Code::kDataLoss, "Cancel: it has no tensors that could come in chunks");
}

TEST_F(ChunkTest, AnAnnouncementBeyondTheLimitIsRefused) {
  SendCall(1, Bytes(3 * kPiece));
  limits_.message_bytes = 3 * kPiece;
  EXPECT_FALSE(receiver_.Deliver(connection_->Take()));
  ExpectRefused(Code::kResourceExhausted, "limits.message_bytes");
}

TEST_F(ChunkTest, WhatOnePeerMakesUsHoldHasALimit) {
  const auto account = std::make_shared<MemoryAccount>(4 * kPiece);
  receiver_.SetAccount(account);
  SendCall(1, Bytes(3 * kPiece));
  EXPECT_TRUE(receiver_.Deliver(connection_->Take()));
  EXPECT_GT(account->used(), 3 * kPiece);  // as soon as it is announced
  All();
  ASSERT_EQ(receiver_.names, Names{"Call"});
  EXPECT_GT(account->used(), 3 * kPiece);  // and until the message is gone
  receiver_.came.clear();
  receiver_.names.clear();
  EXPECT_EQ(account->used(), 0u);
  SendCall(2, Bytes(3 * kPiece));
  SendCall(3, Bytes(2 * kPiece));
  while (receiver_.end.ok() && !connection_->frames.empty()) receiver_.Deliver(connection_->Take());
  EXPECT_EQ(receiver_.end.code(), Code::kResourceExhausted);
  EXPECT_NE(receiver_.end.message().find("limits.memory_per_peer (409600): a message of "), std::string::npos)
      << receiver_.end.message();
  EXPECT_EQ(receiver_.names, Names{"Call"}) << "the first of them, which is held";
  receiver_.came.clear();
  EXPECT_EQ(account->used(), 0u);
}

TEST_F(ChunkTest, AStrangerCannotAnnounceAnything) {
  SendCall(1, Bytes(3 * kPiece));
  receiver_.introduced = false;
  EXPECT_FALSE(receiver_.Deliver(connection_->Take()));
  ExpectRefused(Code::kUnauthenticated, "before it introduced itself");
}

}  // namespace
}  // namespace gradferry
