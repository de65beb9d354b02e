// The one place that knows how libtorch versions differ about autograd nodes: who holds them (shared_ptr up to 2.6,
// intrusive_ptr later), which hooks they carry, and how to make one. Everything else speaks NodePtr.
#pragma once

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/api/include/torch/version.h>

#include <memory>
#include <type_traits>
#include <utility>

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

// What libtorch's engine runs before a node: tensor hooks, then the node's own pre hooks, then retain-grad.
inline variable_list RunPreHooks(Node& node, variable_list inputs) {
#if TORCH_VERSION_MAJOR >= 2
  for (const auto& hook : node.tensor_pre_hooks()) inputs = (*hook)(inputs);
#endif
  for (const auto& hook : node.pre_hooks()) inputs = (*hook)(inputs);
#if TORCH_VERSION_MAJOR >= 2
  for (const auto& [index, hook] : node.retains_grad_hooks()) inputs = (*hook)(inputs);
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
