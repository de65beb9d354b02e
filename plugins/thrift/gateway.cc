#include "plugins/thrift/gateway.h"

#include <openssl/rand.h>

#include <limits>
#include <utility>

#include "plugins/thrift/wire.h"

namespace gradferry::thrift {
namespace {

constexpr size_t kLongestMethod = 100;
constexpr uint64_t kMaxCall = 256 * 1024 * 1024;
constexpr uint64_t kAsksForProof = 1;  // capability
constexpr int64_t kNanosecondsPerMs = 1000 * 1000;

Status Malformed(const std::string& what) { return {GF_DATA_LOSS, "a Thrift client's " + what + " cannot be read"}; }

// The declared exception Error as the answer to a method.
void AnswerError(std::string_view method, int32_t sequence, const Status& status, std::string_view worker,
                 std::string_view operation, std::string* out) {
  ThriftWriter writer(out);
  writer.BeginMessage(ThriftMessage::kReply, method, sequence);
  writer.Field(ThriftType::kStruct, 1);
  writer.Field(ThriftType::kI32, 1);
  writer.I32(status.code);
  writer.Field(ThriftType::kString, 2);
  writer.Binary(status.text);
  writer.Field(ThriftType::kString, 3);
  writer.Binary(worker);
  writer.Field(ThriftType::kString, 4);
  writer.Binary(operation);
  writer.Stop();
  writer.Stop();
  writer.EndMessage();
}

// Thrift's own exception: the method is not one of ours.
void AnswerUnknownMethod(std::string_view method, int32_t sequence, std::string* out) {
  ThriftWriter writer(out);
  writer.BeginMessage(ThriftMessage::kException, method, sequence);
  writer.Field(ThriftType::kString, 1);
  writer.Binary("Gradferry has no such method");
  writer.Field(ThriftType::kI32, 2);
  writer.I32(1);
  writer.Stop();
  writer.EndMessage();
}

// What a message carries of an error: all of its first link.
struct WireStatus {
  Status status;
  std::string_view worker;
  std::string_view operation;
};

WireStatus ReadStatus(WireReader* from) {
  WireStatus out;
  const uint8_t links = from->U8();
  for (uint8_t i = 0; i < links && from->ok(); ++i) {
    const auto code = static_cast<int32_t>(from->U32());
    from->U8();
    from->I64();
    const std::string_view message = from->String();
    from->String();
    const std::string_view worker = from->String();
    const std::string_view operation = from->String();
    from->String();
    from->String();
    if (i != 0) continue;
    out = {{code, std::string(message)}, worker, operation};
  }
  return out;
}

// Reads a method's only argument, a struct in field 1, with the function that gets each of its fields.
template <class Field>
bool ReadRequest(ThriftReader* from, Field field) {
  ThriftType type;
  int16_t id;
  while (from->Field(&type, &id)) {
    if (id != 1) {
      from->Skip(type);
      continue;
    }
    if (!from->Expect(type, ThriftType::kStruct)) return false;
    while (from->Field(&type, &id)) field(id, type);
  }
  return from->ok();
}

}  // namespace

uint64_t Gateway::MaxMessage() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return introduced_ ? kMaxCall : kMaxGreeting;
}

Status Gateway::Take(std::string_view message, Outcome* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ThriftReader reader(message);
  const auto start = static_cast<uint32_t>(reader.I32());
  const std::string_view method = reader.Binary();
  const int32_t sequence = reader.I32();
  if (!reader.ok() || (start >> 8) != 0x800100u) return Malformed("message");
  method_ = method.substr(0, kLongestMethod);
  sequence_ = sequence;
  if (static_cast<ThriftMessage>(start & 0xFF) != ThriftMessage::kCall) {
    return {GF_DATA_LOSS, "a Thrift client sent something that is no call"};
  }
  if (method == "hello") return Hello(&reader, sequence, out);
  if (method == "prove" || method == "call") {
    if (!introduced_) {
      AnswerError(method, sequence, {GF_FAILED_PRECONDITION, "say hello first"}, "", "", &out->answer);
      return {};
    }
    return method == "call" ? Call(&reader, sequence, out) : Prove(&reader, sequence, out);
  }
  AnswerUnknownMethod(method, sequence, &out->answer);
  return {};
}

// ---- From the client ---------------------------------------------------------------------------------------------

