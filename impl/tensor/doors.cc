// See doors.h.
#include "impl/tensor/doors.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "impl/tensor/dtypes.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/packing.h"
#include "impl/tensor/torch_scope.h"
#include "impl/tensor/value.h"

namespace gradferry {
namespace {

// ---- Checks that all doors share ----

Status CheckSizes(c10::IntArrayRef sizes) {
  if (sizes.size() > static_cast<size_t>(kMaxTensorDims)) {
    return InvalidArgument(
        StrCat("a tensor of ", sizes.size(), " dimensions; at most ", kMaxTensorDims, " are allowed"));
  }
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] < 0) return InvalidArgument(StrCat("dimension ", d, " of a tensor has the negative size ", sizes[d]));
  }
  return OkStatus();
}

Status TooLarge() { return InvalidArgument("a tensor's sizes and strides reach beyond 2^63 bytes"); }

// Row-major strides, when everything up to their product with the outermost size fits.
Result<std::vector<int64_t>> RowMajor(c10::IntArrayRef sizes, int64_t element_size) {
  std::vector<int64_t> strides(sizes.size());
  int64_t bytes = element_size;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = bytes / element_size;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(sizes[d], 1), &bytes)) return TooLarge();
  }
  return strides;
}

// The number of elements, and the distance of the last one from the first, must be representable in bytes.
Status CheckExtent(c10::IntArrayRef sizes, c10::IntArrayRef strides, int64_t element_size) {
  GF_RETURN_IF_ERROR(RowMajor(sizes, element_size).status());
  int64_t last = 0;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (strides[d] < 0) {
      return Status(Code::kUnsupported, StrCat("dimension ", d, " of a tensor has the negative stride ", strides[d],
                                               ", which libtorch does not know"));
    }
    int64_t reach;
    if (__builtin_mul_overflow(std::max<int64_t>(sizes[d] - 1, 0), strides[d], &reach)) return TooLarge();
    if (__builtin_add_overflow(last, reach, &last)) return TooLarge();
  }
  int64_t end;
  if (__builtin_add_overflow(last, 1, &end) || __builtin_mul_overflow(end, element_size, &end)) return TooLarge();
  return OkStatus();
}

bool HasElements(c10::IntArrayRef sizes) { return std::find(sizes.begin(), sizes.end(), 0) == sizes.end(); }

Status CheckData(const void* data, c10::IntArrayRef sizes, c10::ScalarType type) {
  if (data == nullptr) {
    return HasElements(sizes) ? InvalidArgument("a tensor with elements has no memory (NULL)") : OkStatus();
  }
  const uintptr_t alignment = c10::elementSize(type);
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    return InvalidArgument(
        StrCat("a tensor's memory at ", data, " is not aligned to its elements of ", alignment, " bytes"));
  }
  return OkStatus();
}

// ---- Memory of others ----

// What a storage holds of its lender. Armed once nothing can fail any more, so that a failure gives nothing back.
struct Loan {
  std::function<void()> give_back;
};

void EndLoan(void* context) {
  std::unique_ptr<Loan> loan(static_cast<Loan*>(context));
  if (loan->give_back) loan->give_back();
}

struct Lent {
  c10::ScalarType type;
  void* data;
  c10::IntArrayRef sizes;
  const int64_t* strides;
};

// Throws what libtorch throws.
Result<at::Tensor> Borrow(const Lent& lent, std::function<void()> give_back) {
  GF_RETURN_IF_ERROR(CheckSizes(lent.sizes));
  const auto element_size = static_cast<int64_t>(c10::elementSize(lent.type));
  std::vector<int64_t> strides;
  if (lent.strides != nullptr) {
    strides.assign(lent.strides, lent.strides + lent.sizes.size());
  } else {
    GF_ASSIGN_OR_RETURN(strides, RowMajor(lent.sizes, element_size));
  }
  GF_RETURN_IF_ERROR(CheckExtent(lent.sizes, strides, element_size));
  GF_RETURN_IF_ERROR(CheckData(lent.data, lent.sizes, lent.type));
  TorchScope scope(GradRecording::kOff);
  auto* loan = new Loan;  // for_blob's context owns it from here on, also when make_tensor throws
  at::Tensor tensor = at::for_blob(lent.data, lent.sizes)
                          .strides(strides)
                          .context(loan, &EndLoan)
                          .target_device(c10::Device(c10::kCPU))
                          .options(at::TensorOptions(lent.type))
                          .make_tensor();
  loan->give_back = std::move(give_back);
  return tensor;
}

// ---- DLPack ----

