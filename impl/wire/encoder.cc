// See encoder.h. Errors are sticky: after the first one the rest of the message is walked quickly and writes nothing
// that anybody sees.
#include "impl/wire/encoder.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "impl/wire/codec.h"
#include "impl/wire/field_errors.h"
#include "impl/wire/message_fields.h"
#include "impl/wire/utf8.h"
#include "impl/wire/wire_format.h"

namespace gradferry {
namespace {

using Scope = FieldErrors::Scope;

// The outermost links and, where some must go, the innermost: the root cause is what one wants to read.
std::vector<const Error*> ChainToSend(const Status& status, uint32_t most) {
  std::vector<const Error*> chain;
  const std::shared_ptr<const Error> outermost = status.error();
  for (const Error* error = outermost.get(); error != nullptr; error = error->cause.get()) {
    if (chain.size() < most) {
      chain.push_back(error);
    } else if (most > 1) {
      chain.back() = error;
    }
  }
  return chain;
}

// An error that claims to be OK, or has a number from elsewhere, is still an error.
Code CodeToSend(Code code) {
  return code != Code::kOk && IsKnownCode(static_cast<int32_t>(code)) ? code : Code::kUnknown;
}

class Encoder {
 public:
  Encoder(const std::vector<bool>& record_grad, const WireLimits& limits)
      : record_grad_(record_grad), limits_(limits), out_(limits.header_bytes) {}

  Result<EncodedHeader> Encode(const Message& message) {
    std::visit([this](const auto& m) { Body(m); }, message);
    if (!errors_.ok()) return errors_.status();
    return EncodedHeader{out_.Take(), std::move(parts_)};
  }

  // What Fields<M>::Visit calls.
  template <class T>
  void Number(const char*, T value) {
    out_.Number<T>(value);
  }

  void Bool(const char*, bool value) { out_.Number<uint8_t>(value ? 1 : 0); }

  template <class E>
  void Enum(const char* name, E value, E last) {
    if (value > last) errors_.FailField(name, Code::kInternal, "not a value of this field");
    out_.Number(static_cast<uint8_t>(value));
  }

  void Worker(const char* name, WorkerId id) {
    if (id < 0 || id > kMaxWorkerId) {
      errors_.FailField(name, Code::kInvalidArgument, StrCat(id, " is no worker id (0 to ", kMaxWorkerId, ")"));
    }
    out_.Number(static_cast<uint16_t>(id));
  }

