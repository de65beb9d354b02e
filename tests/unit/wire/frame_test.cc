// What goes into a frame comes out of it, and lies in it as docs/protocol.md says.
#include "impl/wire/frame.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "tests/unit/wire/wire_testing.h"

namespace gradferry {
namespace {

// The message as it arrives. Also checks that it would be sent on as the same bytes.
Message Arrived(const Message& message) {
  const Frame frame = MustEncode(message);
  auto decoded = Decode(frame);
  EXPECT_TRUE(decoded.ok()) << MessageName(message) << ": " << decoded.status().ToString();
  if (!decoded.ok()) return Hello{};
  const Frame again = MustEncode(decoded->message);
  EXPECT_EQ(frame.header, again.header) << MessageName(message);
  EXPECT_EQ(frame.segments, again.segments) << MessageName(message);
  return std::move(decoded->message);
}

Call CallWith(ValueList arguments) {
  Call call;
  call.call_id = 1;
  call.name = "f";
  call.arguments = std::move(arguments);
  return call;
}

Message WithTensors(const std::vector<at::Tensor>& tensors) {
  return CallWith(ValueList(tensors.begin(), tensors.end()));
}

at::Tensor Floats(int64_t count) { return at::arange(count, at::kFloat); }

TEST(FrameTest, EveryMessageArrivesAsItWasSent) {
  std::vector<bool> seen(std::variant_size_v<Message>);
  for (const Message& message : SampleMessages()) {
    EXPECT_EQ(Show(Arrived(message)), Show(message));
    seen[message.index()] = true;
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), false), 0) << "a kind of message has no sample";
}

TEST(FrameTest, ValuesAndTensorsOfEveryFormArriveAsTheyWere) {
  for (const Message& message : LargeMessages()) EXPECT_EQ(Show(Arrived(message)), Show(message));
}

TEST(FrameTest, NamesOfMessages) {
  EXPECT_STREQ(MessageName(Message(MarkSendFunctions{})), "MarkSendFunctions");
  EXPECT_STREQ(MessageName(Message(Ack{})), "Ack");
}

TEST(FrameTest, TheExampleOfTheProtocolIsTrue) {
  Call call = CallWith({Value(at::tensor({1.0F, 2.0F})), Value(int64_t{5})});
  call.call_id = 7;
  call.time_left = INT64_MAX;
  call.name = "add_one";
  const Frame frame = MustEncode(call);
  EXPECT_EQ(frame.header, std::string("GF\x02\x00\x04"
                                      "\x07\0\0\0\0\0\0\0"
                                      "\xff\xff\xff\xff\xff\xff\xff\x7f"
                                      "\x00\x01"
                                      "\x07\0\0\0add_one"
                                      "\0\0\0\0"
                                      "\x02\0\0\0"
                                      "\x06\x01\x00\x06\x01\x02\0\0\0\0\0\0\0"
                                      "\x02\x05\0\0\0\0\0\0\0",
                                      64));
  EXPECT_EQ(frame.segments, std::vector<std::string>{std::string("\0\0\x80\x3f\0\0\0\x40", 8)});
}

TEST(FrameTest, RequiresGradTravelsPerTensorInTableOrder) {
  const at::Tensor ints = at::ones({2}, at::kLong);
  const Message message =
      CallWith({Value(Floats(2)), Value(ValueList{Value(ints), Value(Floats(3))}), Value(Floats(4))});
  const auto decoded = Decode(MustEncode(message, {false, false, true, true}));
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(decoded->requires_grad, (std::vector<bool>{false, false, true, true}));
  Message arrived = decoded->message;
  for (const at::Tensor* tensor : MessageTensors(arrived)) EXPECT_FALSE(tensor->requires_grad());

  const auto none = Decode(MustEncode(message));
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->requires_grad, std::vector<bool>(4, false));
}

TEST(FrameTest, RequiresGradIsRefusedWhereItCannotBe) {
  const Message ints = WithTensors({at::ones({2}, at::kLong)});
  EXPECT_EQ(Encode(ints, {true}).status().message(),
            "Call.arguments[0]: only a floating point or complex tensor can require grad");
  EXPECT_EQ(Encode(WithTensors({at::Tensor()}), {true}).status().code(), Code::kInternal);
  EXPECT_EQ(Encode(ints, {false, false}).status().message(), "Call: record_grad has 2 entries for 1 tensors");
}

