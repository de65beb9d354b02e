// See packing.h.
#include "impl/tensor/packing.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "impl/tensor/dtypes.h"
#include "impl/tensor/large_memory.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"
#include "impl/tensor/value.h"

namespace gradferry {
namespace {

Status Unsupported(const at::Tensor& tensor, const char* why) {
  return Status(Code::kUnsupported, StrCat("cannot send a tensor ", why, ": ", DescribeTensor(tensor)));
}

bool IsExpanded(const TensorDescription& description, size_t dim) { return (description.expanded >> dim) & 1; }

// ---- Sending ----

Status CheckSendable(const at::Tensor& tensor) {
  if (tensor.is_nested()) return Unsupported(tensor, "that is nested");
  if (tensor.is_quantized()) return Unsupported(tensor, "that is quantized");
  if (!tensor.is_cpu()) return Unsupported(tensor, "that is not on the CPU");
  if (tensor.layout() != c10::kStrided && tensor.layout() != c10::kSparse) {
    return Unsupported(tensor, "of this layout");
  }
  if (FindDtype(tensor.scalar_type()) == nullptr) return Unsupported(tensor, "of this dtype");
  if (tensor.dim() > kMaxTensorDims) return Unsupported(tensor, "with more than 64 dimensions");
  return OkStatus();
}

// With memory, which lazy zeros lack, and without the graph, which bytes under way must not keep alive.
at::Tensor Bare(const at::Tensor& tensor) {
  const at::Tensor bare = tensor.requires_grad() ? tensor.detach() : tensor;
  return bare._is_zerotensor() ? bare.clone() : bare;
}

// With bytes that are the values: neither conjugated nor negated lazily.
at::Tensor Resolved(const at::Tensor& tensor) { return tensor.resolve_conj().resolve_neg(); }

// The dimensions whose index does not move in memory.
uint64_t ExpandedDims(const at::Tensor& tensor) {
  uint64_t expanded = 0;
  if (tensor.numel() == 0) return expanded;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.stride(d) == 0 && tensor.size(d) > 1) expanded |= uint64_t{1} << d;
  }
  return expanded;
}

// One element of each expanded dimension.
at::Tensor Narrowed(const at::Tensor& tensor, uint64_t expanded) {
  if (expanded == 0) return tensor;
  std::vector<int64_t> sizes = tensor.sizes().vec();
  for (size_t d = 0; d < sizes.size(); ++d) {
    if ((expanded >> d) & 1) sizes[d] = 1;
  }
  return tensor.as_strided(sizes, tensor.strides(), tensor.storage_offset());
}

// The dimensions but the expanded ones, outermost in memory first. Strides of dimensions of size 1 take part, so that
// the receiver's tensor has the same idea of its memory format: where two are equal, the inner one is of size 1.
std::vector<uint8_t> MemoryOrder(const at::Tensor& tensor, uint64_t expanded) {
  std::vector<uint8_t> order;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (!((expanded >> d) & 1)) order.push_back(static_cast<uint8_t>(d));
  }
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) {
    if (tensor.stride(a) != tensor.stride(b)) return tensor.stride(a) > tensor.stride(b);
    return tensor.size(a) > 1 && tensor.size(b) == 1;
  });
  return order;
}

// Whether the elements lie side by side in this order of dimensions.
bool IsDense(const at::Tensor& tensor, const std::vector<uint8_t>& order) {
  int64_t stride = 1;
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    if (tensor.size(*d) == 1) continue;
    if (tensor.stride(*d) != stride) return false;
    stride *= tensor.size(*d);
  }
  return true;
}

// The order as a description has it: empty when row-major, else with the expanded dimensions at the end.
std::vector<uint8_t> DescribedOrder(std::vector<uint8_t> order, uint64_t expanded) {
  if (std::is_sorted(order.begin(), order.end())) return {};
  for (uint8_t d = 0; d < kMaxTensorDims; ++d) {
    if ((expanded >> d) & 1) order.push_back(d);
  }
  return order;
}

TensorPart PartOf(at::Tensor owner, uint64_t length) {
  TensorPart part;
  part.length = length;
  part.data = length == 0 ? nullptr : owner.data_ptr();
  part.owner = std::move(owner);
  return part;
}

TensorPart WholePart(at::Tensor owner) {
  const uint64_t length = static_cast<uint64_t>(owner.numel()) * owner.element_size();
  return PartOf(std::move(owner), length);
}

