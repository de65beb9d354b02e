// Proof before memory is read, and what a stranger can say about it.
#include "plugins/tensorpipe/cma.h"

#include <gtest/gtest.h>
#include <tensorpipe/tensorpipe.h>
#include <unistd.h>

#include <random>
#include <string>
#include <vector>

#include "plugins/tensorpipe/control.h"
#include "plugins/tensorpipe/framing.h"
#include "tests/unit/tensorpipe/test_host.h"

namespace gradferry::tp {
namespace {

using testing::Bytes;
using testing::Host;
using testing::Peer;
namespace pipe = ::tensorpipe;

const char kAddress[] = "uv://127.0.0.1:1234";
const Challenge kChallenge = {1, 2, 3};

CmaReader ReaderOf(const CmaRecord& record, int64_t pid = getpid(), const Challenge& challenge = kChallenge,
                   End end = End::kDialling, const std::string& address = kAddress) {
  return CmaReader(pid, record.location(), challenge, end, address);
}

TEST(CmaProof, IsTheChallengeInTheRecordOfTheRightEnd) {
  CmaRecord record(End::kDialling, kAddress);
  EXPECT_FALSE(ReaderOf(record).Test().ok()) << "nothing is written yet";
  record.Write(kChallenge);
  EXPECT_TRUE(ReaderOf(record).Test().ok()) << ReaderOf(record).Test().text;
  EXPECT_FALSE(ReaderOf(record, getpid(), {9}).Test().ok());
  EXPECT_FALSE(ReaderOf(record, getppid()).Test().ok()) << "another process";
  EXPECT_FALSE(ReaderOf(record, 0).Test().ok());
  EXPECT_FALSE(ReaderOf(record, getpid(), {}).Test().ok()) << "no random numbers";
}

// A stranger that has dialled us, and was dialled by (or has dialled) a third, hands our challenge on to that one.
TEST(CmaProof, OfAnotherConnectionIsNone) {
  CmaRecord dials_the_stranger(End::kDialling, "uv://127.0.0.1:6666");
  dials_the_stranger.Write(kChallenge);
  EXPECT_FALSE(ReaderOf(dials_the_stranger).Test().ok());
  CmaRecord dialled_by_the_stranger(End::kListening, kAddress);
  dialled_by_the_stranger.Write(kChallenge);
  EXPECT_FALSE(ReaderOf(dialled_by_the_stranger).Test().ok());
}

TEST(CmaReader, CopiesAndNoticesWhenTheMemoryWasGivenBack) {
  CmaRecord record(End::kDialling, kAddress);
  record.Write(kChallenge);
  const std::string source = "some bytes";
  std::string copy(source.size(), '?');
  const std::vector<uint64_t> from = {reinterpret_cast<uintptr_t>(source.data())};
  const std::vector<gf_transport_segment> to = {{copy.data(), copy.size()}};
  EXPECT_TRUE(ReaderOf(record).Read(from, to).ok());
  EXPECT_EQ(copy, source);
  record.Invalidate();
  EXPECT_FALSE(ReaderOf(record).Read(from, to).ok());
  record.Write(kChallenge);
  EXPECT_FALSE(ReaderOf(record).Read({8}, to).ok()) << "where nothing is mapped";
}

TEST(Control, GoesAndComesBack) {
  Control offer;
  offer.kind = ControlKind::kOffer;
  offer.pid = 77;
  offer.location = 0x123456789abcdef0;
  offer.challenge = kChallenge;
  Control got;
  ASSERT_TRUE(ParseControl(ToMessage(offer).metadata, &got).ok());
  EXPECT_EQ(got.pid, 77);
  EXPECT_EQ(got.location, offer.location);
  EXPECT_EQ(got.challenge, kChallenge);
  Control verdict;
  verdict.kind = ControlKind::kVerdict;
  verdict.reason = std::string("why\nnot") + std::string(1000, 'x');
  ASSERT_TRUE(ParseControl(ToMessage(verdict).metadata, &got).ok());
  EXPECT_EQ(got.reason.substr(0, 8), "why?notx");
  EXPECT_FALSE(got.works);
}

TEST(Control, RefusesWhatIsMalformed) {
  std::mt19937 random(3);
  Control offer;
  offer.kind = ControlKind::kOffer;
  offer.pid = 77;
  const std::string good = ToMessage(offer).metadata;
  Control got;
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(ParseControl(good.substr(0, length), &got).code, GF_DATA_LOSS);
  }
  EXPECT_EQ(ParseControl(good + "x", &got).code, GF_DATA_LOSS);
  offer.pid = -1;
  EXPECT_EQ(ParseControl(ToMessage(offer).metadata, &got).code, GF_DATA_LOSS);
  for (int i = 0; i < 100000; ++i) {
    std::string bytes(random() % 60, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (bytes.size() > 1) bytes[1] = static_cast<char>(random() % 6);
    (void)ParseControl(bytes, &got);
  }
}

// A frame with large segments that are lent.
struct Lending {
  Lending() : memory(2 * kTensorFrom + 100, 'm') {
    segments = {{memory.data(), 5}, {memory.data(), kTensorFrom}, {nullptr, 0}, {memory.data(), kTensorFrom + 1}};
    const gf_transport_frame frame{sizeof(frame), 4, "head", 4, segments.data()};
    status = ToLendingMessage(frame, 42, &message, &lent);
    descriptor.metadata = message.metadata;
  }
  std::string memory;
  std::vector<gf_transport_segment> segments;
  pipe::Message message;
  pipe::Descriptor descriptor;
  bool lent = false;
  Status status;
};

TEST(LendingFrame, NamesItsNumberAndWhereTheLargeSegmentsAre) {
  const Lending lending;
  ASSERT_TRUE(lending.status.ok());
  EXPECT_TRUE(lending.lent);
  EXPECT_TRUE(lending.message.tensors.empty());
  Announcement announcement;
  ASSERT_TRUE(FromDescriptor(lending.descriptor, &announcement).ok());
  EXPECT_TRUE(announcement.lends);
  EXPECT_EQ(announcement.number, 42u);
  EXPECT_EQ(announcement.header, "head");
  const auto at = reinterpret_cast<uintptr_t>(lending.memory.data());
  EXPECT_EQ(announcement.addresses, (std::vector<uint64_t>{at, at}));
  EXPECT_EQ(announcement.segments[3].length, kTensorFrom + 1);
  pipe::Allocation allocation;
  ASSERT_TRUE(ToAllocation(announcement, lending.segments, &allocation).ok());
  EXPECT_TRUE(allocation.tensors.empty());
  const auto lent = LentSegments(announcement, lending.segments);
  ASSERT_EQ(lent.size(), 2u);
  EXPECT_EQ(lent[1].length, kTensorFrom + 1);
}

TEST(LendingFrame, CutAnywhereIsRefusedOrAFrameOfFewerBytes) {
  Lending lending;
  const std::string whole = lending.descriptor.metadata;
  // Header and inline bytes at the end, one byte of which must be left.
  for (size_t length = 1; length + 4 + 5 <= whole.size(); ++length) {
    lending.descriptor.metadata = whole.substr(0, length);
    Announcement announcement;
    EXPECT_EQ(FromDescriptor(lending.descriptor, &announcement).code, GF_DATA_LOSS) << length;
  }
  lending.descriptor.metadata = whole;
  lending.descriptor.metadata[5 + 1 + 4 + 8 + 8 + 2] = 0;  // a length of 0
  Announcement announcement;
  EXPECT_EQ(FromDescriptor(lending.descriptor, &announcement).code, GF_DATA_LOSS);
}

TEST(LendingFrame, WithoutLargeSegmentsIsAnOrdinaryOne) {
  const gf_transport_segment segment{const_cast<char*>("abc"), 3};
  const gf_transport_frame frame{sizeof(frame), 1, "head", 4, &segment};
  pipe::Message message;
  bool lent = true;
  ASSERT_TRUE(ToLendingMessage(frame, 1, &message, &lent).ok());
  EXPECT_FALSE(lent);
  EXPECT_EQ(message.metadata[0], 1);
}

// A stranger that speaks TensorPipe.
class Stranger {
 public:
  explicit Stranger(const std::string& address) {
    context_.registerTransport(0, "uv", pipe::transport::uv::create());
    context_.registerChannel(1000, "basic", pipe::channel::basic::create());
    pipe_ = context_.connect(address.substr(0, address.find('#')));
  }
  ~Stranger() {
    pipe_->close();
    context_.join();
  }
  void Say(pipe::Message message) {
    pipe_->write(std::move(message), [](const pipe::Error&) {});
  }

