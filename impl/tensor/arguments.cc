// See arguments.h.
#include "impl/tensor/arguments.h"

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>
#include <c10/core/Device.h>

#include <optional>
#include <string_view>
#include <utility>

namespace gradferry {
namespace {

constexpr size_t kShownCharacters = 40;

std::string DescribeValue(const Value& value) {
  switch (value.kind()) {
    case ValueKind::kBool:
      return *value.get<bool>() ? "bool true" : "bool false";
    case ValueKind::kInt:
      return StrCat("int ", *value.get<int64_t>());
    case ValueKind::kDouble:
      return StrCat("double ", *value.get<double>());
    case ValueKind::kString: {
      const std::string& text = *value.get<std::string>();
      const bool whole = text.size() <= kShownCharacters;
      return StrCat("string \"", text.substr(0, kShownCharacters), whole ? "\"" : "...\"");
    }
    case ValueKind::kBytes:
      return StrCat(value.get<Bytes>()->data.size(), " bytes");
    case ValueKind::kTensor: {
      const at::Tensor& tensor = *value.get<at::Tensor>();
      return tensor.defined() ? StrCat("tensor ", DescribeTensor(tensor)) : DescribeTensor(tensor);
    }
    case ValueKind::kList:
      return StrCat("list of ", value.get<ValueList>()->size());
    default:
      return ValueKindName(value.kind());
  }
}

// One attempt to make a value fit a type. When it does not fit, got() says what was found, and where within lists.
class Match {
 public:
  // length: of the list that a single element may become, when the schema gives one.
  explicit Match(std::optional<size_t> length) : length_(length) {}

  std::optional<c10::IValue> To(const c10::TypePtr& type, const Value& value);
  const std::string& got() const { return got_; }

 private:
  std::optional<c10::IValue> ToTensor(const Value& value);
  std::optional<c10::IValue> ToScalar(const Value& value);
  std::optional<c10::IValue> ToFloat(const Value& value);
  std::optional<c10::IValue> ToDevice(const Value& value);
  std::optional<c10::IValue> ToList(const c10::TypePtr& element, const Value& value);

  template <class T>
  std::optional<c10::IValue> ToExactly(const Value& value) {
    if (auto* exact = value.get<T>()) return Fit(*exact);
    return Mismatch(value);
  }
  // Made in place: a temporary IValue's destructor confuses GCC 12's -Wstringop-overflow.
  template <class... T>
  static std::optional<c10::IValue> Fit(T&&... value) {
    return std::optional<c10::IValue>(std::in_place, std::forward<T>(value)...);
  }
  std::optional<c10::IValue> Mismatch(const Value& value) {
    got_ = DescribeValue(value);
    return std::nullopt;
  }

