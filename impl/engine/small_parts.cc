// See small_parts.h.
#include "impl/engine/small_parts.h"

#include <algorithm>
#include <string_view>
#include <typeinfo>
#include <vector>

#include "impl/autograd/functions.h"

namespace gradferry {
namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;

// Of all gradients that a node takes, together.
constexpr int64_t kMostElements = int64_t{1} << 14;

// Nodes of libtorch whose steps are at most the elements of the gradients that they take; views have none. By the names
// of their classes, "AddBackward0" without the number; a user's class of such a name is in another namespace.
bool IsListed(std::string_view mangled) {
  constexpr std::string_view kNamespace = "N5torch8autograd9generated", kSuffix = "Backward";
  // Sorted.
  static constexpr std::string_view kNames[] = {
      "Abs",     "Add",     "Clone", "Cos", "Div",  "Exp",       "Expand",    "Log",
      "Maximum", "Minimum", "Mul",   "Neg", "Relu", "Sigmoid",   "Sin",       "Sqrt",
      "Squeeze", "Sub",     "Sum",   "T",   "Tanh", "Transpose", "Unsqueeze", "View",
  };
  if (mangled.substr(0, kNamespace.size()) != kNamespace) return false;
  std::string_view name = mangled.substr(kNamespace.size());
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  while (!name.empty() && is_digit(name.front())) name.remove_prefix(1);
  if (!name.empty() && name.back() == 'E') name.remove_suffix(1);
  while (!name.empty() && is_digit(name.back())) name.remove_suffix(1);
  if (name.size() < kSuffix.size() || name.substr(name.size() - kSuffix.size()) != kSuffix) return false;
  name.remove_suffix(kSuffix.size());
  return std::binary_search(std::begin(kNames), std::end(kNames), name);
}

}  // namespace

bool LeadsToFew(const edge_list& edges, int64_t* steps) {
  std::vector<const Node*> stack;
  const auto push = [&](const edge_list& next) {
    for (const Edge& edge : next) {
      if (edge.is_valid()) stack.push_back(edge.function.get());
    }
  };
  push(edges);
  while (!stack.empty()) {
    if (--*steps < 0) return false;
    const Node* node = stack.back();
    stack.pop_back();
    push(node->next_edges());
  }
  return true;
}

bool HasHooks(const Node& node) {
#if TORCH_VERSION_MAJOR >= 2
  if (!node.tensor_pre_hooks().empty() || !node.retains_grad_hooks().empty()) return true;
#endif
  return !node.pre_hooks().empty() || !node.post_hooks().empty();
}

bool IsQuick(const Node& node, const variable_list& gradients) {
  if (HasHooks(node)) return false;
  if (const auto* leaf = dynamic_cast<const AccumulateGrad*>(&node)) {
#if TORCH_VERSION_MAJOR < 2
    if (!torch::autograd::impl::hooks(leaf->variable).empty()) return false;
#else
    (void)leaf;
#endif
  } else if (dynamic_cast<const RecvRpcBackward*>(&node) == nullptr && !IsListed(typeid(node).name())) {
    return false;
  }
  int64_t elements = 0;
  for (const at::Tensor& gradient : gradients) {
    if (!gradient.defined()) continue;
    if (!gradient.device().is_cpu() || gradient.layout() != c10::kStrided) return false;
    elements += gradient.numel();
  }
  return elements <= kMostElements;
}

}  // namespace gradferry