const char* DeviceTypeName(int32_t type) {
  switch (type) {
    case dlpack::kCpu:
      return "CPU";
    case dlpack::kCuda:
      return "CUDA";
    case dlpack::kCudaHost:
      return "CUDA host";
    case dlpack::kOpenCl:
      return "OpenCL";
    case dlpack::kVulkan:
      return "Vulkan";
    case dlpack::kMetal:
      return "Metal";
    case dlpack::kVpi:
      return "VPI";
    case dlpack::kRocm:
      return "ROCm";
    case dlpack::kRocmHost:
      return "ROCm host";
    case dlpack::kExtension:
      return "extension";
    case dlpack::kCudaManaged:
      return "CUDA managed";
    case dlpack::kOneApi:
      return "oneAPI";
    case dlpack::kWebGpu:
      return "WebGPU";
    case dlpack::kHexagon:
      return "Hexagon";
    case dlpack::kMaia:
      return "MAIA";
    default:
      return "unknown";
  }
}

// Throws what libtorch throws.
Result<at::Tensor> BorrowDlpack(const dlpack::Tensor& tensor, std::function<void()> give_back) {
  if (tensor.device.device_type != dlpack::kCpu) {
    return Status(Code::kUnsupported,
                  StrCat("a DLPack tensor on a device of type ", tensor.device.device_type, " (",
                         DeviceTypeName(tensor.device.device_type), "); only the CPU is supported"));
  }
  if (tensor.dtype.lanes != 1) {
    return Status(Code::kUnsupported, StrCat("a DLPack tensor with ", tensor.dtype.lanes, " lanes an element"));
  }
  GF_ASSIGN_OR_RETURN(const c10::ScalarType type, ScalarTypeOf(tensor.dtype));
  if (tensor.ndim < 0) return InvalidArgument(StrCat("a DLPack tensor of ", tensor.ndim, " dimensions"));
  if (tensor.ndim > 0 && tensor.shape == nullptr) return InvalidArgument("a DLPack tensor without a shape (NULL)");
  Lent lent;
  lent.type = type;
  lent.data = tensor.data == nullptr ? nullptr : static_cast<char*>(tensor.data) + tensor.byte_offset;
  lent.sizes = c10::IntArrayRef(tensor.shape, static_cast<size_t>(tensor.ndim));
  lent.strides = tensor.strides;
  return Borrow(lent, std::move(give_back));
}

template <class Managed>
void Delete(Managed* managed) {
  if (managed->deleter != nullptr) managed->deleter(managed);
}

// A DLPack view of ours and what it needs.
struct Export {
  dlpack::ManagedTensorVersioned managed{};
  at::Tensor tensor;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
};

void DeleteExport(dlpack::ManagedTensorVersioned* managed) { delete static_cast<Export*>(managed->manager_ctx); }

Status CheckExportable(const at::Tensor& tensor) {
  if (!tensor.defined()) return InvalidArgument("an undefined tensor has no DLPack view");
  if (tensor.is_nested() || tensor.layout() != c10::kStrided || !tensor.is_cpu()) {
    return Status(Code::kUnsupported,
                  StrCat("only strided tensors on the CPU have a DLPack view, not ", DescribeTensor(tensor)));
  }
  if (tensor.requires_grad()) {
    return FailedPrecondition(
        StrCat("a tensor that requires grad has no DLPack view, because gradients would not flow "
               "through it; detach it first: ",
               DescribeTensor(tensor)));
  }
  return OkStatus();
}

// Strides as consumers like them: those of dimensions that are never walked along say nothing, so they are 1.
std::vector<int64_t> PlainStrides(const at::Tensor& tensor) {
  std::vector<int64_t> strides = tensor.strides().vec();
  for (size_t d = 0; d < strides.size(); ++d) {
    if (tensor.size(d) < 2) strides[d] = 1;
  }
  return strides;
}

// Throws what libtorch throws.
at::Tensor Materialized(const at::Tensor& tensor) {
  TorchScope scope(GradRecording::kOff);
  if (tensor._is_zerotensor()) return tensor.clone();
  return tensor.resolve_conj().resolve_neg();
}

}  // namespace

Result<c10::ScalarType> ScalarTypeOf(dlpack::DataType dtype) {
  for (const DtypeInfo& info : kDtypes) {
    if (info.code == dtype.code && info.bits == dtype.bits && dtype.lanes <= 1) return info.type;
  }
  return Status(Code::kUnsupported, StrCat("a dtype of code ", int{dtype.code}, ", ", int{dtype.bits}, " bits and ",
                                           dtype.lanes, " lanes is not supported"));
}

Result<dlpack::DataType> DlTypeOf(c10::ScalarType type) {
  if (const DtypeInfo* info = FindDtype(type)) return dlpack::DataType{info->code, info->bits, 1};
  return Status(Code::kUnsupported, StrCat("dtype ", c10::toString(type), " is not supported"));
}

