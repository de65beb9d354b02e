// Values: what calls carry as arguments and results. None, bool, int64, double, string, bytes, tensor, lists of them,
// and `default`, which stands for a schema's default in an operator call and never travels. Values are cheap to copy:
// tensors are references.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace gradferry {

struct None {};
struct DefaultValue {};
struct Bytes {
  std::string data;
};

class Value;
using ValueList = std::vector<Value>;

// The GF_VALUE_* numbers of gradferry.h.
enum class ValueKind : uint32_t {
  kNone = 0,
  kBool = 1,
  kInt = 2,
  kDouble = 3,
  kString = 4,
  kBytes = 5,
  kTensor = 6,
  kList = 7,
  kDefault = 8,
};

// "none", "bool", ... for error texts.
const char* ValueKindName(ValueKind kind);

class Value {
 public:
  // In the order of ValueKind.
  using Variant = std::variant<None, bool, int64_t, double, std::string, Bytes, at::Tensor, ValueList, DefaultValue>;

  Value() = default;
  template <class T,
            class = std::enable_if_t<std::is_constructible_v<Variant, T&&> && !std::is_same_v<std::decay_t<T>, Value>>>
  Value(T&& value) : variant_(std::forward<T>(value)) {}  // NOLINT: implicit by design

  ValueKind kind() const { return static_cast<ValueKind>(variant_.index()); }
  const Variant& variant() const { return variant_; }
  Variant& variant() { return variant_; }
  template <class T>
  const T* get() const {
    return std::get_if<T>(&variant_);
  }
  template <class T>
  T* get() {
    return std::get_if<T>(&variant_);
  }

 private:
  Variant variant_;
};

// Every tensor in the list, depth first, in order: the message's tensor table. The pointers live as long as the list
// is not changed.
std::vector<at::Tensor*> CollectTensors(ValueList& values);
std::vector<const at::Tensor*> CollectTensors(const ValueList& values);

// "float32[2, 3]" or "float32[2, 3] on cuda:0, sparse_coo" for error texts; "undefined tensor".
std::string DescribeTensor(const at::Tensor& tensor);

}  // namespace gradferry
