// See decoder.h. Errors are sticky: after the first one every field is skipped, so that code which reads fields need
// not check each of them.
#include "impl/wire/decoder.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "impl/wire/codec.h"
#include "impl/wire/field_errors.h"
#include "impl/wire/message_fields.h"
#include "impl/wire/utf8.h"
#include "impl/wire/wire_format.h"

namespace gradferry {
namespace {

using Scope = FieldErrors::Scope;

class Decoder {
 public:
  Decoder(std::string_view header, const WireLimits& limits) : limits_(limits), in_(header) {}

  Result<DecodedHeader> Decode() {
    const uint8_t kind = Prefix();
    DecodedHeader decoded;
    if (errors_.ok()) Body(kind, decoded.message);
    if (!errors_.ok()) return errors_.status();
    decoded.tensors = std::move(tensors_);
    decoded.layout = std::move(layout_);
    return decoded;
  }

  // What Fields<M>::Visit calls.
  template <class T>
  void Number(const char* name, T& value) {
    if (errors_.ok() && !in_.Number<T>(&value)) FailShort(name, sizeof(T));
  }

  void Bool(const char* name, bool& value) {
    const uint8_t byte = Byte(name);
    if (byte > 1) errors_.FailField(name, Code::kDataLoss, StrCat(int{byte}, " is no bool (0 or 1)"));
    value = byte == 1;
  }

  template <class E>
  void Enum(const char* name, E& value, E last) {
    const uint8_t byte = Byte(name);
    if (byte > static_cast<uint8_t>(last)) {
      errors_.FailField(name, Code::kDataLoss, StrCat("unknown value ", int{byte}));
    } else {
      value = static_cast<E>(byte);
    }
  }

  void Worker(const char* name, WorkerId& id) {
    uint16_t number = 0;
    Number(name, number);
    if (number > kMaxWorkerId) {
      errors_.FailField(name, Code::kDataLoss, StrCat(number, " is no worker id (0 to ", kMaxWorkerId, ")"));
    }
    id = number;
  }

  void Fixed(const char* name, Bytes32& bytes) {
    std::string_view raw;
    if (!errors_.ok()) return;
    if (!in_.Raw(bytes.size(), &raw)) return FailShort(name, bytes.size());
    std::memcpy(bytes.data(), raw.data(), bytes.size());
  }

  void Optional(const char* name, std::optional<Bytes32>& bytes) {
    bool there = false;
    Bool(name, there);
    if (there) Fixed(name, bytes.emplace());
  }

  void Name(const char* name, std::string& value) {
    Scope scope(errors_, name);
    Utf8(value, limits_.name_bytes, "limits.name_bytes");
  }

  void Text(const char* name, std::string& value) {
    Scope scope(errors_, name);
    Utf8(value, kTextBytes, "the limit of a text");
  }

  void Outcome(const char* name, Status& status) {
    Scope scope(errors_, name);
    const uint8_t links = Byte("links");
    if (links > ErrorChainLimit(limits_)) {
      return errors_.FailLimit(links, "links", "limits.error_chain", ErrorChainLimit(limits_));
    }
    std::vector<Error> chain;
    for (size_t i = 0; i < links && errors_.ok(); ++i) {
      Scope element(errors_, i);
      Link(chain.emplace_back());
    }
    if (errors_.ok()) status = Linked(std::move(chain));
  }

  void Values(const char* name, ValueList& values) {
    Scope scope(errors_, name);
    List(values, 0);
  }

  void Numbers(const char* name, std::vector<int64_t>& values) {
    Scope scope(errors_, name);
    std::string_view bytes;
    values.resize(Count(sizeof(int64_t)));
    if (!values.empty() && in_.Raw(values.size() * sizeof(int64_t), &bytes)) {
      std::memcpy(values.data(), bytes.data(), bytes.size());
    }
  }

  void Workers(const char* name, std::vector<WorkerId>& ids) {
    Scope scope(errors_, name);
    const uint32_t count = Count(sizeof(uint16_t));
    ids.reserve(count);
    for (size_t i = 0; i < count && errors_.ok(); ++i) {
      Scope element(errors_, i);
      Worker("worker", ids.emplace_back());
    }
  }

  void Tensors(const char* name, std::vector<at::Tensor>& tensors) {
    Scope scope(errors_, name);
    const uint32_t count = Count(kLeastBytes);
    if (count > limits_.tensors) return errors_.FailLimit(count, "tensors", "limits.tensors", limits_.tensors);
    tensors.resize(count);
    tensors_.reserve(count);
    for (size_t i = 0; i < count && errors_.ok(); ++i) {
      Scope element(errors_, i);
      Tensor();
    }
  }

