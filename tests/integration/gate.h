// A gate in a graph: a node behind which a pass goes on only when the test says so.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "tests/integration/aten.h"

namespace gf {

class Gate {
 public:
  // The same values; a pass stops at them until the gate is open. The gate outlives the graph.
  Tensor Behind(const Tensor& input) {
    return FromAten(Node::apply(ToAten(input), reinterpret_cast<int64_t>(this))[0]);
  }
  void Open() {
    {
      std::lock_guard lock(mutex_);
      open_ = true;
    }
    changed_.notify_all();
  }
  // Whether a pass stands before it or went through.
  bool reached() const { return reached_; }

 private:
  struct Node : torch::autograd::Function<Node> {
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                                                  int64_t gate) {
      context->saved_data["gate"] = gate;
      return {input.clone()};
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
      reinterpret_cast<Gate*>(context->saved_data["gate"].toInt())->Pass();
      return {gradients[0], at::Tensor()};
    }
  };

  void Pass() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.wait(lock, [this] { return open_; });
  }

  std::mutex mutex_;  // guards open_
  std::condition_variable changed_;
  bool open_ = false;
  std::atomic<bool> reached_{false};
};

}  // namespace gf
