// See quick_operators.h.
#include "impl/tensor/quick_operators.h"

#include <algorithm>
#include <string_view>

namespace gradferry {
namespace {

// Of all tensors together: operators broadcast, so that two of 4096 elements can make one of 2^24 when they are a row
// and a column. Those that have the same shape count once.
constexpr int64_t kMostElements = int64_t{1} << 14;

// Operators whose steps are at most the product of their tensors' elements, whatever their other arguments are.
bool IsListed(std::string_view name) {
  // Sorted.
  static constexpr std::string_view kNames[] = {
      "aten::abs",     "aten::add",    "aten::clone", "aten::cos",  "aten::div",  "aten::dot",     "aten::eq",
      "aten::exp",     "aten::ge",     "aten::gt",    "aten::le",   "aten::log",  "aten::lt",      "aten::maximum",
      "aten::minimum", "aten::mul",    "aten::ne",    "aten::neg",  "aten::relu", "aten::sigmoid", "aten::sin",
      "aten::sqrt",    "aten::square", "aten::sub",   "aten::tanh",
  };
  return std::binary_search(std::begin(kNames), std::end(kNames), name);
}

}  // namespace

bool IsQuick(const std::string& name, const ValueList& arguments) {
  if (!IsListed(name)) return false;
  int64_t product = 1;
  const at::Tensor* last = nullptr;
  for (const Value& argument : arguments) {
    if (argument.kind() == ValueKind::kList) return false;
    const auto* tensor = argument.get<at::Tensor>();
    if (tensor == nullptr) continue;
    if (!tensor->defined() || tensor->layout() != c10::kStrided || !tensor->device().is_cpu()) return false;
    if (last != nullptr && last->sizes() == tensor->sizes()) continue;
    last = tensor;
    const int64_t elements = std::max<int64_t>(tensor->numel(), 1);
    if (elements > kMostElements / product) return false;
    product *= elements;
  }
  return true;
}

}  // namespace gradferry
