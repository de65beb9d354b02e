// See wire_testing.h.
#include "tests/unit/wire/wire_testing.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

namespace gradferry {
namespace {

std::string Hex(const void* data, size_t size) {
  static const char* const digits = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    const auto byte = static_cast<const unsigned char*>(data)[i];
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

// Texts of field values; strings are quoted so that nothing runs together.
std::string Text(const std::string& text) { return "'" + text + "'"; }
template <class T>
std::string Text(const std::vector<T>& numbers) {
  std::ostringstream out;
  out << '[';
  for (const T& number : numbers) out << number << ' ';
  out << ']';
  return out.str();
}
std::string Text(const Bytes32& bytes) { return Hex(bytes.data(), bytes.size()); }
std::string Text(const PassId& pass) { return StrCat(pass.initiator, '/', pass.number); }
std::string Text(const Status& status) {
  if (status.ok()) return "OK";
  std::ostringstream out;
  for (const Error* e = status.error().get(); e != nullptr; e = e->cause.get()) {
    out << '{' << static_cast<int>(e->code) << ' ' << Text(e->message) << Text(e->domain) << Text(e->worker)
        << Text(e->operation) << Text(e->peer) << Text(e->backtrace) << ' ' << e->elapsed_ns << ' '
        << static_cast<int>(e->retry) << '}';
  }
  return out.str();
}

std::string Text(const ValueList& values);
std::string Text(const Value& value) {
  switch (value.kind()) {
    case ValueKind::kNone:
      return "none";
    case ValueKind::kBool:
      return *value.get<bool>() ? "true" : "false";
    case ValueKind::kInt:
      return StrCat("int ", *value.get<int64_t>());
    case ValueKind::kDouble:
      return StrCat("double ", Hex(value.get<double>(), sizeof(double)));
    case ValueKind::kString:
      return Text(*value.get<std::string>());
    case ValueKind::kBytes:
      return StrCat("bytes ", Hex(value.get<Bytes>()->data.data(), value.get<Bytes>()->data.size()));
    case ValueKind::kTensor:
      return Show(*value.get<at::Tensor>());
    case ValueKind::kList:
      return Text(*value.get<ValueList>());
    case ValueKind::kDefault:
      return "default";
  }
  return "?";
}
std::string Text(const ValueList& values) {
  std::string text = "[";
  for (const Value& value : values) text += Text(value) + ", ";
  return text + "]";
}

std::string ShowOne(const Hello& m) {
  return StrCat("Hello ", m.layout, ' ', m.protocol_min, ' ', m.protocol_max, ' ', Text(m.group), Text(m.name), m.id,
                ' ', m.incarnation, ' ', m.to, Text(m.to_name), m.capabilities, ' ', Text(m.nonce));
}
std::string ShowOne(const HelloReply& m) {
  return StrCat("HelloReply ", m.layout, Text(m.status), m.protocol, Text(m.name), m.id, ' ', m.incarnation, ' ',
                m.capabilities, ' ', Text(m.nonce), m.proof ? Text(*m.proof) : "none");
}
std::string ShowOne(const HelloProof& m) {
  return StrCat("HelloProof ", Text(m.status), m.proof ? Text(*m.proof) : "none");
}
std::string ShowOne(const Goodbye& m) { return StrCat("Goodbye ", Text(m.reason)); }
std::string ShowOne(const Call& m) {
  return StrCat("Call ", m.call_id, ' ', m.time_left, ' ', static_cast<int>(m.target), ' ', m.record, Text(m.name),
                Text(m.overload), Text(m.arguments));
}
std::string ShowOne(const Reply& m) { return StrCat("Reply ", m.call_id, Text(m.status), Text(m.results)); }
std::string ShowOne(const Cancel& m) { return StrCat("Cancel ", m.call_id); }
std::string ShowOne(const RpcWithAutograd& m) {
  return StrCat("RpcWithAutograd ", m.metadata.context_id, ' ', m.metadata.message_id, ' ',
                std::visit([](const auto& wrapped) { return ShowOne(wrapped); }, m.wrapped));
}
std::string ShowOne(const RpcWithProfiling& m) {
  std::string text = StrCat("RpcWithProfiling ", m.most_events, ' ', m.profile.dropped);
  for (const ProfileEvent& event : m.profile.events) {
    text += StrCat(' ', Text(event.name), static_cast<int>(event.kind), ' ', event.worker, ' ', event.thread, ' ',
                   event.parent, ' ', event.start, ' ', event.end);
  }
  return text + std::visit([](const auto& wrapped) { return ShowOne(wrapped); }, m.wrapped);
}
std::string ShowOne(const MarkSendFunctions& m) {
  return StrCat("MarkSendFunctions ", m.call_id, ' ', m.context_id, ' ', Text(m.pass), Text(m.turn), ' ',
                m.retain_graph, m.chosen_inputs, Text(m.message_ids), Text(m.outputs));
}
std::string ShowOne(const MarkNeeded& m) {
  return StrCat("MarkNeeded ", m.call_id, ' ', m.context_id, ' ', Text(m.pass), Text(m.message_ids), Text(m.outputs));
}
std::string ShowOne(const MarkFinished& m) { return StrCat("MarkFinished ", m.context_id, ' ', Text(m.pass)); }
std::string ShowOne(const PropagateGradients& m) {
  std::string text = StrCat("PropagateGradients ", m.call_id, ' ', m.context_id, ' ', Text(m.pass), ' ', m.message_id,
                            ' ', m.retain_graph);
  for (const at::Tensor& gradient : m.gradients) text += ' ' + Show(gradient);
  return text;
}
std::string ShowOne(const AbortPass& m) {
  return StrCat("AbortPass ", m.call_id, ' ', m.context_id, ' ', Text(m.pass), Text(m.status));
}
std::string ShowOne(const RequestTurn& m) {
  return StrCat("RequestTurn ", m.call_id, ' ', m.context_id, ' ', Text(m.pass));
}
std::string ShowOne(const EndTurn& m) { return StrCat("EndTurn ", m.context_id, ' ', Text(m.pass)); }
std::string ShowOne(const CleanupAutogradContext& m) {
  return StrCat("CleanupAutogradContext ", m.call_id, ' ', m.context_id);
}
std::string ShowOne(const Heartbeat& m) { return StrCat("Heartbeat ", m.answer); }
std::string ShowOne(const ContextsAlive& m) { return StrCat("ContextsAlive ", m.call_id, Text(m.context_ids)); }
std::string ShowOne(const ContextsGone& m) { return StrCat("ContextsGone ", m.call_id, Text(m.context_ids)); }
std::string ShowOne(const TensorChunk& m) { return StrCat("TensorChunk ", m.transfer); }
std::string ShowOne(const TransferGivenUp& m) { return StrCat("TransferGivenUp ", m.transfer); }
std::string ShowOne(const Ack& m) { return StrCat("Ack ", m.call_id, Text(m.status), Text(m.waiting)); }

// Without what an expanded dimension repeats: that may be astronomically much.
at::Tensor Unexpanded(at::Tensor tensor) {
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.stride(d) == 0 && tensor.size(d) > 1) tensor = tensor.narrow(d, 0, 1);
  }
  return tensor;
}

// Strides that a message keeps: those of tensors without gaps. Of a dimension of size 1 none says anything.
std::string ShowStrides(const at::Tensor& tensor) {
  if (!Unexpanded(tensor).is_non_overlapping_and_dense()) return "";
  std::string text;
  for (int64_t d = 0; d < tensor.dim(); ++d) text += tensor.size(d) == 1 ? "- " : StrCat(tensor.stride(d), ' ');
  return text;
}

std::string StoredBytes(const at::Tensor& tensor) {
  const at::Tensor rows = Unexpanded(tensor).contiguous();
  return Hex(rows.data_ptr(), rows.nbytes());
}

const double kOddNan = [] {
  const uint64_t bits = 0x7ff8dead'beef0001;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}();

Value List(std::initializer_list<Value> values) { return Value(ValueList(values)); }

ValueList EveryKind() {
  ValueList values;
  values.emplace_back();
  values.emplace_back(true);
  values.emplace_back(false);
  values.emplace_back(int64_t{0});
  values.emplace_back(std::numeric_limits<int64_t>::min());
  values.emplace_back(std::numeric_limits<int64_t>::max());
  values.emplace_back(-0.0);
  values.emplace_back(kOddNan);
  values.emplace_back(std::numeric_limits<double>::infinity());
  values.emplace_back(
      std::string("gr\xc3\xbc\xc3\x9f"
                  "e \xf0\x9f\x9a\xa2\0 end",
                  17));
  values.emplace_back(std::string());
  values.emplace_back(Bytes{std::string("\x00\xff\xfe raw", 7)});
  values.emplace_back(Bytes{});
  values.emplace_back(at::arange(6, at::kFloat).reshape({2, 3}));
  values.emplace_back(ValueList{});
  values.push_back(
      List({List({List({Value(int64_t{1})}), Value(at::ones({2}, at::kDouble))}), Value(std::string("x"))}));
  return values;
}

Call SampleCall(ValueList arguments) {
  Call call;
  call.call_id = 0x0102030405060708;
  call.time_left = 5000000000;
  call.target = CallTarget::kOperator;
  call.record = false;
  call.name = "aten::add";
  call.overload = "Tensor";
  call.arguments = std::move(arguments);
  return call;
}

PropagateGradients SampleGradients(std::vector<at::Tensor> gradients) {
  PropagateGradients message;
  message.call_id = 77;
  message.context_id = (int64_t{3} << 48) + 9;
  message.pass = {3, 12};
  message.message_id = (int64_t{3} << 48) + 41;
  message.retain_graph = true;
  message.gradients = std::move(gradients);
  return message;
}

}  // namespace

Frame CopyOf(const EncodedFrame& encoded) {
  Frame frame{encoded.header, {}};
  for (const FrameSegment& segment : encoded.segments) {
    frame.segments.emplace_back(static_cast<const char*>(segment.data), segment.length);
  }
  return frame;
}

Result<Frame> Encode(const Message& message, const std::vector<bool>& record_grad, const WireLimits& limits) {
  GF_ASSIGN_OR_RETURN(EncodedFrame encoded, EncodeFrame(message, record_grad, limits));
  return CopyOf(encoded);
}

Frame MustEncode(const Message& message, const std::vector<bool>& record_grad, const WireLimits& limits) {
  auto frame = Encode(message, record_grad, limits);
  EXPECT_TRUE(frame.ok()) << frame.status().ToString();
  return frame.ok() ? *std::move(frame) : Frame{};
}

Result<DecodedMessage> Decode(std::string_view header, const std::vector<std::string>& segments,
                              const WireLimits& limits) {
  std::vector<uint64_t> lengths;
  for (const std::string& segment : segments) lengths.push_back(segment.size());
  GF_ASSIGN_OR_RETURN(std::unique_ptr<FrameDecoder> decoder, FrameDecoder::New(header, lengths, limits));
  EXPECT_EQ(decoder->segments().size(), segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_EQ(decoder->segments()[i].length, segments[i].size());
    std::memcpy(decoder->segments()[i].data, segments[i].data(), segments[i].size());
  }
  return decoder->Finish();
}

Result<DecodedMessage> Decode(const Frame& frame, const WireLimits& limits) {
  return Decode(frame.header, frame.segments, limits);
}

std::string Show(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  std::ostringstream out;
  out << tensor.scalar_type() << tensor.sizes();
  if (tensor.layout() == c10::kSparse) {
    out << " sparse" << (tensor.is_coalesced() ? " coalesced" : "") << " indices " << Show(tensor._indices())
        << " values " << Show(tensor._values());
    return out.str();
  }
  if (tensor.numel() > 0) out << " strides <" << ShowStrides(tensor) << "> " << StoredBytes(tensor);
  return out.str();
}

std::string Show(const Message& message) {
  return std::visit([](const auto& m) { return ShowOne(m); }, message);
}

Status SampleStatus() {
  Error error;
  error.code = Code::kPeerLost;
  error.message = "the connection broke \xe2\x80\x93 twice";
  error.domain = "transport.sim";
  error.worker = "trainer";
  error.operation = "aten::mm";
  error.peer = "ps0";
  error.backtrace = "frame #0: somewhere";
  error.elapsed_ns = 123456789;
  error.retry = Retry::kOtherPeer;
  error.cause = Status(Code::kUnavailable, "root").WithElapsed(5).Wrap(Code::kInternal, "middle").error();
  return Status(error);
}

std::vector<at::Tensor> SampleTensors() {
  std::vector<at::Tensor> tensors;
  for (const at::ScalarType dtype : {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf, at::kFloat,
                                     at::kDouble, at::kComplexFloat, at::kComplexDouble, at::kBool, at::kBFloat16}) {
    tensors.push_back(at::arange(5).to(dtype));
  }
  const at::Tensor matrix = at::arange(12, at::kFloat).reshape({3, 4});
  tensors.push_back(matrix.t());
  tensors.push_back(at::arange(48, at::kFloat).reshape({2, 2, 3, 4}).contiguous(at::MemoryFormat::ChannelsLast));
  tensors.push_back(at::arange(3, at::kFloat).unsqueeze(1).expand({3, 5}));
  tensors.push_back(at::ones({}, at::kDouble).expand({1000, 1000, 1000}));
  tensors.push_back(at::empty({0}, at::kFloat));
  tensors.push_back(at::empty({4, 0, 7}, at::kLong));
  tensors.push_back(at::ones({}, at::kFloat));
  tensors.push_back(at::arange(10000, at::kDouble));  // larger than an inline part
  tensors.push_back(at::arange(10000, at::kFloat).reshape({100, 100}).t());
  tensors.push_back(at::Tensor());
  const at::Tensor indices = at::tensor({0, 2, 1, 1, 0, 3}, at::kLong).reshape({2, 3});
  const at::Tensor values = at::arange(6, at::kFloat).reshape({3, 2});
  const at::Tensor sparse = at::sparse_coo_tensor(indices, values, {3, 4, 2});
  tensors.push_back(sparse);
  tensors.push_back(sparse.coalesce());
  tensors.push_back(at::sparse_coo_tensor(at::empty({1, 0}, at::kLong), at::empty({0, 5}, at::kFloat), {9, 5}));
  return tensors;
}

namespace {
Bytes32 Sample32(uint8_t first) {
  Bytes32 bytes;
  for (uint8_t& byte : bytes) byte = first++;
  return bytes;
}
}  // namespace

std::vector<Message> SampleMessages() {
  const at::Tensor scalar = at::ones({}, at::kFloat);
  const at::Tensor sparse =
      at::sparse_coo_tensor(at::tensor({2}, at::kLong).reshape({1, 1}), at::ones({1}, at::kFloat), {3});
  std::vector<Message> messages;
  messages.emplace_back(Hello{2, 1, 3, "g", "trainer0", 4, 0xfedcba9876543210, kMaxWorkerId, "ps", 9, Sample32(1)});
  messages.emplace_back(Hello{1, 1, 3, "g", "trainer0", 4, 0xfedcba9876543210, kMaxWorkerId, "ps", 0, {}});
  messages.emplace_back(HelloReply{2, OkStatus(), 1, "ps", 32767, 6, 1ull << 63, Sample32(2), Sample32(3), 4, 5});
  messages.emplace_back(HelloReply{1, OkStatus(), 1, "ps", 32767, 6, 0, {}, {}});
  messages.emplace_back(
      HelloReply{2, Status(Code::kUnauthenticated, "no"), 1, "ps", 0, 6, 0, Sample32(2), std::nullopt});
  messages.emplace_back(HelloProof{OkStatus(), Sample32(5)});
  messages.emplace_back(HelloProof{SampleStatus(), std::nullopt});
  messages.emplace_back(Goodbye{"done"});
  messages.emplace_back(SampleCall({}));
  messages.emplace_back(
      SampleCall({Value(scalar), Value(List({Value(true), Value(int64_t{7})})), Value(at::ones({2, 2}).t())}));
  messages.emplace_back(
      SampleCall({Value(), Value(2.5), Value(std::string("s")), Value(Bytes{"b"}), Value(at::Tensor())}));
  messages.emplace_back(Reply{9, OkStatus(), {Value(scalar.expand({4})), Value(sparse)}});
  messages.emplace_back(Reply{10, SampleStatus(), {}});
  messages.emplace_back(Cancel{11});
  messages.emplace_back(RpcWithAutograd{{int64_t{1} << 48, 5}, SampleCall({Value(scalar)})});
  messages.emplace_back(RpcWithAutograd{{int64_t{1} << 48, 0}, Reply{12, OkStatus(), {Value(int64_t{1})}}});
  messages.emplace_back(RpcWithProfiling{45, {}, SampleCall({Value(scalar)})});
  messages.emplace_back(RpcWithProfiling{0,
                                         {{{"request", ProfileEventKind::kRequest, 46, 47, kNoEvent, 0, 50},
                                           {"aten::add", ProfileEventKind::kOperator, 48, 49, 0, 1, int64_t{1} << 40}},
                                          51},
                                         RpcWithAutograd{{52, 53}, Reply{54, OkStatus(), {Value(scalar)}}}});
  messages.emplace_back(MarkSendFunctions{13, 14, {15, 16}, {29, 30}, true, true, {17, -1, 18}, {0, 2, 1}});
  messages.emplace_back(MarkFinished{19, {20, 21}});
  messages.emplace_back(SampleGradients({scalar, at::Tensor(), sparse, at::ones({3, 1}).expand({3, 2})}));
  messages.emplace_back(AbortPass{31, 22, {23, 24}, Status(Code::kDeadlineExceeded, "late")});
  messages.emplace_back(CleanupAutogradContext{25, 26});
  messages.emplace_back(MarkNeeded{32, 33, {34, 35}, {36, 37}, {0, 1}});
  messages.emplace_back(RequestTurn{38, 39, {40, 41}});
  messages.emplace_back(EndTurn{42, {43, 44}});
  messages.emplace_back(Heartbeat{true});
  messages.emplace_back(Heartbeat{false});
  messages.emplace_back(ContextsAlive{29, {30, -31}});
  messages.emplace_back(ContextsGone{32, {}});
  messages.emplace_back(TensorChunk{33});
  messages.emplace_back(TransferGivenUp{UINT64_MAX});
  messages.emplace_back(Ack{27, OkStatus(), {0, 1, 32767}});
  messages.emplace_back(Ack{28, Status(Code::kAborted, "no"), {}});
  return messages;
}

std::vector<Message> LargeMessages() {
  ValueList tensors;
  for (const at::Tensor& tensor : SampleTensors()) tensors.emplace_back(tensor);
  ValueList many;
  for (int i = 0; i < 2000; ++i) many.emplace_back(at::arange(i % 300, at::kFloat));
  std::vector<Message> messages;
  messages.emplace_back(SampleCall(EveryKind()));
  messages.emplace_back(Reply{1, OkStatus(), EveryKind()});
  messages.emplace_back(SampleCall({Value(tensors), Value(tensors)}));
  messages.emplace_back(RpcWithAutograd{{1, 2}, SampleCall(tensors)});
  messages.emplace_back(RpcWithAutograd{{1, 2}, Reply{3, OkStatus(), tensors}});
  messages.emplace_back(SampleGradients(SampleTensors()));
  messages.emplace_back(SampleCall(many));
  return messages;
}

}  // namespace gradferry
