// The one place that knows how libtorch versions differ about autograd nodes: who holds them (shared_ptr up to 2.6,
// intrusive_ptr later), which hooks they carry, and how to make one. Everything else speaks NodePtr.
#pragma once

#include <torch/csrc/autograd/cpp_hook.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/version.h>

#include <cstring>
#include <memory>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

namespace gradferry {

using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;
using NodePtr = std::decay_t<decltype(std::declval<torch::autograd::Edge>().function)>;

// A new node of ours. With shared_ptr it gets libtorch's deleter, which frees long chains without recursion.
template <class T, class... Args>
auto MakeNode(Args&&... args) {
  if constexpr (std::is_same_v<NodePtr, std::shared_ptr<Node>>) {
    return std::shared_ptr<T>(new T(std::forward<Args>(args)...), torch::autograd::deleteNode);
  } else {
    return c10::make_intrusive<T>(std::forward<Args>(args)...);
  }
}

template <class T>
using NodeOf = decltype(MakeNode<T>());

// Whether a hook belongs to one output of the node, of which `reached` says that the pass does not reach it. The hook's
// class is hidden in libtorch, so that dynamic_cast does not link; its name and layout are public.
inline bool IsHookOfUnreachedOutput(const torch::autograd::FunctionPreHook& hook, const std::vector<bool>& reached) {
#if TORCH_VERSION_MAJOR >= 2
  using TensorHook = torch::autograd::CppFunctionTensorPreHook;
  constexpr const char* kName = "N5torch8autograd24CppFunctionTensorPreHookE";
#else
  using TensorHook = torch::autograd::CppFunctionPreHook;
  constexpr const char* kName = "N5torch8autograd18CppFunctionPreHookE";
#endif
  if (std::strcmp(typeid(hook).name(), kName) != 0) return false;
  const auto output = static_cast<size_t>(static_cast<const TensorHook&>(hook).value_idx_);
  return output < reached.size() && !reached[output];
}

// What libtorch's engine runs before a node: tensor hooks, then the node's own pre hooks, then retain-grad. With
// `reached` (a recv function's, which bundles tensors that a local graph would have at nodes of their own) those of
// outputs that the pass does not reach are left out, as the local engine would not come to them.
inline variable_list RunPreHooks(Node& node, variable_list inputs, const std::vector<bool>& reached = {}) {
  auto run = [&](const auto& hooks) {
    for (const auto& hook : hooks) {
      if (!IsHookOfUnreachedOutput(*hook, reached)) inputs = (*hook)(inputs);
    }
  };
#if TORCH_VERSION_MAJOR >= 2
  run(node.tensor_pre_hooks());
#endif
  run(node.pre_hooks());
#if TORCH_VERSION_MAJOR >= 2
  for (const auto& [output, hook] : node.retains_grad_hooks()) {
    const auto index = static_cast<size_t>(output);
    if (index >= reached.size() || reached[index]) inputs = (*hook)(inputs);
  }
#endif
  return inputs;
}

// Post hooks get the inputs too, unless there was no hook before the node ran (it may have consumed them).
inline variable_list RunPostHooks(Node& node, variable_list outputs, const variable_list& inputs) {
  for (const auto& hook : node.post_hooks()) outputs = (*hook)(outputs, inputs);
  return outputs;
}

// Hooks that a leaf's tensor carries: from version 2 on they are among the node's (RunPreHooks).
inline at::Tensor RunLeafHooks(const torch::autograd::AccumulateGrad& leaf, at::Tensor gradient) {
#if TORCH_VERSION_MAJOR >= 2
  (void)leaf;
  return gradient;
#else
  return torch::autograd::AccumulateGrad::callHooks(leaf.variable, std::move(gradient));
#endif
}

}  // namespace gradferry