Result<PackedTensor> PackDense(const at::Tensor& tensor) {
  PackedTensor packed;
  TensorDescription& description = packed.description;
  description.form = TensorForm::kDense;
  description.dtype = tensor.scalar_type();
  description.sizes = tensor.sizes().vec();
  const at::Tensor bare = Bare(tensor);
  description.expanded = ExpandedDims(bare);
  at::Tensor stored = Resolved(Narrowed(bare, description.expanded));
  if (stored.numel() > 0) {
    std::vector<uint8_t> order = MemoryOrder(stored, description.expanded);
    if (IsDense(stored, order)) {
      description.order = DescribedOrder(std::move(order), description.expanded);
    } else {
      stored = stored.contiguous();
    }
  }
  packed.parts.push_back(WholePart(std::move(stored)));
  if (packed.parts[0].length > 0 && packed.parts[0].data == nullptr) return Unsupported(tensor, "that has no memory");
  return packed;
}

Result<PackedTensor> PackSparse(const at::Tensor& tensor) {
  PackedTensor packed;
  TensorDescription& description = packed.description;
  const at::Tensor bare = Bare(tensor);
  description.form = TensorForm::kSparseCoo;
  description.dtype = bare.scalar_type();
  description.coalesced = bare.is_coalesced();
  description.sizes = bare.sizes().vec();
  description.nnz = bare._nnz();
  description.sparse_dim = bare.sparse_dim();
  packed.parts.push_back(WholePart(bare._indices().contiguous()));
  packed.parts.push_back(WholePart(Resolved(bare._values()).contiguous()));
  return packed;
}

// ---- Receiving ----

Status Invalid(const std::string& what) {
  return InvalidArgument(StrCat("a tensor's description is not valid: ", what));
}

Status CheckSizes(const TensorDescription& description) {
  if (description.sizes.size() > static_cast<size_t>(kMaxTensorDims)) {
    return Invalid(StrCat(description.sizes.size(), " dimensions, at most ", kMaxTensorDims, " are allowed"));
  }
  for (size_t d = 0; d < description.sizes.size(); ++d) {
    if (description.sizes[d] < 0) return Invalid(StrCat("dimension ", d, " has size ", description.sizes[d]));
  }
  return OkStatus();
}

// Bytes of a tensor of these sizes. Sizes of 0 count as 1 towards the limit, because libtorch multiplies its strides
// so.
Result<uint64_t> CheckedBytes(const std::vector<int64_t>& sizes, uint64_t element_size) {
  int64_t bytes = static_cast<int64_t>(element_size);
  bool empty = false;
  for (int64_t size : sizes) {
    empty |= size == 0;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) {
      return Invalid("its sizes multiply to more than 2^63 bytes");
    }
  }
  return empty ? uint64_t{0} : static_cast<uint64_t>(bytes);
}

Status CheckOrder(const TensorDescription& description) {
  const size_t dims = description.sizes.size();
  if (description.order.empty()) return OkStatus();
  if (description.order.size() != dims) {
    return Invalid(StrCat("an order of ", description.order.size(), " dimensions for ", dims));
  }
  uint64_t seen = 0;
  for (uint8_t d : description.order) {
    if (d >= dims) return Invalid(StrCat("its order names dimension ", int{d}, " of ", dims));
    if ((seen >> d) & 1) return Invalid(StrCat("its order names dimension ", int{d}, " twice"));
    seen |= uint64_t{1} << d;
  }
  return OkStatus();
}

Status CheckExpanded(const TensorDescription& description) {
  const size_t dims = description.sizes.size();
  if (dims < 64 && description.expanded >> dims != 0) {
    return Invalid(StrCat("an expanded dimension beyond its ", dims, " dimensions"));
  }
  for (size_t d = 0; d < dims; ++d) {
    if (IsExpanded(description, d) && description.sizes[d] < 2) {
      return Invalid(StrCat("dimension ", d, " of size ", description.sizes[d], " is marked as expanded"));
    }
  }
  return OkStatus();
}

Result<std::vector<uint64_t>> DenseLengths(const TensorDescription& description, uint64_t element_size) {
  GF_RETURN_IF_ERROR(CheckOrder(description));
  GF_RETURN_IF_ERROR(CheckExpanded(description));
  std::vector<int64_t> stored = description.sizes;
  GF_RETURN_IF_ERROR(CheckedBytes(stored, element_size).status());  // the expanded tensor must be representable too
  for (size_t d = 0; d < stored.size(); ++d) {
    if (IsExpanded(description, d)) stored[d] = 1;
  }
  GF_ASSIGN_OR_RETURN(uint64_t bytes, CheckedBytes(stored, element_size));
  return std::vector<uint64_t>{bytes};
}

