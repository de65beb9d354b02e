// Frames as Thrift messages: what is written is read again, however the bytes are cut; what is wrong is refused before
// anybody is asked for memory.
#include <random>
#include <string>
#include <vector>

#include "tests/unit/thrift/frame_testing.h"

namespace gradferry::thrift::testing {
namespace {

std::vector<Frame> SomeFrames() {
  std::vector<Frame> frames = {{"h", {}}, {"header", {""}}, {"header", {"", "x", ""}}};
  frames.push_back({Bytes(300, 1), {Bytes(256, 2)}});
  frames.push_back({Bytes(100 * 1000, 3), {Bytes(70 * 1000, 4), Bytes(3, 5), Bytes(20 * 1000, 6)}});
  frames.push_back({"many", {}});
  for (size_t i = 0; i < 300; ++i) frames.back().segments.push_back(Bytes(i % 7 == 0 ? 0 : i * 3, i));
  for (size_t i = 0; i < 50; ++i) frames.push_back({"small", {Bytes(i, i)}});
  frames.push_back({"last", {Bytes(1000 * 1000, 7), Bytes(1, 8)}});
  return frames;
}

std::string All(const std::vector<Frame>& frames) {
  std::string bytes;
  for (const Frame& frame : frames) bytes += Encoded(frame);
  return bytes;
}

TEST(Frame, IsReadAgainHoweverItIsCut) {
  const std::vector<Frame> frames = SomeFrames();
  const std::string bytes = All(frames);
  for (const size_t most :
       {size_t{1}, size_t{2}, size_t{3}, size_t{5}, size_t{29}, size_t{1000}, size_t{65536}, ~size_t{0}}) {
    Reading reading;
    const Status status = reading.Feed(bytes, [&] { return most; });
    ASSERT_TRUE(status.ok()) << status.text;
    ASSERT_EQ(reading.frames().size(), frames.size()) << most;
    for (size_t i = 0; i < frames.size(); ++i) EXPECT_TRUE(reading.frames()[i] == frames[i]) << most << " " << i;
    EXPECT_FALSE(reading.reader().in_message());
  }
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    Reading reading;
    const Status status = reading.Feed(bytes, [&] { return random() % (seed % 2 == 0 ? 20 : 5000) + 1; });
    ASSERT_TRUE(status.ok()) << status.text;
    EXPECT_TRUE(reading.frames() == frames) << "seed " << seed;
  }
}

TEST(Frame, HasItsTensorsCopiedOnlyWhereTheyCameWithTheReadAhead) {
  const Frame large{Bytes(200, 1), {Bytes(1024 * 1024, 2)}};
  Reading reading;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(reading.Feed(Encoded(large)).ok());
  EXPECT_LT(reading.reader().copied(), 20u * 1024 * 1024 / 200);
}

TEST(Frame, IsRefusedWhenTheHostBreaksALimit) {
  char byte = 0;
  gf_transport_segment segment{&byte, 1};
  gf_transport_frame frame{};
  frame.struct_size = sizeof(frame);
  frame.header = &byte;
  frame.header_length = 1;
  frame.segments = &segment;
  frame.segment_count = 1;
  EXPECT_EQ(CheckFrame(frame).code, GF_OK);
  frame.header_length = 0;
  EXPECT_EQ(CheckFrame(frame).code, GF_INVALID_ARGUMENT);
  frame.header_length = kMaxHeader + 1;
  EXPECT_EQ(CheckFrame(frame).code, GF_OUT_OF_RANGE);
  frame.header_length = 1;
  frame.segment_count = kMaxSegments + 1;
  EXPECT_EQ(CheckFrame(frame).code, GF_OUT_OF_RANGE);
  frame.segment_count = 1;
  for (const uint64_t length : {uint64_t{1} << 31, (uint64_t{1} << 31) - 20, uint64_t{1} << 62, ~uint64_t{0}}) {
    segment.length = length;
    EXPECT_EQ(CheckFrame(frame).code, GF_OUT_OF_RANGE) << length;
    EXPECT_NE(CheckFrame(frame).text.find("2^31 - 1"), std::string::npos) << CheckFrame(frame).text;
  }
  std::vector<gf_transport_segment> many(1000, {&byte, uint64_t{1} << 30});
  frame.segments = many.data();
  frame.segment_count = 1000;
  EXPECT_EQ(CheckFrame(frame).code, GF_OUT_OF_RANGE);
  segment = {nullptr, 1};
  frame.segments = &segment;
  frame.segment_count = 1;
  EXPECT_EQ(CheckFrame(frame).code, GF_INVALID_ARGUMENT);
}

// Changes bytes of a good frame, and expects a refusal that says what, without memory being asked for.
struct Lie {
  size_t offset;
  std::string bytes;
  std::string named;
};

TEST(Frame, WithALieIsRefusedAndNothingIsAskedFor) {
  const Frame frame{"0123456789", {Bytes(100, 1), Bytes(50, 2)}};
  const std::string good = Encoded(frame);
  const size_t list = kPrefixSize + 10, segments = list + kListHeaderSize + 16;
  using namespace std::string_literals;
  const std::vector<Lie> lies = {
      {0, "\x7f\xff\xff\xff"s, "its parts make"},                      // 2^31 - 1 bytes
      {0, "\x80\x00\x00\x00"s, "negative"},                            //
      {0, "\x00\x00\x00\x05"s, "shorter than its own beginning"},      //
      {0, "\x00\x00\x00\x20"s, "too short"},                           //
      {0, "\x00\x00\x00\x30"s, "longer than the frame"},               //
      {4, "\x80\x02\x00\x04"s, "no Thrift message"},                   // another version
      {4, "\x00\x00\x00\x05"s, "no Thrift message"},                   // the old encoding, without one
      {7, "\x01"s, "no frame"},                                        // a call
      {12, "grame"s, "no frame"},                                      //
      {21, "\x0C"s, "begin with its header"},                          // a struct
      {24, "\x00\x00\x00\x00"s, "0 bytes"},                            //
      {24, "\x7f\xff\xff\xff"s, "2147483647 bytes"},                   //
      {24, "\xff\xff\xff\xff"s, "4294967295 bytes"},                   //
      {24, "\x00\x00\x00\xff"s, "longer than the frame"},              //
      {list, "\x0C"s, "lengths of its segments"},                      //
      {list + 3, "\x0C"s, "lengths of its segments"},                  // a list of structs
      {list + 4, "\x00\x0F\x42\x40"s, "1000000 segments"},             //
      {list + 4, "\xff\xff\xff\xff"s, "4294967295 segments"},          //
      {list + 4, "\x00\x00\x10\x00"s, "more segments than bytes"},     //
      {list + 8, "\x40"s, "longer than the frame"},                    // 2^62
      {list + 8, "\xff\xff\xff\xff\xff\xff\xff\x9c"s, "longer than"},  // -100
      {list + 15, "\x63"s, "its parts make"},                          // 99
      {segments, "\x0E"s, "do not follow"},                            //
      {segments + 4, "\x00\x00\x00\x03"s, "not as many"},              //
  };
  for (const Lie& lie : lies) {
    std::string bad = good;
    bad.replace(lie.offset, lie.bytes.size(), lie.bytes);
    for (const size_t most : {size_t{1}, ~size_t{0}}) {
      Reading reading;
      const Status status = reading.Feed(bad + std::string(10000, '\0'), [&] { return most; });
      EXPECT_NE(status.code, GF_OK) << lie.offset << " " << lie.named;
      EXPECT_NE(status.text.find(lie.named), std::string::npos) << lie.offset << ": " << status.text;
      EXPECT_EQ(reading.most_asked(), 0u);
      EXPECT_LE(reading.room(), 64u * 1024);
    }
  }
}

TEST(Frame, WithALieBehindItsLengthsIsRefused) {
  const Frame frame{"0123456789", {Bytes(100, 1), Bytes(50, 2)}};
  const size_t first = kPrefixSize + 10 + 2 * kListHeaderSize + 16;
  for (const size_t offset : {first, first + 3, first + 4 + 100}) {
    for (const size_t most : {size_t{1}, size_t{7}, ~size_t{0}}) {
      std::string bad = Encoded(frame);
      bad[offset] = static_cast<char>(bad[offset] ^ 1);
      Reading reading;
      const Status status = reading.Feed(bad, [&] { return most; });
      EXPECT_EQ(status.code, GF_DATA_LOSS);
      EXPECT_NE(status.text.find("another length"), std::string::npos) << status.text;
    }
  }
  std::string bad = Encoded(frame);
  bad.back() = '\x0F';
  Reading reading;
  EXPECT_NE(reading.Feed(bad).text.find("does not end"), std::string::npos);
  EXPECT_TRUE(reading.reader().in_frame());
}

TEST(Frame, OfRandomBytesIsRefused) {
  for (unsigned seed = 0; seed < 20000; ++seed) {
    std::mt19937 random(seed);
    std::string bytes = Encoded({"header", {Bytes(30, seed), "", Bytes(5, seed)}});
    // Sometimes all of them, sometimes a few.
    if (seed % 4 == 0) bytes = Bytes(200, seed);
    for (unsigned i = random() % 4; i > 0; --i) bytes[random() % bytes.size()] = static_cast<char>(random());
    Reading reading;
    reading.max_message = 1000;
    (void)reading.Feed(bytes, [&] { return random() % 50 + 1; });
    EXPECT_LE(reading.most_asked(), bytes.size());
    EXPECT_LE(reading.room(), 64u * 1024);
  }
}

TEST(Frame, IsToldFromOtherMessages) {
  using namespace std::string_literals;
  const std::string call = "\x00\x00\x00\x12\x80\x01\x00\x01\x00\x00\x00\x05hello\x00\x00\x00\x07\x00"s;
  Reading reading;
  reading.max_message = 100;
  ASSERT_TRUE(reading.Feed(call + Encoded({"h", {"s"}}) + call, [] { return size_t{3}; }).ok());
  EXPECT_EQ(reading.messages, (std::vector<std::string>{call.substr(4), call.substr(4)}));
  EXPECT_EQ(reading.frames().size(), 1u);
  Reading strict;
  strict.max_message = 21;
  EXPECT_EQ(strict.Feed(call).code, GF_RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace gradferry::thrift::testing
