// Which operator calls are so short that handing them to another thread would cost more than running them.
#pragma once

#include <string>

#include "impl/tensor/value.h"

namespace gradferry {

// A call of an operator of a fixed list (arithmetic, comparisons and common functions element by element, the dot
// product of vectors, clone) whose work is bounded by the product of its tensors' numbers of elements, when that is
// small. True promises that it takes microseconds; it never waits and runs no code but libtorch's.
bool IsQuick(const std::string& name, const ValueList& arguments);

}  // namespace gradferry