  void Fixed(const char*, const Bytes32& bytes) {
    out_.Raw({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

  void Optional(const char* name, const std::optional<Bytes32>& bytes) {
    Bool(name, bytes.has_value());
    if (bytes) Fixed(name, *bytes);
  }

  void Name(const char* name, const std::string& value) {
    Scope scope(errors_, name);
    if (value.size() > limits_.name_bytes) {
      errors_.FailLimit(value.size(), "bytes", "limits.name_bytes", limits_.name_bytes);
    }
    Utf8(value);
  }

  void Text(const char*, const std::string& value) {
    if (value.size() <= kTextBytes && IsUtf8(value)) return Sized(value);
    Sized(CleanUtf8(value, kTextBytes));
  }

  void Outcome(const char* name, const Status& status) {
    Scope scope(errors_, name);
    const std::vector<const Error*> chain = ChainToSend(status, ErrorChainLimit(limits_));
    out_.Number(static_cast<uint8_t>(chain.size()));
    for (const Error* error : chain) {
      out_.Number(static_cast<int32_t>(CodeToSend(error->code)));
      out_.Number(static_cast<uint8_t>(error->retry));
      out_.Number(std::max(error->elapsed_ns, int64_t{0}));
      Text("message", error->message);
      Text("domain", error->domain);
      Text("worker", error->worker);
      Text("operation", error->operation);
      Text("peer", error->peer);
      Text("backtrace", error->backtrace);
    }
  }

  void Values(const char* name, const ValueList& values) {
    Scope scope(errors_, name);
    List(values, 0);
  }

  void Numbers(const char* name, const std::vector<int64_t>& values) {
    Scope scope(errors_, name);
    Count(values.size());
    out_.Raw({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int64_t)});
  }

  void Workers(const char* name, const std::vector<WorkerId>& ids) {
    Scope scope(errors_, name);
    Count(ids.size());
    for (size_t i = 0; i < ids.size() && Going(); ++i) {
      Scope element(errors_, i);
      Worker("worker", ids[i]);
    }
  }

  void Tensors(const char* name, const std::vector<at::Tensor>& tensors) {
    Scope scope(errors_, name);
    Count(tensors.size());
    for (size_t i = 0; i < tensors.size() && Going(); ++i) {
      Scope element(errors_, i);
      Tensor(tensors[i]);
    }
  }

  void Events(const char* name, const std::vector<ProfileEvent>& events) {
    Scope scope(errors_, name);
    Count(events.size());
    for (size_t i = 0; i < events.size() && Going(); ++i) {
      Scope element(errors_, i);
      Fields<ProfileEvent>::Visit(*this, events[i]);
    }
  }

  template <class M>
  void Struct(const char* name, const M& m) {
    Scope scope(errors_, name);
    Fields<M>::Visit(*this, m);
  }

  template <class... M>
  void OneOf(const char* name, const std::variant<M...>& chosen) {
    Scope scope(errors_, name);
    std::visit(
        [this](const auto& m) {
          using Chosen = std::decay_t<decltype(m)>;
          out_.Number(static_cast<uint8_t>(Fields<Chosen>::kKind));
          Fields<Chosen>::Visit(*this, m);
        },
        chosen);
  }

 private:
  template <class M>
  void Body(const M& m) {
    Scope scope(errors_, Fields<M>::kName);
    out_.Raw(kFrameMagic);
    if constexpr (kHasLayout<M>) {
      out_.Number(m.layout);
    } else {
      out_.Number(kProtocolVersion);
    }
    out_.Number(static_cast<uint8_t>(Fields<M>::kKind));
    Fields<M>::Visit(*this, m);
    if (Going() && !record_grad_.empty() && record_grad_.size() != tensors_) {
      errors_.Fail(Code::kInternal,
                   StrCat("record_grad has ", record_grad_.size(), " entries for ", tensors_, " tensors"));
    }
  }

  // False when there is no point in going on; what did not fit becomes an error here.
  bool Going() {
    if (out_.full()) {
      errors_.Fail(Code::kResourceExhausted,
                   StrCat("the header would be larger than limits.header_bytes (", out_.limit(),
                          "); tensors travel beside the header, everything else within it"));
    }
    return errors_.ok();
  }

  void Count(size_t count) {
    if (count > UINT32_MAX) errors_.Fail(Code::kInvalidArgument, StrCat(count, " elements, more than a uint32 counts"));
    out_.Number(static_cast<uint32_t>(count));
  }

  void Sized(std::string_view bytes) {
    Count(bytes.size());
    out_.Raw(bytes);
  }

  void Utf8(const std::string& text) {
    if (!IsUtf8(text)) errors_.Fail(Code::kInvalidArgument, "a string must be UTF-8; other bytes travel as bytes");
    Sized(text);
  }

  void List(const ValueList& values, uint32_t depth) {
    if (depth > NestingLimit(limits_)) {
      return errors_.FailLimit(depth, "levels of lists", "limits.nesting", NestingLimit(limits_));
    }
    values_ += values.size();
    if (values_ > limits_.values) return errors_.FailLimit(values_, "values", "limits.values", limits_.values);
    Count(values.size());
    for (size_t i = 0; i < values.size() && Going(); ++i) {
      Scope element(errors_, i);
      Element(values[i], depth);
    }
  }

  void Element(const Value& value, uint32_t depth) {
    out_.Number(static_cast<uint8_t>(value.kind()));
    switch (value.kind()) {
      case ValueKind::kNone:
        return;
      case ValueKind::kBool:
        return Bool("bool", *value.get<bool>());
      case ValueKind::kInt:
        return out_.Number(*value.get<int64_t>());
      case ValueKind::kDouble:
        return out_.Number(*value.get<double>());
      case ValueKind::kString:
        return Utf8(*value.get<std::string>());
      case ValueKind::kBytes:
        return Sized(value.get<Bytes>()->data);
      case ValueKind::kTensor:
        return Tensor(*value.get<at::Tensor>());
      case ValueKind::kList:
        return List(*value.get<ValueList>(), depth + 1);
      case ValueKind::kDefault:
        return errors_.Fail(Code::kInvalidArgument,
                            "default stands for a schema's default in a local operator call and cannot be sent");
    }
    errors_.Fail(Code::kInternal, "a value without a kind");
  }

  void Tensor(const at::Tensor& tensor) {
    const size_t index = tensors_++;
    if (tensors_ > limits_.tensors) return errors_.FailLimit(tensors_, "tensors", "limits.tensors", limits_.tensors);
    auto packed = Pack(tensor);
    if (!packed.ok()) return errors_.FailWith(packed.status());
    packed->description.requires_grad = index < record_grad_.size() && record_grad_[index];
    Description(packed->description);
    for (TensorPart& part : packed->parts) {
      if (part.length != 0) parts_.push_back(std::move(part));
    }
  }

  void Description(const TensorDescription& tensor) {
    if (tensor.requires_grad && !MayRequireGrad(tensor)) {
      return errors_.Fail(Code::kInternal, "only a floating point or complex tensor can require grad");
    }
    out_.Number(static_cast<uint8_t>(tensor.form));
    if (tensor.form == TensorForm::kUndefined) return;
    if (tensor.sizes.size() > limits_.dims) {
      return errors_.FailLimit(tensor.sizes.size(), "dimensions", "limits.dims", limits_.dims);
    }
    const auto dtype = DtypeToWire(tensor.dtype);
    if (!dtype.ok()) return errors_.FailWith(dtype.status());
    out_.Number(TensorFlags(tensor));
    out_.Number<uint8_t>(*dtype);
    out_.Number(static_cast<uint8_t>(tensor.sizes.size()));
    for (const int64_t size : tensor.sizes) out_.Number(size);
    if (tensor.form == TensorForm::kDense) {
      for (const uint8_t dimension : tensor.order) out_.Number(dimension);
      if (tensor.expanded != 0) out_.Number(tensor.expanded);
    } else {
      out_.Number(static_cast<uint8_t>(tensor.sparse_dim));
      out_.Number(tensor.nnz);
    }
  }

  const std::vector<bool>& record_grad_;
  const WireLimits& limits_;
  FieldErrors errors_;
  Writer out_;
  std::vector<TensorPart> parts_;
  size_t tensors_ = 0;
  size_t values_ = 0;
};

}  // namespace

Result<EncodedHeader> EncodeHeader(const Message& message, const std::vector<bool>& record_grad,
                                   const WireLimits& limits) {
  return Encoder(record_grad, limits).Encode(message);
}

}  // namespace gradferry