  void Events(const char* name, std::vector<ProfileEvent>& events) {
    Scope scope(errors_, name);
    const uint32_t count = Count(Fields<ProfileEvent>::kLeastBytes);
    if (count > limits_.profile_events) {
      return errors_.FailLimit(count, "events", "limits.profile_events", limits_.profile_events);
    }
    events.reserve(count);
    for (size_t i = 0; i < count && errors_.ok(); ++i) {
      Scope element(errors_, i);
      ProfileEvent& event = events.emplace_back();
      Fields<ProfileEvent>::Visit(*this, event);
      CheckEvent(event, i);
    }
  }

  template <class M>
  void Struct(const char* name, M& m) {
    Scope scope(errors_, name);
    Fields<M>::Visit(*this, m);
  }

  template <class... M>
  void OneOf(const char* name, std::variant<M...>& chosen) {
    Scope scope(errors_, name);
    const uint8_t kind = Byte("kind");
    if (!errors_.ok()) return;
    const bool known = (Chosen<M>(kind, chosen) || ...);
    if (!known) errors_.Fail(Code::kDataLoss, StrCat("kind ", int{kind}, " cannot be wrapped"));
  }

 private:
  // The fewest bytes that an element of a list takes.
  static constexpr size_t kLeastBytes = 1;

  // Magic and version; returns the kind.
  uint8_t Prefix() {
    Scope scope(errors_, "frame");
    if (in_.left() > limits_.header_bytes) {
      errors_.FailLimit(in_.left(), "header bytes", "limits.header_bytes", limits_.header_bytes);
      return 0;
    }
    std::string_view magic;
    if (!in_.Raw(kFrameMagic.size(), &magic) || magic != kFrameMagic) {
      errors_.Fail(Code::kDataLoss, "this is no Gradferry frame: its magic is missing");
      return 0;
    }
    Number("version", version_);
    const uint8_t kind = Byte("kind");
    if (!errors_.ok()) return 0;
    if (version_ < kOldestProtocol || (version_ > kProtocolVersion && !IsHello(kind))) {
      errors_.FailField(
          "version", Code::kUnsupported,
          StrCat("protocol version ", version_, "; this worker speaks ", kOldestProtocol, " to ", kProtocolVersion));
    } else if (version_ == 1 && kind > static_cast<uint8_t>(kLastKindOf1)) {
      errors_.FailField("kind", Code::kDataLoss, StrCat("unknown kind ", int{kind}, ""));
    }
    return kind;
  }

  static bool IsHello(uint8_t kind) {
    return kind == static_cast<uint8_t>(MessageKind::kHello) || kind == static_cast<uint8_t>(MessageKind::kHelloReply);
  }

  void Body(uint8_t kind, Message& message) {
    if (BodyOf(kind, message)) return;
    Scope scope(errors_, "frame");
    errors_.FailField("kind", Code::kDataLoss, StrCat("unknown kind ", int{kind}));
  }

  template <class... M>
  bool BodyOf(uint8_t kind, std::variant<M...>& message) {
    return (MessageOf<M>(kind, message) || ...);
  }

  // A whole message of kind M, if the kind says so.
  template <class M, class Variant>
  bool MessageOf(uint8_t kind, Variant& message) {
    Scope scope(errors_, Fields<M>::kName);
    if (!Chosen<M>(kind, message)) return false;
    const bool later = kHasLayout<M> && version_ > kProtocolVersion;
    if (errors_.ok() && in_.left() != 0 && !later) {
      errors_.Fail(Code::kDataLoss, StrCat(in_.left(), " bytes after the end of the message"));
    }
    return true;
  }

  template <class M, class Variant>
  bool Chosen(uint8_t kind, Variant& variant) {
    if (kind != static_cast<uint8_t>(Fields<M>::kKind)) return false;
    M& message = variant.template emplace<M>();
    if constexpr (kHasLayout<M>) message.layout = version_;
    Fields<M>::Visit(*this, message);
    return true;
  }

  void FailShort(const char* name, size_t wanted) {
    errors_.FailField(name, Code::kDataLoss, StrCat(wanted, " bytes expected, the header has ", in_.left(), " left"));
  }