Status Gateway::Hello(ThriftReader* request, int32_t sequence, Outcome* out) {
  std::string_view group = "default", name, to_name, nonce;
  int32_t id = 0, to = 0;
  int64_t incarnation = 1;
  const bool read = ReadRequest(request, [&](int16_t field, ThriftType type) {
    if ((field == 1 || field == 2 || field == 4 || field == 7) && request->Expect(type, ThriftType::kString)) {
      (field == 1 ? group : field == 2 ? name : field == 4 ? to_name : nonce) = request->Binary();
    } else if ((field == 3 || field == 5) && request->Expect(type, ThriftType::kI32)) {
      (field == 3 ? id : to) = request->I32();
    } else if (field == 6 && request->Expect(type, ThriftType::kI64)) {
      incarnation = request->I64();
    } else {
      request->Skip(type);
    }
  });
  if (!read) return Malformed("hello");
  Status wrong;
  if (greeted_) wrong = {GF_FAILED_PRECONDITION, "hello was said already"};
  if (id < 0 || id > 32767 || to < 0 || to > 32767) wrong = {GF_INVALID_ARGUMENT, "ids are 0 to 32767"};
  if (!nonce.empty() && nonce.size() != kNonceSize) wrong = {GF_INVALID_ARGUMENT, "a nonce has 32 bytes"};
  if (wrong.ok()) wrong = CheckName("group", group);
  if (wrong.ok()) wrong = CheckName("name", name);
  if (wrong.ok()) wrong = CheckName("to_name", to_name);
  if (!wrong.ok()) {
    AnswerError("hello", sequence, wrong, "", "", &out->answer);
    return {};
  }
  char own_nonce[kNonceSize];
  if (nonce.empty() && RAND_bytes(reinterpret_cast<unsigned char*>(own_nonce), sizeof(own_nonce)) != 1) {
    return {GF_INTERNAL, "the system has no random bytes"};
  }
  WireWriter hello(Kind::kHello);
  hello.U16(kProtocol);
  hello.U16(kProtocol);
  hello.String(group);
  hello.String(name);
  hello.U16(static_cast<uint16_t>(id));
  hello.U64(static_cast<uint64_t>(incarnation));
  hello.U16(static_cast<uint16_t>(to));
  hello.String(to_name);
  hello.U64(nonce.empty() ? 0 : kAsksForProof);
  hello.Raw(nonce.empty() ? std::string_view(own_nonce, sizeof(own_nonce)) : nonce);
  greeted_ = true;
  hello_sequence_ = sequence;
  out->header = Seal(std::move(hello));
  return {};
}

// The host does not answer it; a wrong proof ends the connection.
Status Gateway::Prove(ThriftReader* request, int32_t sequence, Outcome* out) {
  std::string_view proof;
  ThriftType type;
  for (int16_t id; request->Field(&type, &id);) {
    if (id == 1 && request->Expect(type, ThriftType::kString)) {
      proof = request->Binary();
    } else {
      request->Skip(type);
    }
  }
  // A proof of no bytes when it cannot be read.
  if (proof.size() != kNonceSize) {
    AnswerError("prove", sequence, {GF_INVALID_ARGUMENT, "a proof has 32 bytes"}, "", "", &out->answer);
    return {};
  }
  WireWriter message(Kind::kHelloProof);
  message.U8(0);  // OK
  message.Bool(true);
  message.Raw(proof);
  out->header = Seal(std::move(message));
  ThriftWriter writer(&out->answer);
  writer.BeginMessage(ThriftMessage::kReply, "prove", sequence);
  writer.Stop();
  writer.EndMessage();
  return {};
}

Status Gateway::Call(ThriftReader* request, int32_t sequence, Outcome* out) {
  std::string_view name, overload;
  int64_t timeout_ms = 0;
  bool is_operator = false;
  WireWriter arguments(Kind::kCall);  // only what follows its beginning is used
  const size_t beginning = arguments.size();
  Status wrong;
  const bool read = ReadRequest(request, [&](int16_t field, ThriftType type) {
    if ((field == 1 || field == 5) && request->Expect(type, ThriftType::kString)) {
      (field == 1 ? name : overload) = request->Binary();
    } else if (field == 2 && wrong.ok() && arguments.size() == beginning && request->Expect(type, ThriftType::kList)) {
      wrong = ReadArguments(request, &arguments, &out->tensors);
      // Where the reader stands now nobody knows.
      if (!wrong.ok()) request->Fail();
    } else if (field == 3 && request->Expect(type, ThriftType::kI64)) {
      timeout_ms = request->I64();
    } else if (field == 4 && request->Expect(type, ThriftType::kBool)) {
      is_operator = request->Bool();
    } else {
      request->Skip(type);
    }
  });
  if (wrong.ok() && !read) wrong = Malformed("call");
  constexpr int64_t kMostMs = std::numeric_limits<int64_t>::max() / kNanosecondsPerMs;
  if (wrong.ok() && (timeout_ms < 0 || timeout_ms > kMostMs)) {
    wrong = {GF_INVALID_ARGUMENT, "timeout_ms is out of range"};
  }
  if (wrong.ok()) wrong = CheckName("the name of what is called", name);
  if (wrong.ok()) wrong = CheckName("the overload", overload);
  if (arguments.size() == beginning) arguments.U32(0);
  WireWriter call(Kind::kCall);
  call.U64(next_call_);
  call.I64(timeout_ms == 0 ? std::numeric_limits<int64_t>::max() : timeout_ms * kNanosecondsPerMs);
  call.U8(is_operator ? 1 : 0);
  call.Bool(false);  // nothing is recorded for backward
  call.String(name);
  call.String(overload);
  call.Raw(arguments.bytes().substr(beginning));
  if (wrong.ok() && call.size() + kSealSize > kMaxHeader) {
    wrong = {GF_RESOURCE_EXHAUSTED, "the arguments without their tensors are more than 1 MiB"};
  }
  if (!wrong.ok()) {
    AnswerError("call", sequence, wrong, "", name, &out->answer);
    out->tensors = {};
    return {};
  }
  calls_.emplace(next_call_++, sequence);
  out->header = Seal(std::move(call));
  return {};
}