TEST(FrameTest, TensorsOfAMessageAreInTableOrder) {
  const at::Tensor a = Floats(1), b = Floats(2), c = Floats(3);
  Message call = CallWith({Value(ValueList{Value(a), Value(int64_t{1})}), Value(b)});
  ASSERT_EQ(MessageTensors(call).size(), 2u);
  EXPECT_TRUE(MessageTensors(call)[0]->is_same(a));
  EXPECT_TRUE(MessageTensors(call)[1]->is_same(b));
  Message wrapped = RpcWithAutograd{{1, 2}, Reply{1, OkStatus(), {Value(c)}}};
  ASSERT_EQ(MessageTensors(wrapped).size(), 1u);
  EXPECT_TRUE(MessageTensors(wrapped)[0]->is_same(c));
  Message gradients = PropagateGradients{1, 2, {3, 4}, 5, false, {a, at::Tensor(), c}};
  ASSERT_EQ(MessageTensors(gradients).size(), 3u);
  EXPECT_FALSE(MessageTensors(gradients)[1]->defined());
  Message failed = Reply{1, Status(Code::kAborted, "x"), {Value(a)}};
  EXPECT_TRUE(MessageTensors(failed).empty());
  Message ack = Ack{};
  EXPECT_TRUE(MessageTensors(ack).empty());
}

TEST(FrameTest, AnOrdinaryCallIsAHeaderAndOneSegment) {
  const Frame frame = MustEncode(WithTensors({Floats(3), Floats(16), Floats(1)}));
  ASSERT_EQ(frame.segments.size(), 1u);
  // 12 bytes, 52 of padding; 64; 4.
  ASSERT_EQ(frame.segments[0].size(), 64u + 64 + 4);
  EXPECT_EQ(frame.segments[0].substr(12, 52), std::string(52, '\0'));
  EXPECT_EQ(frame.segments[0].substr(64, 64), std::string(static_cast<const char*>(Floats(16).data_ptr()), 64));
}

TEST(FrameTest, LargePartsFollowTheInlineSegmentInOrder) {
  const int64_t most = kInlineBytes / 4;
  const Frame frame = MustEncode(WithTensors({Floats(most + 1), Floats(1), Floats(0), Floats(most + 2), Floats(most)}));
  ASSERT_EQ(frame.segments.size(), 3u);
  EXPECT_EQ(frame.segments[0].size(), 64 + kInlineBytes);
  EXPECT_EQ(frame.segments[1].size(), kInlineBytes + 4);
  EXPECT_EQ(frame.segments[2].size(), kInlineBytes + 8);
}

TEST(FrameTest, MessagesWithoutTensorBytesHaveNoSegments) {
  EXPECT_TRUE(MustEncode(Cancel{1}).segments.empty());
  EXPECT_TRUE(MustEncode(WithTensors({Floats(0), at::Tensor(), at::empty({3, 0}, at::kLong)})).segments.empty());
}

TEST(FrameTest, LargeTensorsAndLoneSmallOnesAreNotCopiedWhenSent) {
  const at::Tensor large = Floats(10000), small = Floats(5);
  const auto frame = EncodeFrame(WithTensors({large, small}), {}, {});
  ASSERT_TRUE(frame.ok());
  ASSERT_EQ(frame->segments.size(), 2u);
  EXPECT_EQ(frame->segments[0].data, small.data_ptr());
  EXPECT_EQ(frame->segments[1].data, large.data_ptr());
}

TEST(FrameTest, LargeTensorsAndLoneSmallOnesAreReceivedInPlace) {
  const Frame frame = MustEncode(WithTensors({Floats(10000), Floats(5)}));
  auto decoder = FrameDecoder::New(frame.header, {20, 40000}, {});
  ASSERT_TRUE(decoder.ok());
  const std::vector<FrameSegment> segments = (*decoder)->segments();
  for (size_t i = 0; i < 2; ++i) memcpy(segments[i].data, frame.segments[i].data(), frame.segments[i].size());
  auto decoded = (*decoder)->Finish();
  ASSERT_TRUE(decoded.ok());
  const std::vector<at::Tensor*> tensors = MessageTensors(decoded->message);
  EXPECT_EQ(tensors[0]->data_ptr(), segments[1].data);
  EXPECT_EQ(tensors[1]->data_ptr(), segments[0].data);
}