  // Events are a tree in the order of their beginnings, and their times cannot overflow a sum.
  void CheckEvent(const ProfileEvent& event, size_t index) {
    constexpr int64_t kLongest = INT64_MAX / 4;
    if (index == 0 ? event.parent != kNoEvent : event.parent >= index) {
      errors_.FailField("parent", Code::kDataLoss, StrCat(event.parent, " is no event before this one"));
    }
    if (event.start < 0 || event.end < event.start || event.end > kLongest) {
      errors_.FailField("end", Code::kDataLoss, StrCat("an event from ", event.start, " to ", event.end, " ns"));
    }
  }

  uint8_t Byte(const char* name) {
    uint8_t byte = 0;
    Number(name, byte);
    return byte;
  }

  // A count of elements which take at least so many bytes each: no more than the bytes that are left can hold. 0 after
  // an error.
  uint32_t Count(size_t least_bytes) {
    uint32_t count = 0;
    Number("count", count);
    if (count > in_.left() / least_bytes) {
      errors_.FailField("count", Code::kDataLoss,
                        StrCat(count, " elements cannot be in the ", in_.left(), " bytes that are left"));
    }
    return errors_.ok() ? count : 0;
  }

  void Sized(std::string& value, uint64_t most, const char* limit) {
    uint32_t size = 0;
    Number("length", size);
    if (size > most) return errors_.FailLimit(size, "bytes", limit, most);
    std::string_view bytes;
    if (errors_.ok() && !in_.Raw(size, &bytes)) return FailShort("bytes", size);
    value = bytes;
  }

  void Utf8(std::string& value, uint64_t most, const char* limit) {
    Sized(value, most, limit);
    if (!IsUtf8(value)) errors_.Fail(Code::kDataLoss, "a string that is not UTF-8");
  }

  void Link(Error& error) {
    int32_t code = 0;
    Number("code", code);
    if (code == 0) errors_.FailField("code", Code::kDataLoss, "OK within an error");
    // A newer peer may know more codes than we do.
    error.code = IsKnownCode(code) ? static_cast<Code>(code) : Code::kUnknown;
    Enum("retry", error.retry, Retry::kOtherPeer);
    Number("elapsed", error.elapsed_ns);
    if (error.elapsed_ns < 0) errors_.FailField("elapsed", Code::kDataLoss, "a negative time");
    Text("message", error.message);
    Text("domain", error.domain);
    Text("worker", error.worker);
    Text("operation", error.operation);
    Text("peer", error.peer);
    Text("backtrace", error.backtrace);
  }

  static Status Linked(std::vector<Error> chain) {
    std::shared_ptr<const Error> cause;
    for (size_t i = chain.size(); i-- > 0;) {
      chain[i].cause = std::move(cause);
      cause = std::make_shared<const Error>(std::move(chain[i]));
    }
    return Status(std::move(cause));
  }

  void List(ValueList& values, uint32_t depth) {
    if (depth > NestingLimit(limits_)) {
      return errors_.FailLimit(depth, "levels of lists", "limits.nesting", NestingLimit(limits_));
    }
    const uint32_t count = Count(kLeastBytes);
    values_ += count;
    if (values_ > limits_.values) return errors_.FailLimit(values_, "values", "limits.values", limits_.values);
    values.reserve(count);
    for (size_t i = 0; i < count && errors_.ok(); ++i) {
      Scope element(errors_, i);
      Element(values.emplace_back().variant(), depth);
    }
  }

  void Element(Value::Variant& value, uint32_t depth) {
    const uint8_t kind = Byte("kind");
    switch (static_cast<ValueKind>(kind)) {
      case ValueKind::kNone:
        return;
      case ValueKind::kBool:
        return Bool("bool", value.emplace<bool>());
      case ValueKind::kInt:
        return Number("int", value.emplace<int64_t>());
      case ValueKind::kDouble:
        return Number("double", value.emplace<double>());
      case ValueKind::kString:
        return Utf8(value.emplace<std::string>(), UINT32_MAX, "");
      case ValueKind::kBytes:
        return Sized(value.emplace<Bytes>().data, UINT32_MAX, "");
      case ValueKind::kTensor:
        value.emplace<at::Tensor>();
        return Tensor();
      case ValueKind::kList:
        return List(value.emplace<ValueList>(), depth + 1);
      case ValueKind::kDefault:
        break;  // never travels
    }
    errors_.Fail(Code::kDataLoss, StrCat("unknown kind of value ", int{kind}));
  }