 private:
  pipe::Context context_;
  std::shared_ptr<pipe::Pipe> pipe_;
};

void ExpectRefused(const std::vector<pipe::Message>& messages) {
  Host server;
  ASSERT_EQ(server.Listen().code, GF_OK);
  Stranger stranger(server.address());
  for (const pipe::Message& message : messages) stranger.Say(message);
  Peer* peer = server.Accepted();
  ASSERT_TRUE(server.WaitClosed(peer));
  EXPECT_EQ(peer->closed_code, GF_DATA_LOSS) << peer->closed_text;
  EXPECT_TRUE(peer->frames.empty());
}

TEST(CmaStranger, LendsNothingBeforeTheProof) { ExpectRefused({Lending().message}); }

TEST(CmaStranger, CannotPutAnotherProcessInThePlaceOfTheTestedOne) {
  Control offer;
  offer.kind = ControlKind::kOffer;
  offer.pid = getpid();
  offer.location = 4096;
  Control other = offer;
  other.pid = 1;
  ExpectRefused({ToMessage(offer), ToMessage(other)});
}

TEST(CmaStranger, IsHeardOnlyInOrder) {
  Control written;
  written.kind = ControlKind::kWritten;
  ExpectRefused({ToMessage(written)});
  pipe::Message malformed;
  malformed.metadata = {static_cast<char>(kControl), 9};
  ExpectRefused({malformed});
}

// Its offer is tested, fails, and what it then lends is not read.
TEST(CmaStranger, WithoutTheChallengeLendsNothing) {
  Control offer;
  offer.kind = ControlKind::kOffer;
  offer.pid = getpid();
  const std::string somewhere(400, 's');
  offer.location = reinterpret_cast<uintptr_t>(somewhere.data());
  Control written;
  written.kind = ControlKind::kWritten;
  ExpectRefused({ToMessage(offer), ToMessage(written), Lending().message});
}

}  // namespace
}  // namespace gradferry::tp
