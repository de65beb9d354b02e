// The four doors through which tensors come in and go out: memory of the caller, DLPack, libtorch's own at::Tensor, and
// memory that we allocate. The C boundary is the only caller; it has checked that its own structs are well formed, all
// else is checked here. Nothing that fails takes over what it was given. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "impl/base/status.h"
#include "impl/tensor/dlpack_abi.h"

namespace gradferry {

// ---- Dtypes ----

// kUnsupported, in both directions, for what the wire does not carry; lanes 0 counts as 1.
Result<c10::ScalarType> ScalarTypeOf(dlpack::DataType dtype);
Result<dlpack::DataType> DlTypeOf(c10::ScalarType type);

// ---- Door 1: memory of the caller ----

struct Memory {
  dlpack::DataType dtype{};
  void* data = nullptr;  // aligned to an element; nullptr only without elements
  c10::IntArrayRef sizes;
  const int64_t* strides = nullptr;  // sizes.size() of them, in elements, none negative; nullptr: row-major
  void (*deleter)(uintptr_t token) = nullptr;
  uintptr_t deleter_token = 0;
};

// A tensor over that memory, without a copy. The deleter runs once, when the last user is gone, on its thread; it does
// not run when this fails.
Result<at::Tensor> FromMemory(const Memory& memory);

// ---- Door 2: DLPack ----

// Takes the DLPack tensor over: its deleter runs once, when the last user is gone. On failure it stays the caller's. A
// read-only tensor is copied (and its deleter runs at once), because no libtorch tensor is read-only. kUnsupported
// names what is not taken: another major version, device or dtype, or negative strides.
Result<at::Tensor> FromDlpack(dlpack::ManagedTensorVersioned* managed);
Result<at::Tensor> FromDlpackLegacy(dlpack::ManagedTensor* managed);

// A DLPack 1.0 view that keeps the tensor's memory alive until its deleter is called. Lazy conjugate and negative bits
// are resolved into a copy, which its flags say. kFailedPrecondition for a tensor that requires grad, kUnsupported for
// one that is not strided or not on the CPU.
Result<dlpack::ManagedTensorVersioned*> ToDlpack(const at::Tensor& tensor);

// ---- Door 3: at::Tensor ----

// TORCH_VERSION of the headers that we were compiled with, and of the library that is loaded ("1.13.1").
const std::string& CompiledTorchVersion();
const std::string& LoadedTorchVersion();

// kFailedPrecondition unless the version is that of the libtorch that we use.
Status CheckTorchVersion(std::string_view version);

// Whether the at::Tensor behind this pointer belongs to the libtorch that we use: the version must be ours, and the
// virtual table of its TensorImpl must lie in one of the files that hold our own tensors' (libc10, libtorch_cpu).
//
// What it detects: a caller that was compiled with another version, and one whose tensors come from a second copy of
// libtorch in the process (a Python wheel's beside the system's, one linked in statically), even of the same version.
// What it cannot: that the pointer points to an at::Tensor at all, when it is neither NULL nor unaligned; that it is
// still alive; that the caller's build has another ABI of libstdc++ or other flags under the same version. A tensor
// with a TensorImpl of the caller's own class is refused, although it might work.
Status CheckAten(const void* at_tensor, std::string_view version);

// Another reference to the borrowed tensor, with its autograd graph.
Result<at::Tensor> FromAten(const void* at_tensor, std::string_view version);
// The same, and deletes the at::Tensor (never on failure).
Result<at::Tensor> AdoptAten(void* at_tensor, std::string_view version);
// A new at::Tensor that the caller deletes.
Result<void*> ToAten(const at::Tensor& tensor, std::string_view version);

// ---- Door 4: our memory ----

// A contiguous CPU tensor whose values are not set.
Result<at::Tensor> EmptyTensor(dlpack::DataType dtype, c10::IntArrayRef sizes);

// Copies the elements, row-major, into size bytes; size must be exactly theirs. Strided CPU tensors only.
Status ReadElements(const at::Tensor& tensor, void* data, uint64_t size);

}  // namespace gradferry
