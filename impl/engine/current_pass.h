// Which pass runs a node on this thread: for hooks and for backward within a node (re-entrant passes).
#pragma once

#include <ATen/core/Tensor.h>

namespace gradferry {

class Pass;

// Null when none does.
Pass* CurrentPass();

// Adds to the gradient that the context of the current pass holds for a tensor, leaf or not, as for a chosen input;
// taken back with the rest when that pass fails. False when no pass runs here.
bool AddToCurrentPass(const at::Tensor& tensor, at::Tensor gradient);

// Makes a pass the thread's current one while it lives.
class CurrentPassScope {
 public:
  explicit CurrentPassScope(Pass* pass);
  ~CurrentPassScope();
  CurrentPassScope(const CurrentPassScope&) = delete;

 private:
  Pass* const outer_;
};

}  // namespace gradferry