std::vector<int64_t> ValueSizes(const TensorDescription& description) {
  std::vector<int64_t> sizes = {description.nnz};
  sizes.insert(sizes.end(), description.sizes.begin() + description.sparse_dim, description.sizes.end());
  return sizes;
}

Result<std::vector<uint64_t>> SparseLengths(const TensorDescription& description, uint64_t element_size) {
  if (!description.order.empty() || description.expanded != 0) return Invalid("a sparse tensor with an order of bytes");
  if (description.nnz < 0) return Invalid(StrCat(description.nnz, " specified elements"));
  if (description.sparse_dim < 0 || description.sparse_dim > static_cast<int64_t>(description.sizes.size())) {
    return Invalid(StrCat(description.sparse_dim, " sparse dimensions of ", description.sizes.size()));
  }
  GF_RETURN_IF_ERROR(CheckedBytes(description.sizes, element_size).status());
  GF_ASSIGN_OR_RETURN(uint64_t indices, CheckedBytes({description.sparse_dim, description.nnz}, sizeof(int64_t)));
  GF_ASSIGN_OR_RETURN(uint64_t values, CheckedBytes(ValueSizes(description), element_size));
  // Without bytes nothing bounds their number.
  if (indices + values == 0 && description.nnz > 1) return Invalid(StrCat(description.nnz, " elements of no bytes"));
  return std::vector<uint64_t>{indices, values};
}

// Strides of the tensor on the receiver's side: those of the sender as far as values and memory format go.
std::vector<int64_t> StoredStrides(const TensorDescription& description) {
  const std::vector<int64_t>& sizes = description.sizes;
  std::vector<uint8_t> order = description.order;
  if (order.empty()) {
    order.resize(sizes.size());
    std::iota(order.begin(), order.end(), uint8_t{0});
  }
  std::vector<int64_t> strides(sizes.size(), 0);
  int64_t stride = 1;
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    if (IsExpanded(description, *d)) continue;
    strides[*d] = stride;
    stride *= std::max<int64_t>(sizes[*d], 1);
  }
  return strides;
}

at::Tensor NewTensor(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides, c10::ScalarType dtype) {
  if (at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype)) < kLargeMemoryBytes) {
    return at::Tensor(at::detail::empty_strided_cpu(sizes, strides, dtype));
  }
  const c10::DispatchKeySet cpu(c10::DispatchKey::CPU);
  return at::Tensor(at::detail::empty_strided_generic(sizes, strides, LargeMemory(), cpu, dtype));
}

at::Tensor NewTensor(const std::vector<int64_t>& sizes, c10::ScalarType dtype) {
  if (at::detail::computeStorageNbytesContiguous(sizes, c10::elementSize(dtype)) < kLargeMemoryBytes) {
    return at::Tensor(at::detail::empty_cpu(sizes, dtype));
  }
  const c10::DispatchKeySet cpu(c10::DispatchKey::CPU);
  return at::Tensor(at::detail::empty_generic(sizes, LargeMemory(), cpu, dtype, c10::nullopt));
}

// A bool whose byte is neither 0 nor 1 is undefined behaviour in whatever reads it.
void NormalizeBools(const TensorPart& part) {
  auto* bytes = static_cast<uint8_t*>(part.data);
  for (uint64_t i = 0; i < part.length; ++i) bytes[i] = bytes[i] != 0;
}

Status CheckIndices(const TensorDescription& description, const int64_t* indices) {
  for (int64_t row = 0; row < description.sparse_dim; ++row) {
    const int64_t size = description.sizes[row];
    for (int64_t i = 0; i < description.nnz; ++i) {
      const int64_t index = indices[row * description.nnz + i];
      if (index < 0 || index >= size) {
        return Invalid(StrCat("index ", index, " in sparse dimension ", row, " of size ", size));
      }
    }
  }
  return OkStatus();
}

// Whether column a of the indices comes before column b.
bool ComesBefore(const TensorDescription& description, const int64_t* indices, int64_t a, int64_t b) {
  for (int64_t row = 0; row < description.sparse_dim; ++row) {
    const int64_t* values = indices + row * description.nnz;
    if (values[a] != values[b]) return values[a] < values[b];
  }
  return false;
}

