// The gradients that wait at one node, one slot per input: contributions are added up as they come. An undefined
// contribution leaves the slot as it is.
#pragma once

#include "impl/autograd/node.h"

namespace gradferry {

class InputBuffer {
 public:
  // Adds `gradient` to the slot. In place only into memory that nobody but this buffer can see.
  void Add(size_t slot, at::Tensor gradient);
  const variable_list& slots() const { return slots_; }
  // The gradients, padded with undefined ones to at least `slots`.
  variable_list Take(size_t slots) &&;

 private:
  variable_list slots_;
};

}  // namespace gradferry