  void Tensor() {
    if (tensors_.size() >= limits_.tensors) {
      return errors_.FailLimit(tensors_.size() + 1, "tensors", "limits.tensors", limits_.tensors);
    }
    TensorDescription tensor;
    Description(tensor);
    if (!errors_.ok()) return;
    auto lengths = PartLengths(tensor);
    if (!lengths.ok()) return errors_.Fail(Code::kDataLoss, lengths.status().message());
    CheckCanonical(tensor, *lengths);
    for (const uint64_t length : *lengths) layout_.Add(length);
    tensors_.push_back(std::move(tensor));
  }

  // What PartLengths checks is left to it.
  void Description(TensorDescription& tensor) {
    Enum("form", tensor.form, TensorForm::kSparseCoo);
    if (tensor.form == TensorForm::kUndefined) return;
    const bool dense = tensor.form == TensorForm::kDense;
    const uint8_t flags = Byte("flags");
    const int unknown = flags & ~(dense ? kDenseFlags : kSparseFlags);
    if (unknown != 0) errors_.FailField("flags", Code::kDataLoss, StrCat("unknown flags ", unknown));
    tensor.requires_grad = (flags & kTensorRequiresGrad) != 0;
    tensor.coalesced = (flags & kTensorCoalesced) != 0;
    Dtype(tensor);
    if (tensor.requires_grad && !MayRequireGrad(tensor)) {
      errors_.FailField("flags", Code::kDataLoss, "only a floating point or complex tensor can require grad");
    }
    Sizes(tensor);
    if ((flags & kTensorOrdered) != 0) Order(tensor);
    if ((flags & kTensorExpanded) != 0) {
      Number("expanded", tensor.expanded);
      if (tensor.expanded == 0) errors_.FailField("expanded", Code::kDataLoss, "the mask is empty");
    }
    if (!dense) {
      tensor.sparse_dim = Byte("sparse_dim");
      Number("nnz", tensor.nnz);
    }
  }

  void Dtype(TensorDescription& tensor) {
    const uint8_t number = Byte("dtype");
    if (!errors_.ok()) return;
    const auto dtype = DtypeFromWire(number);
    if (!dtype.ok()) return errors_.FailField("dtype", Code::kDataLoss, dtype.status().message());
    tensor.dtype = *dtype;
  }

  void Sizes(TensorDescription& tensor) {
    const uint8_t dims = Byte("dims");
    if (dims > kMaxTensorDims) {
      errors_.FailField("dims", Code::kDataLoss, StrCat(int{dims}, ", more than ", kMaxTensorDims));
    } else if (dims > limits_.dims) {
      errors_.FailLimit(dims, "dimensions", "limits.dims", limits_.dims);
    }
    if (!errors_.ok()) return;
    tensor.sizes.resize(dims);
    for (int64_t& size : tensor.sizes) Number("sizes", size);
  }

  void Order(TensorDescription& tensor) {
    if (tensor.sizes.empty()) errors_.FailField("order", Code::kDataLoss, "a tensor without dimensions has no order");
    tensor.order.resize(tensor.sizes.size());
    for (uint8_t& dimension : tensor.order) Number("order", dimension);
  }

  // An order says something: it is not row-major, and expanded dimensions, which have no place in memory, come last. A
  // tensor without elements has neither.
  void CheckCanonical(const TensorDescription& tensor, const std::vector<uint64_t>& lengths) {
    if (tensor.form != TensorForm::kDense || (tensor.order.empty() && tensor.expanded == 0)) return;
    if (lengths[0] == 0) errors_.Fail(Code::kDataLoss, "order or expanded dimensions of a tensor without elements");
    if (tensor.order.empty()) return;
    const auto is_expanded = [&](uint8_t dimension) { return (tensor.expanded >> dimension & 1) != 0; };
    const auto last = std::find_if(tensor.order.begin(), tensor.order.end(), is_expanded);
    if (!std::all_of(last, tensor.order.end(), is_expanded) || !std::is_sorted(last, tensor.order.end())) {
      errors_.FailField("order", Code::kDataLoss, "expanded dimensions come last, in ascending order");
    }
    if (std::is_sorted(tensor.order.begin(), last)) {
      errors_.FailField("order", Code::kDataLoss, "row-major, which is not written");
    }
  }

  const WireLimits& limits_;
  FieldErrors errors_;
  Reader in_;
  uint16_t version_ = 0;  // of the frame
  std::vector<TensorDescription> tensors_;
  SegmentLayout layout_;
  size_t values_ = 0;
};

}  // namespace

Result<DecodedHeader> DecodeHeader(std::string_view header, const WireLimits& limits) {
  return Decoder(header, limits).Decode();
}

}  // namespace gradferry