Status CheckCoalesced(const TensorDescription& description, const int64_t* indices) {
  for (int64_t i = 0; i + 1 < description.nnz; ++i) {
    if (!ComesBefore(description, indices, i, i + 1)) {
      return Invalid(StrCat("it claims to be coalesced, but its indices do not rise at element ", i + 1));
    }
  }
  return OkStatus();
}

Result<at::Tensor> FinishSparse(const TensorDescription& description, const std::vector<TensorPart>& parts) {
  const auto* indices = static_cast<const int64_t*>(parts[0].data);
  GF_RETURN_IF_ERROR(CheckIndices(description, indices));
  if (description.coalesced) GF_RETURN_IF_ERROR(CheckCoalesced(description, indices));
  TorchScope scope(GradRecording::kOff);
  at::Tensor tensor = at::_sparse_coo_tensor_unsafe(parts[0].owner, parts[1].owner, description.sizes);
  tensor._coalesced_(description.coalesced);
  return tensor;
}

}  // namespace

Result<PackedTensor> Pack(const at::Tensor& tensor) {
  if (!tensor.defined()) return PackedTensor{};
  GF_RETURN_IF_ERROR(CheckSendable(tensor));
  try {
    TorchScope scope(GradRecording::kOff);
    Result<PackedTensor> packed = tensor.layout() == c10::kSparse ? PackSparse(tensor) : PackDense(tensor);
    if (!packed.ok()) return packed;
    // What the other side would refuse is refused here, where the tensor can be named.
    Status valid = PartLengths(packed->description).status();
    if (!valid.ok()) return valid.Wrap(Code::kUnsupported, StrCat("cannot send ", DescribeTensor(tensor)));
    return packed;
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<std::vector<uint64_t>> PartLengths(const TensorDescription& description) {
  if (description.form == TensorForm::kUndefined) return std::vector<uint64_t>{};
  if (FindDtype(description.dtype) == nullptr) {
    return Invalid(StrCat("dtype ", static_cast<int>(description.dtype), " is not known"));
  }
  const uint64_t element_size = c10::elementSize(description.dtype);
  GF_RETURN_IF_ERROR(CheckSizes(description));
  switch (description.form) {
    case TensorForm::kUndefined:
      break;
    case TensorForm::kDense:
      return DenseLengths(description, element_size);
    case TensorForm::kSparseCoo:
      return SparseLengths(description, element_size);
  }
  return Invalid(StrCat("form ", static_cast<int>(description.form), " is not known"));
}

Result<Unpacker> Unpacker::New(TensorDescription description) {
  GF_ASSIGN_OR_RETURN(const std::vector<uint64_t> lengths, PartLengths(description));
  Unpacker unpacker;
  std::vector<TensorPart>& parts = unpacker.parts_;
  try {
    TorchScope scope(GradRecording::kOff);
    if (description.form == TensorForm::kDense) {
      // Expanded dimensions have stride 0, so that libtorch allocates just the bytes that come.
      parts.push_back(PartOf(NewTensor(description.sizes, StoredStrides(description), description.dtype), lengths[0]));
    } else if (description.form == TensorForm::kSparseCoo) {
      parts.push_back(PartOf(NewTensor({description.sparse_dim, description.nnz}, c10::ScalarType::Long), lengths[0]));
      parts.push_back(PartOf(NewTensor(ValueSizes(description), description.dtype), lengths[1]));
    }
  } catch (...) {
    return StatusFromTorchException();
  }
  unpacker.description_ = std::move(description);
  return unpacker;
}

Result<at::Tensor> Unpacker::Finish() && {
  if (description_.form == TensorForm::kUndefined) return at::Tensor();
  if (description_.dtype == c10::ScalarType::Bool) NormalizeBools(parts_.back());
  if (description_.form == TensorForm::kDense) return std::move(parts_[0].owner);
  try {
    return FinishSparse(description_, parts_);
  } catch (...) {
    return StatusFromTorchException();
  }
}

Result<uint8_t> DtypeToWire(c10::ScalarType dtype) {
  if (const DtypeInfo* info = FindDtype(dtype)) return info->wire;
  return Status(Code::kUnsupported, StrCat("dtype ", c10::toString(dtype), " cannot be sent"));
}

Result<c10::ScalarType> DtypeFromWire(uint8_t number) {
  for (const DtypeInfo& info : kDtypes) {
    if (info.wire == number) return info.type;
  }
  return InvalidArgument(StrCat("dtype number ", int{number}, " is not known"));
}

}  // namespace gradferry
