// The sum of two gradients, out of place.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

namespace gradferry {

// Sparse as long as both are: libtorch adds sparse to dense, not the other way round.
inline at::Tensor AddGradients(const at::Tensor& a, const at::Tensor& b) {
  return a.is_sparse() && !b.is_sparse() ? at::add(b, a) : at::add(a, b);
}

}  // namespace gradferry
