// Tensors: the four doors, and what a tensor says about itself. gf_tensor_*.
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "impl/tensor/doors.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {
namespace {

gf_tensor* NewTensor(at::Tensor tensor) { return MakeHandle<gf_tensor>(TensorObject{std::move(tensor)}); }

dlpack::DataType DtypeIn(uint8_t code, uint8_t bits, uint16_t lanes) {
  return {code, bits, lanes == 0 ? uint16_t{1} : lanes};
}

// A shape that came in. More than 64 dimensions are refused before libtorch would count them.
Result<c10::IntArrayRef> ShapeIn(const int64_t* shape, int64_t ndim) {
  if (ndim < 0 || ndim > 64) return InvalidArgument(StrCat("a tensor has 0 to 64 dimensions, got ", ndim));
  if (ndim > 0 && shape == nullptr) return InvalidArgument(StrCat("the shape is NULL, with ", ndim, " dimensions"));
  return c10::IntArrayRef(shape, static_cast<size_t>(ndim));
}

uint32_t DeviceTypeOut(c10::Device device) {
  if (device.is_cpu()) return GF_DEVICE_CPU;
  return device.is_cuda() ? GF_DEVICE_CUDA : GF_DEVICE_EXT;
}

uint32_t LayoutOut(const at::Tensor& tensor) {
  if (tensor.is_nested()) return GF_LAYOUT_OTHER;
  if (tensor.layout() == c10::kStrided) return GF_LAYOUT_STRIDED;
  return tensor.layout() == c10::kSparse ? GF_LAYOUT_SPARSE_COO : GF_LAYOUT_OTHER;
}

// A conjugated or negated view shares bytes that say something else.
bool BytesAreElements(const at::Tensor& tensor) {
  return tensor.is_cpu() && !tensor.is_conj() && !tensor.is_neg() && !tensor._is_zerotensor();
}

Result<gf_tensor_info> Describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return InvalidArgument("the tensor is undefined: it has neither dtype nor shape");
  GF_ASSIGN_OR_RETURN(dlpack::DataType dtype, DlTypeOf(tensor.scalar_type()));
  gf_tensor_info info{};
  info.dtype_code = dtype.code;
  info.dtype_bits = dtype.bits;
  info.dtype_lanes = dtype.lanes;
  info.device_type = DeviceTypeOut(tensor.device());
  info.device_index = tensor.device().has_index() ? tensor.device().index() : 0;
  info.layout = LayoutOut(tensor);
  info.requires_grad = tensor.requires_grad() ? 1 : 0;
  info.is_leaf = tensor.is_leaf() ? 1 : 0;
  info.ndim = tensor.dim();
  info.numel = tensor.numel();
  // A nested tensor has no shape.
  if (!tensor.is_nested()) info.shape = tensor.sizes().data();
  if (info.layout == GF_LAYOUT_STRIDED) {
    info.strides = tensor.strides().data();
    if (BytesAreElements(tensor)) info.data = tensor.data_ptr();
  }
  return info;
}

Status SetRequiresGrad(const at::Tensor& tensor, bool requires_grad) {
  if (!tensor.defined()) return InvalidArgument("the tensor is undefined: it cannot require grad");
  bool differentiable = at::isFloatingType(tensor.scalar_type()) || at::isComplexType(tensor.scalar_type());
  if (requires_grad && !differentiable) {
    return InvalidArgument(
        StrCat("only floating point and complex tensors can require grad, not ", DescribeTensor(tensor)));
  }
  if (!tensor.is_leaf()) {
    if (requires_grad) return OkStatus();
    return FailedPrecondition(
        StrCat("a result of recorded operators always requires grad; detach it instead: ", DescribeTensor(tensor)));
  }
  tensor.set_requires_grad(requires_grad);
  return OkStatus();
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_tensor_from_memory(const gf_memory* memory, gf_tensor** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(gf_memory given, StructIn(memory, "gf_memory"));
    Memory lent;
    lent.dtype = DtypeIn(given.dtype_code, given.dtype_bits, given.dtype_lanes);
    lent.data = given.data;
    GF_ASSIGN_OR_RETURN(lent.sizes, ShapeIn(given.shape, given.ndim));
    lent.strides = given.strides;
    lent.deleter = given.deleter;
    lent.deleter_token = given.deleter_token;
    GF_ASSIGN_OR_RETURN(at::Tensor tensor, FromMemory(lent));
    *out = NewTensor(std::move(tensor));
    return OkStatus();
  });
}

