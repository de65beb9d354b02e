// Frames that are not what they should be: each is refused, with an error that says what and where.
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cstring>

#include "impl/wire/codec.h"
#include "tests/unit/wire/wire_testing.h"

namespace gradferry {
namespace {

// Headers written by hand.
class HeaderBytes {
 public:
  explicit HeaderBytes(uint8_t kind) { Raw("GF").U16(1).U8(kind); }
  HeaderBytes& Raw(std::string_view bytes) { return writer_.Raw(bytes), *this; }
  HeaderBytes& U8(int v) { return writer_.Number(static_cast<uint8_t>(v)), *this; }
  HeaderBytes& U16(int v) { return writer_.Number(static_cast<uint16_t>(v)), *this; }
  HeaderBytes& U32(uint32_t v) { return writer_.Number(v), *this; }
  HeaderBytes& I64(int64_t v) { return writer_.Number(v), *this; }
  HeaderBytes& Str(std::string_view v) { return U32(static_cast<uint32_t>(v.size())).Raw(v); }
  std::string Done() { return writer_.Take(); }

 private:
  Writer writer_{1 << 20};
};

// A Call up to its arguments' count.
HeaderBytes CallHeader(uint32_t arguments, int target = 0, int record = 1) {
  return HeaderBytes(4).I64(1).I64(2).U8(target).U8(record).Str("f").Str("").U32(arguments);
}

Status Refusal(const std::string& header, const std::vector<std::string>& segments = {},
               const WireLimits& limits = {}) {
  return Decode(header, segments, limits).status();
}

#define EXPECT_REFUSED(header, text)            \
  do {                                          \
    const Status refusal = Refusal(header);     \
    EXPECT_EQ(refusal.code(), Code::kDataLoss); \
    EXPECT_EQ(refusal.message(), text);         \
  } while (false)

TEST(RefusalTest, HandWrittenCallIsUnderstood) {
  EXPECT_TRUE(Refusal(CallHeader(0).Done()).ok());
  EXPECT_TRUE(Refusal(CallHeader(1).U8(1).U8(1).Done()).ok());
}

TEST(RefusalTest, PrefixOfAFrame) {
  EXPECT_REFUSED("", "frame: this is no Gradferry frame: its magic is missing");
  EXPECT_REFUSED("HTTP/1.1", "frame: this is no Gradferry frame: its magic is missing");
  EXPECT_REFUSED(std::string("GF\x01", 3), "frame.version: 2 bytes expected, the header has 1 left");
  EXPECT_REFUSED(std::string("GF\x01\0", 4), "frame.kind: 1 bytes expected, the header has 0 left");
  EXPECT_REFUSED(HeaderBytes(0).Done(), "frame.kind: unknown kind 0");
  EXPECT_REFUSED(HeaderBytes(100).Done(), "frame.kind: unknown kind 100");
  EXPECT_REFUSED(HeaderBytes(255).Done(), "frame.kind: unknown kind 255");
  const Status version = Refusal(std::string("GF\x03\0\x06", 5));
  EXPECT_EQ(version.code(), Code::kUnsupported);
  EXPECT_EQ(version.message(), "frame.version: protocol version 3; this worker speaks 1 to 2");
}

TEST(RefusalTest, FieldsOutOfRange) {
  EXPECT_REFUSED(CallHeader(0, 2).Done(), "Call.target: unknown value 2");
  EXPECT_REFUSED(CallHeader(0, 0, 2).Done(), "Call.record: 2 is no bool (0 or 1)");
  EXPECT_REFUSED(CallHeader(0).U8(0).Done(), "Call: 1 bytes after the end of the message");
  EXPECT_REFUSED(HeaderBytes(4).I64(1).I64(2).U8(0).U8(0).Str("\xC3").Done(), "Call.name: a string that is not UTF-8");
  EXPECT_REFUSED(HeaderBytes(9).I64(1).U16(32768).I64(1).Done(),
                 "MarkFinished.pass.initiator: 32768 is no worker id (0 to 32767)");
  EXPECT_REFUSED(HeaderBytes(6).U32(1).Done(), "Cancel.call_id: 8 bytes expected, the header has 4 left");
}

TEST(RefusalTest, CountsAndLengthsBeyondTheHeader) {
  EXPECT_REFUSED(CallHeader(3).U8(0).U8(0).Done(),
                 "Call.arguments.count: 3 elements cannot be in the 2 bytes that are left");
  EXPECT_REFUSED(CallHeader(UINT32_MAX).Done(),
                 "Call.arguments.count: 4294967295 elements cannot be in the 0 bytes that are left");
  EXPECT_REFUSED(CallHeader(1).U8(5).U32(4).Raw("abc").Done(),
                 "Call.arguments[0].bytes: 4 bytes expected, the header has 3 left");
  EXPECT_REFUSED(CallHeader(1).U8(4).U32(UINT32_MAX).Done(),
                 "Call.arguments[0].bytes: 4294967295 bytes expected, the header has 0 left");
  EXPECT_REFUSED(HeaderBytes(3).U32(10).Raw("x").Done(),
                 "Goodbye.reason.bytes: 10 bytes expected, the header has 1 left");
  EXPECT_REFUSED(
      HeaderBytes(8).I64(1).I64(1).U16(1).I64(1).U16(1).I64(1).U8(0).U8(0).U32(2).I64(1).I64(1).U32(0).U8(0).Done(),
      "MarkSendFunctions: 1 bytes after the end of the message");
  EXPECT_REFUSED(HeaderBytes(8).I64(1).I64(1).U16(1).I64(1).U16(1).I64(1).U8(0).U8(0).U32(2).I64(1).U32(1).Done(),
                 "MarkSendFunctions.message_ids.count: 2 elements cannot be in the 12 bytes that are left");
  EXPECT_REFUSED(HeaderBytes(13).I64(1).U8(0).U32(2).U16(1).U8(1).Done(),
                 "Ack.waiting.count: 2 elements cannot be in the 3 bytes that are left");
}

TEST(RefusalTest, Values) {
  EXPECT_REFUSED(CallHeader(1).U8(8).Done(), "Call.arguments[0]: unknown kind of value 8");
  EXPECT_REFUSED(CallHeader(2).U8(0).U8(99).Done(), "Call.arguments[1]: unknown kind of value 99");
  EXPECT_REFUSED(CallHeader(1).U8(1).U8(255).Done(), "Call.arguments[0].bool: 255 is no bool (0 or 1)");
  EXPECT_REFUSED(CallHeader(1).U8(7).U32(2).U8(0).U8(9).Done(), "Call.arguments[0][1]: unknown kind of value 9");
  EXPECT_REFUSED(CallHeader(1).U8(4).Str("\xff").Done(), "Call.arguments[0]: a string that is not UTF-8");
}

TEST(RefusalTest, DeepNestingEndsAtTheLimit) {
  HeaderBytes header = CallHeader(1);
  for (int i = 0; i < 100000; ++i) header.U8(7).U32(1);
  const Status refusal = Refusal(header.Done());
  EXPECT_EQ(refusal.code(), Code::kResourceExhausted);
  EXPECT_NE(refusal.message().find("17 levels of lists, more than limits.nesting (16)"), std::string::npos);
}

TEST(RefusalTest, ErrorChains) {
  const auto link = [](HeaderBytes bytes, int code, int retry, int64_t elapsed) {
    bytes.U32(static_cast<uint32_t>(code)).U8(retry).I64(elapsed);
    for (int i = 0; i < 6; ++i) bytes.Str("x");
    return bytes;
  };
  const HeaderBytes one = HeaderBytes(5).I64(1).U8(1);
  EXPECT_TRUE(Refusal(link(one, 3, 2, 0).Done()).ok());
  EXPECT_REFUSED(link(one, 0, 0, 0).Done(), "Reply.status[0].code: OK within an error");
  EXPECT_REFUSED(link(one, 3, 3, 0).Done(), "Reply.status[0].retry: unknown value 3");
  EXPECT_REFUSED(link(one, 3, 0, -1).Done(), "Reply.status[0].elapsed: a negative time");
  // An error has no list of results.
  EXPECT_REFUSED(link(one, 3, 0, 0).U32(0).Done(), "Reply: 4 bytes after the end of the message");
  EXPECT_REFUSED(link(HeaderBytes(5).I64(1).U8(2), 3, 0, 0).Done(),
                 "Reply.status[1].code: 4 bytes expected, the header has 0 left");
  HeaderBytes long_text = HeaderBytes(3);
  const Status refusal = Refusal(long_text.Str(std::string(65537, 'a')).Done());
  EXPECT_EQ(refusal.code(), Code::kResourceExhausted);
  EXPECT_EQ(refusal.message(), "Goodbye.reason: 65537 bytes, more than the limit of a text (65536)");
}

TEST(RefusalTest, WrappersWrapCallsAndRepliesOnly) {
  for (int kind = 0; kind < 256; ++kind) {
    if (kind == 4 || kind == 5) continue;
    EXPECT_REFUSED(HeaderBytes(7).I64(1).I64(2).U8(kind).I64(1).I64(2).U8(4).Done(),
                   StrCat("RpcWithAutograd.wrapped: kind ", kind, " cannot be wrapped"));
  }
}

TEST(RefusalTest, ProfilesAreTreesInOrder) {
  const auto profile = [](uint32_t count) { return HeaderBytes(17).U32(0).I64(0).U32(count); };
  const auto event = [](HeaderBytes bytes, int kind, uint32_t parent, int64_t start, int64_t end) {
    return bytes.Str("x").U8(kind).U16(1).U32(2).U32(parent).I64(start).I64(end);
  };
  const auto wrapped = [](HeaderBytes bytes) { return bytes.U8(5).I64(1).U8(0).U32(0).Done(); };
  EXPECT_TRUE(Refusal(wrapped(event(event(profile(2), 1, kNoEvent, 0, 9), 3, 0, 1, 2))).ok());
  EXPECT_REFUSED(wrapped(event(profile(1), 1, 0, 0, 9)),
                 "RpcWithProfiling.profile.events[0].parent: 0 is no event before this one");
  EXPECT_REFUSED(wrapped(event(event(profile(2), 1, kNoEvent, 0, 9), 3, 1, 1, 2)),
                 "RpcWithProfiling.profile.events[1].parent: 1 is no event before this one");
  EXPECT_REFUSED(wrapped(event(profile(1), 4, kNoEvent, 0, 9)),
                 "RpcWithProfiling.profile.events[0].kind: unknown value 4");
  EXPECT_REFUSED(wrapped(event(profile(1), 1, kNoEvent, 5, 4)),
                 "RpcWithProfiling.profile.events[0].end: an event from 5 to 4 ns");
  EXPECT_REFUSED(wrapped(event(profile(1), 1, kNoEvent, 0, INT64_MAX)),
                 StrCat("RpcWithProfiling.profile.events[0].end: an event from 0 to ", INT64_MAX, " ns"));
  EXPECT_REFUSED(HeaderBytes(17).U32(0).I64(0).U32(0).U8(17).Done(),
                 "RpcWithProfiling.wrapped: kind 17 cannot be wrapped");
  std::string many = std::string(31 * 10001, '\0');
  const Status refusal = Refusal(profile(10001).Raw(many).Done());
  EXPECT_EQ(refusal.code(), Code::kResourceExhausted);
  EXPECT_EQ(refusal.message(),
            "RpcWithProfiling.profile.events: 10001 events, more than limits.profile_events (10000)");
}

// ---- Tensors ----

HeaderBytes TensorHeader(int form, int flags, int dtype, const std::vector<int64_t>& sizes) {
  HeaderBytes bytes = CallHeader(1).U8(6).U8(form).U8(flags).U8(dtype).U8(static_cast<int>(sizes.size()));
  for (const int64_t size : sizes) bytes.I64(size);
  return bytes;
}

TEST(RefusalTest, DescriptionsOfTensors) {
  EXPECT_REFUSED(CallHeader(1).U8(6).U8(3).Done(), "Call.arguments[0].form: unknown value 3");
  EXPECT_REFUSED(TensorHeader(1, 0x10, 6, {0}).Done(), "Call.arguments[0].flags: unknown flags 16");
  EXPECT_REFUSED(TensorHeader(1, 8, 6, {0}).Done(), "Call.arguments[0].flags: unknown flags 8");
  EXPECT_REFUSED(TensorHeader(2, 6, 6, {0}).U8(1).I64(0).Done(), "Call.arguments[0].flags: unknown flags 6");
  EXPECT_REFUSED(TensorHeader(1, 1, 4, {0}).Done(),
                 "Call.arguments[0].flags: only a floating point or complex tensor can require grad");
  EXPECT_REFUSED(CallHeader(1).U8(6).U8(1).U8(0).U8(6).U8(65).Done(), "Call.arguments[0].dims: 65, more than 64");
  EXPECT_REFUSED(TensorHeader(1, 2, 6, {}).Done(), "Call.arguments[0].order: a tensor without dimensions has no order");
  EXPECT_REFUSED(TensorHeader(1, 4, 6, {3}).I64(0).Done(), "Call.arguments[0].expanded: the mask is empty");
  EXPECT_REFUSED(TensorHeader(1, 2, 6, {2, 3}).U8(0).U8(1).Done(),
                 "Call.arguments[0].order: row-major, which is not written");
  EXPECT_REFUSED(TensorHeader(1, 6, 6, {2, 3, 4}).U8(1).U8(2).U8(0).I64(1).Done(),
                 "Call.arguments[0].order: row-major, which is not written");
  EXPECT_REFUSED(TensorHeader(1, 6, 6, {2, 3, 4}).U8(2).U8(0).U8(1).I64(1).Done(),
                 "Call.arguments[0].order: expanded dimensions come last, in ascending order");
  EXPECT_REFUSED(TensorHeader(1, 2, 6, {0, 3}).U8(1).U8(0).Done(),
                 "Call.arguments[0]: order or expanded dimensions of a tensor without elements");
  for (const int dtype : {8, 12, 13, 14, 16, 255}) {
    const Status refusal = Refusal(TensorHeader(1, 0, dtype, {0}).Done());
    EXPECT_EQ(refusal.code(), Code::kDataLoss);
    EXPECT_EQ(refusal.message().substr(0, 24), "Call.arguments[0].dtype:");
  }
  const int64_t huge = int64_t{1} << 62;
  for (const auto& sizes : std::vector<std::vector<int64_t>>{{-1}, {huge, huge}, {huge}, {0, -5}}) {
    const Status refusal = Refusal(TensorHeader(1, 0, 6, sizes).Done());
    EXPECT_EQ(refusal.code(), Code::kDataLoss);
    EXPECT_EQ(refusal.message().substr(0, 19), "Call.arguments[0]: ");
  }
  EXPECT_EQ(Refusal(TensorHeader(2, 0, 6, {3}).U8(2).I64(1).Done()).code(), Code::kDataLoss);
  EXPECT_EQ(Refusal(TensorHeader(2, 0, 6, {3}).U8(1).I64(-1).Done()).code(), Code::kDataLoss);
}

TEST(RefusalTest, ASizeThatIsNotThereIsNotAllocated) {
  // 2^40 bytes are announced and, by the descriptor, expected: more than the limit.
  const std::string header = TensorHeader(1, 0, 6, {int64_t{1} << 38}).Done();
  const auto refused = FrameDecoder::New(header, {uint64_t{1} << 40}, {});
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted);
  const auto overflow = FrameDecoder::New(header, {UINT64_MAX, UINT64_MAX, 5}, {});
  EXPECT_EQ(overflow.status().code(), Code::kResourceExhausted);
  // Expanded, that is four bytes.
  EXPECT_TRUE(Refusal(TensorHeader(1, 4, 6, {int64_t{1} << 38}).I64(1).Done(), {"four"}).ok());
}

TEST(RefusalTest, SparseIndicesAreChecked) {
  const at::Tensor sparse = at::sparse_coo_tensor(at::tensor({0, 2}, at::kLong).reshape({1, 2}), at::ones({2}), {3});
  Frame frame = MustEncode(Reply{1, OkStatus(), {Value(sparse)}});
  EXPECT_TRUE(Decode(frame).ok());
  const int64_t bad = 3;
  std::memcpy(&frame.segments[0][8], &bad, 8);
  const Status refusal = Decode(frame).status();
  EXPECT_EQ(refusal.code(), Code::kDataLoss);
  EXPECT_EQ(refusal.message().substr(0, 16), "Reply: tensor 0:");
}

// ---- Segments ----

TEST(RefusalTest, SegmentsOtherThanTheTensorsNeed) {
  const at::Tensor small = at::ones({3}), large = at::ones({5000});
  const Frame frame = MustEncode(Reply{1, OkStatus(), {Value(small), Value(large), Value(small), Value(large)}});
  ASSERT_EQ(frame.segments.size(), 3u);
  const auto refusal = [&](const std::vector<uint64_t>& lengths) {
    return FrameDecoder::New(frame.header, lengths, {}).status();
  };
  EXPECT_TRUE(refusal({76, 20000, 20000}).ok());
  for (const auto& lengths : std::vector<std::vector<uint64_t>>{{},
                                                                {76},
                                                                {76, 20000},
                                                                {20000, 20000},
                                                                {76, 20000, 20000, 0},
                                                                {76, 20000, 20000, 76},
                                                                {0, 76, 20000, 20000},
                                                                {75, 20000, 20000},
                                                                {77, 20000, 20000},
                                                                {128, 20000, 20000},
                                                                {76, 19999, 20001},
                                                                {76, 20001, 19999},
                                                                {76, 40000, 0},
                                                                {20000, 76, 20000},
                                                                {76, 20000, 20001},
                                                                {76, 20000, 0}}) {
    EXPECT_EQ(refusal(lengths).code(), Code::kDataLoss) << lengths.size();
    EXPECT_EQ(refusal(lengths).message().substr(0, 7), "Reply: ");
  }
  EXPECT_EQ(refusal({76, 20001, 20000}).message(), "Reply: segment 1 has 20001 bytes, the tensors need 20000");
  EXPECT_EQ(refusal({76}).message(), "Reply: 1 segments came, the tensors need 3");
}

TEST(RefusalTest, SegmentsOfMessagesThatHaveNone) {
  for (const Message& message : SampleMessages()) {
    Frame frame = MustEncode(message);
    frame.segments.emplace_back("");
    EXPECT_EQ(Decode(frame).status().code(), Code::kDataLoss) << MessageName(message);
    frame.segments.back() = "x";
    EXPECT_EQ(Decode(frame).status().code(), Code::kDataLoss) << MessageName(message);
  }
}

TEST(RefusalTest, BytesBetweenInlineTensorsMustBeZero) {
  Frame frame = MustEncode(Reply{1, OkStatus(), {Value(at::ones({3})), Value(at::ones({3}))}});
  for (size_t i = 12; i < 64; ++i) {
    frame.segments[0][i] = 1;
    EXPECT_EQ(Decode(frame).status().message(),
              "Reply: bytes between the tensors of the inline segment that are not zero");
    frame.segments[0][i] = 0;
  }
  EXPECT_TRUE(Decode(frame).ok());
}

}  // namespace
}  // namespace gradferry