  std::optional<size_t> length_;
  std::string got_;
};

bool IsNothing(const Value& value) {
  const auto* tensor = value.get<at::Tensor>();
  return value.kind() == ValueKind::kNone || (tensor != nullptr && !tensor->defined());
}

std::optional<c10::IValue> Match::To(const c10::TypePtr& type, const Value& value) {
  switch (type->kind()) {
    case c10::TypeKind::OptionalType:
      if (IsNothing(value)) return Fit();
      return To(type->castRaw<c10::OptionalType>()->getElementType(), value);
    case c10::TypeKind::TensorType:
      return ToTensor(value);
    case c10::TypeKind::NumberType:
      return ToScalar(value);
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return ToExactly<int64_t>(value);
    case c10::TypeKind::FloatType:
      return ToFloat(value);
    case c10::TypeKind::BoolType:
      return ToExactly<bool>(value);
    case c10::TypeKind::StringType:
      return ToExactly<std::string>(value);
    case c10::TypeKind::DeviceObjType:
      return ToDevice(value);
    case c10::TypeKind::ListType:
      return ToList(type->castRaw<c10::ListType>()->getElementType(), value);
    default:
      return Mismatch(value);  // generators, streams, storages, classes: no value is one
  }
}

std::optional<c10::IValue> Match::ToTensor(const Value& value) {
  auto* tensor = value.get<at::Tensor>();
  if (tensor == nullptr || !tensor->defined()) return Mismatch(value);
  return Fit(*tensor);
}

std::optional<c10::IValue> Match::ToFloat(const Value& value) {
  if (auto* number = value.get<int64_t>()) return Fit(static_cast<double>(*number));
  return ToExactly<double>(value);
}

std::optional<c10::IValue> Match::ToScalar(const Value& value) {
  if (auto* number = value.get<int64_t>()) return Fit(*number);
  if (auto* number = value.get<double>()) return Fit(*number);
  if (auto* truth = value.get<bool>()) return Fit(*truth);
  return Mismatch(value);
}

std::optional<c10::IValue> Match::ToDevice(const Value& value) {
  auto* text = value.get<std::string>();
  if (text == nullptr) return Mismatch(value);
  try {
    return Fit(c10::Device(*text));
  } catch (const c10::Error&) {  // not the name of a device
    return Mismatch(value);
  }
}

// All of libtorch's lists are lists of IValues with an element type, so one way of making them is enough.
std::optional<c10::IValue> Match::ToList(const c10::TypePtr& element, const Value& value) {
  ValueList repeated;
  if (length_ && value.kind() != ValueKind::kList) repeated.assign(*length_, value);
  length_.reset();  // it belongs to the outermost list
  const auto* values = repeated.empty() ? value.get<ValueList>() : &repeated;
  if (values == nullptr) return Mismatch(value);
  c10::impl::GenericList list(element);
  list.reserve(values->size());
  for (size_t i = 0; i < values->size(); ++i) {
    std::optional<c10::IValue> converted = To(element, (*values)[i]);
    if (!converted) {
      if (repeated.empty()) got_ = StrCat("a list with ", got_, " at index ", i);
      return std::nullopt;
    }
    list.push_back(*std::move(converted));
  }
  return Fit(std::move(list));
}

std::string TypeText(const c10::Argument& argument) {
  std::string text = argument.real_type()->str();
  // "int[]?" with a length of 2 is written "int[2]?" in schemas.
  const size_t bracket = text.find("[]");
  if (argument.N() && bracket != std::string::npos) text.insert(bracket + 1, StrCat(*argument.N()));
  return text;
}

Status ParameterError(const std::string& operator_name, const c10::Argument& parameter, const std::string& got) {
  return InvalidArgument(
             StrCat(operator_name, ": parameter '", parameter.name(), "' wants ", TypeText(parameter), ", got ", got))
      .WithOperation(operator_name);
}

}  // namespace

Status AppendArgument(const std::string& operator_name, const c10::Argument& parameter, const Value* value,
                      torch::jit::Stack& stack) {
  if (value == nullptr || value->kind() == ValueKind::kDefault) {
    if (!parameter.default_value()) {
      return ParameterError(operator_name, parameter, value == nullptr ? "nothing" : "default, but it has none");
    }
    stack.push_back(*parameter.default_value());
    return OkStatus();
  }
  Match match(parameter.N() ? std::optional<size_t>(*parameter.N()) : std::nullopt);
  std::optional<c10::IValue> converted = match.To(parameter.type(), *value);
  if (!converted) return ParameterError(operator_name, parameter, match.got());
  stack.push_back(*std::move(converted));
  return OkStatus();
}

Result<Value> FromIValue(const std::string& operator_name, const c10::Argument& returned, const c10::IValue& value) {
  if (value.isNone()) return Value();
  if (value.isTensor()) return value.toTensor().defined() ? Value(value.toTensor()) : Value();
  if (value.isBool()) return Value(value.toBool());
  if (value.isInt()) return Value(value.toInt());
  if (value.isDouble()) return Value(value.toDouble());
  if (value.isString()) return Value(value.toStringRef());
  if (value.isList()) {
    ValueList list;
    for (const c10::IValue& element : value.toListRef()) {
      GF_ASSIGN_OR_RETURN(Value converted, FromIValue(operator_name, returned, element));
      list.push_back(std::move(converted));
    }
    return Value(std::move(list));
  }
  const std::string name = returned.name().empty() ? "" : StrCat(" '", returned.name(), "'");
  return Status(Code::kUnsupported, StrCat(operator_name, ": its result", name, " is of type ", TypeText(returned),
                                           " (", value.tagKind(), "), which no value can carry"))
      .WithOperation(operator_name);
}

}  // namespace gradferry