TEST(FrameTest, SmallTensorsDoNotKeepEachOtherAlive) {
  const auto decoded = Decode(MustEncode(WithTensors(std::vector<at::Tensor>(100, Floats(2)))));
  ASSERT_TRUE(decoded.ok());
  Message message = decoded->message;
  for (const at::Tensor* tensor : MessageTensors(message)) {
    EXPECT_EQ(tensor->storage().nbytes(), 8u);
    EXPECT_EQ(tensor->storage().use_count(), 1u);
    EXPECT_TRUE(tensor->storage().resizable());
  }
}

TEST(FrameTest, TheFrameKeepsTheTensorsMemory) {
  bool freed = false;
  Result<EncodedFrame> frame = Status(Code::kUnknown, "");
  std::vector<float> memory(10000);
  {
    const at::Tensor tensor = at::from_blob(
        memory.data(), {10000}, [&](void*) { freed = true; }, at::kFloat);
    frame = EncodeFrame(WithTensors({tensor}), {}, {});
  }
  ASSERT_TRUE(frame.ok());
  EXPECT_FALSE(freed);
  frame->owner.reset();
  EXPECT_TRUE(freed);
}

TEST(FrameTest, OnlyTheElementsOfAViewAreSent) {
  const at::Tensor row = Floats(1000000).reshape({1000, 1000}).select(0, 3);
  const Frame frame = MustEncode(WithTensors({row}));
  ASSERT_EQ(frame.segments.size(), 1u);
  EXPECT_EQ(frame.segments[0].size(), 4000u);
}

TEST(FrameTest, ErrorChainsLoseTheirMiddleNotTheirRootCause) {
  Status status(Code::kUnavailable, "root");
  for (int i = 0; i < 40; ++i) status = status.Wrap(Code::kInternal, StrCat("link ", i));
  WireLimits limits;
  limits.error_chain = 3;
  auto decoded = Decode(MustEncode(Reply{1, status, {}}, {}, limits), limits);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  const Status arrived = std::get<Reply>(decoded->message).status;
  EXPECT_EQ(arrived.ToString(), "INTERNAL: link 39; caused by INTERNAL: link 38; caused by UNAVAILABLE: root");
  limits.error_chain = 1;
  decoded = Decode(MustEncode(Reply{1, status, {}}, {}, limits), limits);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<Reply>(decoded->message).status.ToString(), "INTERNAL: link 39");
}

TEST(FrameTest, ErrorTextsAreCutAndMadeUtf8) {
  const Status status = Status(Code::kInternal, std::string(65535, 'a') + "\xC3\xBC").WithPeer("p\xFF");
  const auto decoded = Decode(MustEncode(AbortPass{4, 1, {2, 3}, status}));
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  const Status arrived = std::get<AbortPass>(decoded->message).status;
  EXPECT_EQ(arrived.message(), std::string(65535, 'a'));
  EXPECT_EQ(arrived.error()->peer, "p?");
}

TEST(FrameTest, CodesFromElsewhereAreUnknown) {
  for (const int code : {0, 17, -1, 12345}) {
    const auto decoded = Decode(MustEncode(Ack{1, Status(static_cast<Code>(code), "x"), {}}));
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(std::get<Ack>(decoded->message).status.code(), Code::kUnknown);
  }
  Frame frame = MustEncode(Ack{1, Status(Code::kInternal, "x"), {}});
  ASSERT_EQ(frame.header[14], static_cast<char>(Code::kInternal));
  frame.header[14] = 99;
  auto decoded = Decode(frame);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<Ack>(decoded->message).status.code(), Code::kUnknown);
}

TEST(FrameTest, ResultsOfAnErrorDoNotTravel) {
  const auto decoded = Decode(MustEncode(Reply{1, Status(Code::kAborted, "x"), {Value(Floats(3))}}));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(std::get<Reply>(decoded->message).results.empty());
}

// ---- What cannot be sent ----

