// Tensors as bytes and back. Pack() gives a description and views of the bytes in memory, copying only what is not
// dense; Unpacker checks a description that came from a peer, allocates the tensor, and says where its bytes go.
// Nothing here trusts a description: sizes, strides and sparse indices are checked before and after the bytes arrive.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "impl/base/status.h"

namespace gradferry {

enum class TensorForm : uint8_t {
  kUndefined = 0,  // no tensor: an undefined gradient
  kDense = 1,      // one part: the elements
  kSparseCoo = 2,  // two parts: indices (int64, [sparse_dim, nnz]) and values
};

// What the header says about a tensor.
struct TensorDescription {
  TensorForm form = TensorForm::kUndefined;
  c10::ScalarType dtype = c10::ScalarType::Float;
  bool requires_grad = false;  // an autograd edge belongs to it; set by the caller of Pack
  bool coalesced = false;      // sparse only
  std::vector<int64_t> sizes;
  // Dense only. Empty: the bytes are row-major. Otherwise a permutation of the dimensions, outermost first in memory:
  // tensors that are dense in another order (transposed, channels_last) keep it.
  std::vector<uint8_t> order;
  // Dense only. Bit d: dimension d is expanded (stride 0): one element of it travels, the receiver expands.
  uint64_t expanded = 0;
  // Sparse only.
  int64_t nnz = 0;
  int64_t sparse_dim = 0;
};

// A run of bytes of a tensor, and what keeps it alive.
struct TensorPart {
  at::Tensor owner;
  void* data = nullptr;
  uint64_t length = 0;
};

struct PackedTensor {
  TensorDescription description;
  std::vector<TensorPart> parts;
};

inline constexpr int64_t kMaxTensorDims = 64;

// Strided tensors that are dense in some order of dimensions are viewed in place; others are packed into new memory:
// what is sent is the elements, never the storage around them. Lazy conjugate and negative bits are resolved.
// kUnsupported for devices other than the CPU, layouts other than strided and COO, quantized and nested tensors; the
// error describes the tensor.
Result<PackedTensor> Pack(const at::Tensor& tensor);

// Bytes of each part that a description asks for, or an error when the description is not valid: negative or
// overflowing sizes, more than kMaxTensorDims dimensions, an order that is no permutation, an unknown dtype.
// Allocates nothing.
Result<std::vector<uint64_t>> PartLengths(const TensorDescription& description);

// A tensor on its way in. Make one, let the parts be filled, then Finish.
class Unpacker {
 public:
  // Allocates the memory for the parts (CPU, 64-byte aligned by libtorch's allocator).
  static Result<Unpacker> New(TensorDescription description);
  std::vector<TensorPart>& parts() { return parts_; }
  // The tensor: a leaf that does not require grad. Sparse indices are checked against the sizes here.
  Result<at::Tensor> Finish() &&;

 private:
  TensorDescription description_;
  std::vector<TensorPart> parts_;
};

// Wire numbers of dtypes, independent of libtorch's enum: uint8 0, int8 1, int16 2, int32 3, int64 4, float16 5,
// float32 6, float64 7, complex64 9, complex128 10, bool 11, bfloat16 15 (libtorch's own stable numbers).
Result<uint8_t> DtypeToWire(c10::ScalarType dtype);
Result<c10::ScalarType> DtypeFromWire(uint8_t number);

}  // namespace gradferry
