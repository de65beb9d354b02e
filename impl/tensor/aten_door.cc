// Door 3 of doors.h: at::Tensor pointers of a caller that uses libtorch too, and the check that it is the same one.
#include <ATen/EmptyTensor.h>
#include <ATen/Version.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <c10/core/TensorImpl.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <array>
#include <cstring>
#include <memory>

#include "impl/tensor/doors.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"
#include "impl/tensor/value.h"

namespace gradferry {
namespace {

// "2.6.0" of "2.6.0+cpu": builds of one version differ in the rest.
std::string_view Release(std::string_view version) { return version.substr(0, version.find('+')); }

// The loaded library says its version only within its description of itself.
std::string ReadLoadedVersion() {
  static constexpr char kKey[] = "TORCH_VERSION=";
  const std::string config = at::show_config();
  const size_t at = config.find(kKey);
  if (at == std::string::npos) return TORCH_VERSION;
  const size_t begin = at + std::strlen(kKey);
  return config.substr(begin, config.find_first_of(", \n", begin) - begin);
}

// An object begins with the address of its class's virtual table.
const void* VirtualTable(const void* object) {
  const void* table;
  std::memcpy(&table, object, sizeof(table));
  return table;
}

struct File {
  const void* base = nullptr;  // nullptr: the address is in no loaded file
  std::string path;
};

File FileOf(const void* address) {
  Dl_info info;
  if (dladdr(address, &info) == 0) return {};
  return {info.dli_fbase, info.dli_fname == nullptr ? "" : info.dli_fname};
}

// The files that hold the virtual tables of our own tensors: libc10 has TensorImpl, libtorch_cpu those of sparse and
// other special tensors. One file in a program that has libtorch linked in.
const std::array<File, 2>& OurFiles() {
  static const auto* const files = [] {
    TorchScope scope(GradRecording::kOff);
    const at::Tensor dense(at::detail::empty_cpu({1, 0}, c10::ScalarType::Long));
    const at::Tensor sparse = at::_sparse_coo_tensor_unsafe(dense, dense.view({0}), {1});
    return new std::array<File, 2>{FileOf(VirtualTable(dense.unsafeGetTensorImpl())),
                                   FileOf(VirtualTable(sparse.unsafeGetTensorImpl()))};
  }();
  return *files;
}

Status CheckOrigin(const void* impl) {
  const File theirs = FileOf(VirtualTable(impl));
  for (const File& ours : OurFiles()) {
    if (theirs.base != nullptr && theirs.base == ours.base) return OkStatus();
  }
  return FailedPrecondition(StrCat("the at::Tensor is not of the libtorch that this library uses (", OurFiles()[0].path,
                                   "), but of ", theirs.path.empty() ? "no loaded library" : theirs.path));
}

}  // namespace

const std::string& CompiledTorchVersion() {
  static const auto* const version = new std::string(TORCH_VERSION);
  return *version;
}

const std::string& LoadedTorchVersion() {
  static const auto* const version = new std::string(ReadLoadedVersion());
  return *version;
}

Status CheckTorchVersion(std::string_view version) {
  if (Release(version) == Release(LoadedTorchVersion())) return OkStatus();
  return FailedPrecondition(StrCat("at::Tensors of libtorch ", version.empty() ? "(no version given)" : version,
                                   " cannot be exchanged: libtorch ", LoadedTorchVersion(), " is loaded"));
}

Status CheckAten(const void* at_tensor, std::string_view version) {
  try {
    GF_RETURN_IF_ERROR(CheckTorchVersion(version));
    if (at_tensor == nullptr) return InvalidArgument("the at::Tensor is NULL");
    if (reinterpret_cast<uintptr_t>(at_tensor) % alignof(at::Tensor) != 0) {
      return InvalidArgument("the pointer is no at::Tensor's: it is not aligned");
    }
    static_assert(sizeof(at::Tensor) == sizeof(void*), "an at::Tensor is one pointer to its TensorImpl");
    const void* impl;
    std::memcpy(&impl, at_tensor, sizeof(impl));
    if (impl == nullptr || reinterpret_cast<uintptr_t>(impl) % alignof(c10::TensorImpl) != 0) {
      return InvalidArgument("the pointer is no at::Tensor's: it holds no TensorImpl");
    }
    return CheckOrigin(impl);
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<at::Tensor> FromAten(const void* at_tensor, std::string_view version) {
  GF_RETURN_IF_ERROR(CheckAten(at_tensor, version));
  const at::Tensor& tensor = *static_cast<const at::Tensor*>(at_tensor);
  if (!tensor.defined()) return InvalidArgument("the at::Tensor is undefined");
  return tensor;
}

Result<at::Tensor> AdoptAten(void* at_tensor, std::string_view version) {
  GF_ASSIGN_OR_RETURN(at::Tensor tensor, FromAten(at_tensor, version));
  delete static_cast<at::Tensor*>(at_tensor);
  return tensor;
}

Result<void*> ToAten(const at::Tensor& tensor, std::string_view version) {
  GF_RETURN_IF_ERROR(CheckTorchVersion(version));
  return static_cast<void*>(new at::Tensor(tensor));
}

}  // namespace gradferry