TEST(FrameTest, WhatCannotBeSentIsNamed) {
  const auto error = [](ValueList arguments) { return Encode(CallWith(std::move(arguments))).status(); };
  EXPECT_EQ(error({Value(), Value(DefaultValue{})}).code(), Code::kInvalidArgument);
  EXPECT_EQ(error({Value(), Value(DefaultValue{})}).message().substr(0, 27), "Call.arguments[1]: default ");
  EXPECT_EQ(error({Value(ValueList{Value(std::string("\xff"))})}).message(),
            "Call.arguments[0][0]: a string must be UTF-8; other bytes travel as bytes");
  const Status meta = error({Value(1.5), Value(at::empty({2}, at::TensorOptions(at::kMeta)))});
  EXPECT_EQ(meta.code(), Code::kUnsupported);
  EXPECT_EQ(meta.message().substr(0, 19), "Call.arguments[1]: ");
  EXPECT_EQ(Encode(Ack{1, OkStatus(), {0, -1}}).status().message(),
            "Ack.waiting[1].worker: -1 is no worker id (0 to 32767)");
  EXPECT_EQ(Encode(MarkFinished{1, {32768, 1}}).status().message(),
            "MarkFinished.pass.initiator: 32768 is no worker id (0 to 32767)");
  EXPECT_EQ(Encode(RpcWithAutograd{{1, 2}, CallWith({Value(DefaultValue{})})}).status().message().substr(0, 39),
            "RpcWithAutograd.wrapped.arguments[0]: d");
}

// The limit holds for the sender and, given the frame of a sender with a wider one, for the receiver.
void ExpectLimit(const Message& message, const WireLimits& fits, const WireLimits& too_small, const std::string& name) {
  const Frame frame = MustEncode(message, {}, fits);
  EXPECT_TRUE(Decode(frame, fits).ok()) << Decode(frame, fits).status().ToString();
  for (const Status& status : {Encode(message, {}, too_small).status(), Decode(frame, too_small).status()}) {
    EXPECT_EQ(status.code(), Code::kResourceExhausted) << name << ": " << status.ToString();
    EXPECT_NE(status.message().find(name), std::string::npos) << status.message();
  }
}

TEST(FrameTest, EveryLimitHoldsOnBothSides) {
  const Message call = CallWith({Value(Floats(100)), Value(ValueList{Value(Floats(5000)), Value(ValueList{Value()})})});
  WireLimits fits, small;
  fits.tensors = 2;
  small.tensors = 1;
  ExpectLimit(call, fits, small, "limits.tensors (1)");
  fits = small = {};
  fits.values = 5;
  small.values = 4;
  ExpectLimit(call, fits, small, "limits.values (4)");
  fits = small = {};
  fits.nesting = 2;
  small.nesting = 1;
  ExpectLimit(call, fits, small, "limits.nesting (1)");
  fits = small = {};
  const Message deep = CallWith({Value(at::zeros({1, 1, 1}))});
  fits.dims = 3;
  small.dims = 2;
  ExpectLimit(deep, fits, small, "limits.dims (2)");
  fits = small = {};
  fits.header_bytes = MustEncode(call).header.size();
  small.header_bytes = fits.header_bytes - 1;
  ExpectLimit(call, fits, small, "limits.header_bytes");
  fits = small = {};
  fits.message_bytes = MustEncode(call).header.size() + 400 + 20000;
  small.message_bytes = fits.message_bytes - 1;
  ExpectLimit(call, fits, small, "limits.message_bytes");
  small.message_bytes = 3;
  ExpectLimit(call, fits, small, "limits.message_bytes (3)");
  fits = small = {};
  small.name_bytes = 3;
  Call named;
  named.name = "four";
  fits.name_bytes = 4;
  ExpectLimit(named, fits, small, "limits.name_bytes (3)");
  fits = small = {};
  fits.tensors = 3;
  small.tensors = 2;
  ExpectLimit(PropagateGradients{1, 2, {3, 4}, 5, false, std::vector<at::Tensor>(3)}, fits, small,
              "limits.tensors (2)");
}

TEST(FrameTest, ErrorChainLimitHoldsForTheReceiver) {
  WireLimits two;
  two.error_chain = 2;
  const Status status = Decode(MustEncode(Reply{1, SampleStatus(), {}}), two).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_EQ(status.message(), "Reply.status: 3 links, more than limits.error_chain (2)");
}