int32_t gf_tensor_empty(const gf_shape* shape, gf_tensor** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(gf_shape given, StructIn(shape, "gf_shape"));
    GF_ASSIGN_OR_RETURN(c10::IntArrayRef sizes, ShapeIn(given.shape, given.ndim));
    dlpack::DataType dtype = DtypeIn(given.dtype_code, given.dtype_bits, given.dtype_lanes);
    GF_ASSIGN_OR_RETURN(at::Tensor tensor, EmptyTensor(dtype, sizes));
    *out = NewTensor(std::move(tensor));
    return OkStatus();
  });
}

int32_t gf_tensor_from_dlpack(struct DLManagedTensorVersioned* dlpack, gf_tensor** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(at::Tensor tensor, FromDlpack(reinterpret_cast<dlpack::ManagedTensorVersioned*>(dlpack)));
    *out = NewTensor(std::move(tensor));
    return OkStatus();
  });
}

int32_t gf_tensor_from_dlpack_legacy(struct DLManagedTensor* dlpack, gf_tensor** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(at::Tensor tensor, FromDlpackLegacy(reinterpret_cast<dlpack::ManagedTensor*>(dlpack)));
    *out = NewTensor(std::move(tensor));
    return OkStatus();
  });
}

int32_t gf_tensor_to_dlpack(gf_tensor* tensor, struct DLManagedTensorVersioned** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* object, Get(tensor));
    GF_ASSIGN_OR_RETURN(auto* view, ToDlpack(object->tensor));
    *out = reinterpret_cast<struct DLManagedTensorVersioned*>(view);
    return OkStatus();
  });
}

int32_t gf_tensor_from_aten(const void* at_tensor, const char* torch_version, size_t length, gf_tensor** out,
                            gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(std::string_view version, TextIn(torch_version, length, "torch_version"));
    GF_ASSIGN_OR_RETURN(at::Tensor tensor, FromAten(at_tensor, version));
    *out = NewTensor(std::move(tensor));
    return OkStatus();
  });
}

int32_t gf_tensor_adopt_aten(void* at_tensor, const char* torch_version, size_t length, gf_tensor** out,
                             gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(std::string_view version, TextIn(torch_version, length, "torch_version"));
    GF_ASSIGN_OR_RETURN(at::Tensor tensor, AdoptAten(at_tensor, version));
    *out = NewTensor(std::move(tensor));
    return OkStatus();
  });
}

int32_t gf_tensor_to_aten(gf_tensor* tensor, const char* torch_version, size_t length, void** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* object, Get(tensor));
    GF_ASSIGN_OR_RETURN(std::string_view version, TextIn(torch_version, length, "torch_version"));
    GF_ASSIGN_OR_RETURN(*out, ToAten(object->tensor, version));
    return OkStatus();
  });
}

gf_tensor* gf_tensor_ref(gf_tensor* tensor) { return RefHandle(tensor); }

void gf_tensor_unref(gf_tensor* tensor) { UnrefHandle(tensor); }

int32_t gf_tensor_describe(gf_tensor* tensor, gf_tensor_info* info, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_RETURN_IF_ERROR(CheckStructSize(info, sizeof(gf_tensor_info), "gf_tensor_info"));
    StructOut(gf_tensor_info{}, info);
    GF_ASSIGN_OR_RETURN(const auto* object, Get(tensor));
    GF_ASSIGN_OR_RETURN(gf_tensor_info described, Describe(object->tensor));
    StructOut(described, info);
    return OkStatus();
  });
}

int32_t gf_tensor_set_requires_grad(gf_tensor* tensor, int32_t requires_grad, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* object, Get(tensor));
    TorchScope scope(GradRecording::kOff);
    return SetRequiresGrad(object->tensor, requires_grad != 0);
  });
}

int32_t gf_tensor_read(gf_tensor* tensor, void* data, size_t size, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* object, Get(tensor));
    return ReadElements(object->tensor, data, size);
  });
}

int32_t gf_tensor_is_same(gf_tensor* a, gf_tensor* b) {
  return OrElse(int32_t{0}, [&]() -> int32_t {
    const TensorObject* first = Peek(a);
    const TensorObject* second = Peek(b);
    bool tensors = first != nullptr && second != nullptr && first->tensor.defined();
    return tensors && first->tensor.is_same(second->tensor) ? 1 : 0;
  });
}