std::string Gateway::Refused(const Status& status) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string answer;
  AnswerError(method_, sequence_, {status.code, "the worker refuses this; its log says why"}, "", "", &answer);
  return answer;
}

std::string Gateway::Heartbeat() {
  const std::lock_guard<std::mutex> lock(mutex_);
  WireWriter heartbeat(Kind::kHeartbeat);
  heartbeat.Bool(false);
  return Seal(std::move(heartbeat));
}

// ---- From the host -----------------------------------------------------------------------------------------------

Status Gateway::Give(const gf_transport_frame& frame, Outcome* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  WireReader reader({static_cast<const char*>(frame.header), frame.header_length});
  if (!reader.ok())
    return {GF_UNSUPPORTED, "a message that the thrift plugin does not know was sent to a Thrift client"};
  switch (reader.kind()) {
    case Kind::kHelloReply:
      return OnHelloReply(&reader, out);
    case Kind::kReply:
      return OnReply(&reader, frame, out);
    case Kind::kHeartbeat:
      out->heartbeat = reader.Bool();
      return {};
    default:
      // A client that only calls has no use for the rest, a goodbye for one.
      return {};
  }
}

Status Gateway::OnHelloReply(WireReader* reply, Outcome* out) {
  const WireStatus refused = ReadStatus(reply);
  const uint16_t protocol = reply->U16();
  const std::string_view name = reply->String();
  const uint16_t id = reply->U16();
  const uint64_t incarnation = reply->U64();
  reply->U64();
  reply->Raw(kNonceSize);
  // Both proofs are about the message without its own.
  std::string without(reply->body().substr(0, reply->body().size() - reply->left()));
  without.push_back('\0');
  const std::string_view proof = reply->Bool() ? reply->Raw(kNonceSize) : std::string_view();
  without.append(reply->Raw(reply->left()));  // windows, which a client that waits for each answer does not need
  if (!refused.status.ok()) {
    AnswerError("hello", hello_sequence_, refused.status, refused.worker, refused.operation, &out->answer);
    return {};
  }
  if (!reply->ok())
    return {GF_UNSUPPORTED, "the worker's HelloReply is of a version that the thrift plugin does not know"};
  introduced_ = true;
  ThriftWriter writer(&out->answer);
  writer.BeginMessage(ThriftMessage::kReply, "hello", hello_sequence_);
  writer.Field(ThriftType::kStruct, 0);
  writer.Field(ThriftType::kString, 1);
  writer.Binary(name);
  writer.Field(ThriftType::kI32, 2);
  writer.I32(id);
  writer.Field(ThriftType::kI64, 3);
  writer.I64(static_cast<int64_t>(incarnation));
  writer.Field(ThriftType::kI32, 4);
  writer.I32(protocol);
  writer.Field(ThriftType::kString, 5);
  writer.Binary(proof);
  writer.Field(ThriftType::kString, 6);
  writer.Binary(without);
  writer.Stop();
  writer.Stop();
  writer.EndMessage();
  return {};
}

Status Gateway::OnReply(WireReader* reply, const gf_transport_frame& frame, Outcome* out) {
  const auto call = calls_.find(reply->U64());
  if (call == calls_.end()) return {};
  const int32_t sequence = call->second;
  calls_.erase(call);
  WireStatus result = ReadStatus(reply);
  if (result.status.ok()) {
    std::vector<std::string_view> segments;
    for (uint32_t i = 0; i < frame.segment_count; ++i) {
      segments.emplace_back(static_cast<const char*>(frame.segments[i].data), frame.segments[i].length);
    }
    InTensors tensors(std::move(segments));
    ThriftWriter writer(&out->answer);
    writer.BeginMessage(ThriftMessage::kReply, "call", sequence);
    writer.Field(ThriftType::kStruct, 0);
    writer.Field(ThriftType::kList, 1);
    result.status = WriteResults(reply, &tensors, &writer);
    writer.Stop();
    writer.Stop();
    if (!writer.EndMessage())
      result.status = {GF_RESOURCE_EXHAUSTED, "the results are more than a Thrift message holds"};
  }
  if (!result.status.ok()) AnswerError("call", sequence, result.status, result.worker, result.operation, &out->answer);
  return {};
}

}  // namespace gradferry::thrift