TEST(FrameTest, NestingIsBoundedWhateverTheConfigurationSays) {
  Value value(int64_t{1});
  for (int i = 0; i < 64; ++i) value = Value(ValueList{std::move(value)});
  WireLimits limits;
  limits.nesting = UINT32_MAX;
  EXPECT_TRUE(Decode(MustEncode(CallWith({value}), {}, limits), limits).ok());
  const Message deeper = CallWith({Value(ValueList{value})});
  EXPECT_EQ(Encode(deeper, {}, limits).status().code(), Code::kResourceExhausted);
}

// ---- Random messages ----

class RandomMessages {
 public:
  explicit RandomMessages(uint32_t seed) : random_(seed) {}

  Message Next() {
    Call call = CallWith(List(3));
    call.name = Bytes(20);
    switch (Below(5)) {
      case 0:
        return call;
      case 1:
        return Reply{random_(), OkStatus(), List(3)};
      case 2:
        return RpcWithAutograd{{Number(), Number()}, call};
      case 3:
        return RpcWithAutograd{{Number(), Number()}, Reply{random_(), OkStatus(), List(2)}};
      default: {
        PropagateGradients message{random_(), Number(), {5, random_()}, Number(), Below(2) == 0, {}};
        for (uint32_t i = Below(6); i > 0; --i) message.gradients.push_back(Tensor());
        return message;
      }
    }
  }

 private:
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }
  int64_t Number() { return static_cast<int64_t>(random_()) >> Below(64); }
  std::string Bytes(uint32_t most) {
    std::string bytes(Below(most + 1), '\0');
    for (char& byte : bytes) byte = static_cast<char>('a' + Below(26));
    return bytes;
  }
  // Any view of something small: permuted, strided, expanded.
  at::Tensor Tensor() {
    static const std::vector<at::Tensor> samples = SampleTensors();
    at::Tensor tensor = samples[Below(samples.size())];
    if (!tensor.defined() || tensor.layout() != c10::kStrided || tensor.numel() > 100000) return tensor;
    if (tensor.dim() > 1 && Below(2) == 0) tensor = tensor.transpose(0, Below(tensor.dim()));
    if (tensor.dim() > 0 && tensor.size(0) > 1 && Below(2) == 0) {
      tensor = tensor.slice(0, Below(2), tensor.size(0), 1 + Below(2));
    }
    if (Below(4) == 0) tensor = tensor.unsqueeze(Below(tensor.dim() + 1));
    return tensor;
  }
  Value One(uint32_t depth) {
    switch (Below(depth == 0 ? 7 : 8)) {
      case 0:
        return Value();
      case 1:
        return Value(Below(2) == 0);
      case 2:
        return Value(Number());
      case 3:
        return Value(static_cast<double>(Number()) / 3);
      case 4:
        return Value(Bytes(40));
      case 5:
        return Value(gradferry::Bytes{Bytes(40)});
      case 6:
        return Value(Tensor());
      default:
        return Value(List(depth - 1));
    }
  }
  ValueList List(uint32_t depth) {
    ValueList list;
    for (uint32_t i = Below(8); i > 0; --i) list.push_back(One(depth));
    return list;
  }

  std::mt19937_64 random_;
};

// Tensors with gaps arrive without them.
std::string ShowWithoutStrides(const Message& message) {
  const std::string all = Show(message);
  std::string text;
  size_t from = 0;
  for (size_t at = all.find("strides <"); at != std::string::npos; at = all.find("strides <", from)) {
    text.append(all, from, at - from);
    from = all.find('>', at);
  }
  return text.append(all, from);
}

TEST(FrameTest, RandomMessagesArriveAsTheyWereSent) {
  RandomMessages messages(20240817);
  for (int i = 0; i < 2000; ++i) {
    const Message message = messages.Next();
    const auto decoded = Decode(MustEncode(message));
    ASSERT_TRUE(decoded.ok()) << i << ": " << decoded.status().ToString();
    ASSERT_EQ(ShowWithoutStrides(decoded->message), ShowWithoutStrides(message)) << i;
  }
}

}  // namespace
}  // namespace gradferry
