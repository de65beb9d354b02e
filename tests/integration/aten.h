// Tensors of the C ABI as libtorch's own and back, for tests that need what only libtorch has: hooks, nodes of one's
// own, sparse tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/version.h>

#include <cstring>
#include <memory>

#include "tests/support/c_abi/gf.h"

namespace gf {

inline at::Tensor ToAten(const Tensor& tensor) {
  void* out = nullptr;
  Call(gf_tensor_to_aten, tensor, TORCH_VERSION, std::strlen(TORCH_VERSION), &out);
  const std::unique_ptr<at::Tensor> owned(static_cast<at::Tensor*>(out));
  return *owned;
}

inline Tensor FromAten(const at::Tensor& tensor) {
  Tensor out;
  Call(gf_tensor_from_aten, &tensor, TORCH_VERSION, std::strlen(TORCH_VERSION), out.out());
  return out;
}

}  // namespace gf