Result<at::Tensor> FromMemory(const Memory& memory) {
  GF_ASSIGN_OR_RETURN(const c10::ScalarType type, ScalarTypeOf(memory.dtype));
  std::function<void()> give_back;
  if (memory.deleter != nullptr) {
    give_back = [deleter = memory.deleter, token = memory.deleter_token] { deleter(token); };
  }
  try {
    return Borrow({type, memory.data, memory.sizes, memory.strides}, std::move(give_back));
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<at::Tensor> FromDlpack(dlpack::ManagedTensorVersioned* managed) {
  if (managed == nullptr) return InvalidArgument("a DLPack tensor is NULL");
  if (managed->version.major != dlpack::kMajor) {
    return Status(Code::kUnsupported, StrCat("a DLPack tensor of version ", managed->version.major, ".",
                                             managed->version.minor, "; version ", dlpack::kMajor, " is supported"));
  }
  try {
    const bool read_only = (managed->flags & dlpack::kFlagReadOnly) != 0;
    if (!read_only) return BorrowDlpack(managed->dl_tensor, [managed] { Delete(managed); });
    GF_ASSIGN_OR_RETURN(const at::Tensor borrowed, BorrowDlpack(managed->dl_tensor, nullptr));
    TorchScope scope(GradRecording::kOff);
    at::Tensor copy = borrowed.clone();
    Delete(managed);
    return copy;
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<at::Tensor> FromDlpackLegacy(dlpack::ManagedTensor* managed) {
  if (managed == nullptr) return InvalidArgument("a DLPack tensor is NULL");
  try {
    return BorrowDlpack(managed->dl_tensor, [managed] { Delete(managed); });
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<dlpack::ManagedTensorVersioned*> ToDlpack(const at::Tensor& tensor) {
  GF_RETURN_IF_ERROR(CheckExportable(tensor));
  GF_ASSIGN_OR_RETURN(const dlpack::DataType dtype, DlTypeOf(tensor.scalar_type()));
  try {
    auto view = std::make_unique<Export>();
    view->tensor = Materialized(tensor);
    view->sizes = view->tensor.sizes().vec();
    view->strides = PlainStrides(view->tensor);
    dlpack::ManagedTensorVersioned& managed = view->managed;
    managed.version = {dlpack::kMajor, 0};
    managed.manager_ctx = view.get();
    managed.deleter = &DeleteExport;
    managed.flags = view->tensor.is_same(tensor) ? 0 : dlpack::kFlagIsCopied;
    managed.dl_tensor.data = view->tensor.data_ptr();
    managed.dl_tensor.device = {dlpack::kCpu, 0};
    managed.dl_tensor.ndim = static_cast<int32_t>(view->sizes.size());
    managed.dl_tensor.dtype = dtype;
    managed.dl_tensor.shape = view->sizes.data();
    managed.dl_tensor.strides = view->strides.data();
    return &view.release()->managed;
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<at::Tensor> EmptyTensor(dlpack::DataType dtype, c10::IntArrayRef sizes) {
  GF_ASSIGN_OR_RETURN(const c10::ScalarType type, ScalarTypeOf(dtype));
  GF_RETURN_IF_ERROR(CheckSizes(sizes));
  GF_RETURN_IF_ERROR(RowMajor(sizes, static_cast<int64_t>(c10::elementSize(type))).status());
  try {
    TorchScope scope(GradRecording::kOff);
    return at::Tensor(at::detail::empty_cpu(sizes, type));
  } catch (...) {
    return StatusFromTorchException();
  }
}

Status ReadElements(const at::Tensor& tensor, void* data, uint64_t size) {
  if (!tensor.defined() || tensor.is_nested() || tensor.layout() != c10::kStrided || !tensor.is_cpu()) {
    return Status(Code::kUnsupported,
                  StrCat("only strided tensors on the CPU can be read, not ", DescribeTensor(tensor)));
  }
  const uint64_t wanted = static_cast<uint64_t>(tensor.numel()) * tensor.element_size();
  if (size != wanted) {
    return InvalidArgument(
        StrCat("reading ", DescribeTensor(tensor), " needs a buffer of ", wanted, " bytes, got ", size));
  }
  if (size == 0) return OkStatus();
  if (data == nullptr) return InvalidArgument("the buffer to read a tensor into is NULL");
  try {
    TorchScope scope(GradRecording::kOff);
    // Through bytes, because the caller's buffer need not be aligned to the elements.
    const at::Tensor rows = Materialized(tensor).contiguous();
    std::copy_n(static_cast<const char*>(rows.data_ptr()), size, static_cast<char*>(data));
    return OkStatus();
  } catch (...) {
    return StatusFromTorchException();
  }
}

}  // namespace gradferry
