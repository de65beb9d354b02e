#include "plugins/thrift/gateway_values.h"

#include <algorithm>
#include <numeric>

#include "plugins/thrift/wire.h"

namespace gradferry::thrift {
namespace {

constexpr int kDeepest = 64;

// Bytes of a dense tensor; false when they are too many to count.
bool ByteCount(const std::vector<int64_t>& sizes, uint64_t element, uint64_t* out) {
  uint64_t bytes = element;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) || bytes >> 62 != 0) return false;
  }
  *out = bytes;
  return true;
}

Status Unreadable() { return {GF_UNSUPPORTED, "the worker answered in a way that the thrift plugin does not know"}; }

// How the elements of a tensor lie in what travelled; in row-major order unless order says otherwise.
struct Layout {
  std::vector<int64_t> sizes;
  std::vector<uint8_t> order;  // empty: row-major
  uint64_t expanded = 0;

  bool IsRowMajor() const { return order.empty() && expanded == 0; }
  int64_t Travelled(size_t dimension) const { return (expanded >> dimension & 1) != 0 ? 1 : sizes[dimension]; }
};

// Appends the elements in row-major order.
void Gather(const Layout& layout, uint64_t element, std::string_view data, std::string* out) {
  const size_t dimensions = layout.sizes.size();
  std::vector<uint8_t> order = layout.order;
  if (order.empty()) {
    order.resize(dimensions);
    std::iota(order.begin(), order.end(), uint8_t{0});
  }
  std::vector<uint64_t> strides(dimensions, 0);
  uint64_t stride = element;
  for (size_t i = dimensions; i > 0; --i) {
    const uint8_t dimension = order[i - 1];
    if ((layout.expanded >> dimension & 1) != 0) continue;
    strides[dimension] = stride;
    stride *= static_cast<uint64_t>(layout.sizes[dimension]);
  }
  std::vector<int64_t> index(dimensions, 0);
  for (uint64_t at = 0;;) {
    out->append(data.substr(at, element));
    size_t dimension = dimensions;
    for (; dimension > 0; --dimension) {
      const size_t d = dimension - 1;
      at += strides[d];
      if (++index[d] < layout.sizes[d]) break;
      at -= strides[d] * static_cast<uint64_t>(layout.sizes[d]);
      index[d] = 0;
    }
    if (dimension == 0) return;
  }
}

// What a message says of a tensor.
struct Description {
  bool defined = false;
  uint8_t dtype = 0;
  uint64_t element = 0;
  Layout layout;
  uint64_t sent = 0;   // bytes that travelled
  uint64_t whole = 0;  // bytes of all elements
};

Status ReadDescription(WireReader* from, Description* out) {
  const uint8_t form = from->U8();
  if (form == 0) return from->ok() ? Status() : Unreadable();
  if (form == 2) return {GF_UNSUPPORTED, "a sparse tensor cannot be given to a client of Thrift"};
  const uint8_t flags = from->U8();
  out->dtype = from->U8();
  out->element = ElementSize(out->dtype);
  if (form != 1 || out->element == 0) return Unreadable();
  out->defined = true;
  Layout& layout = out->layout;
  layout.sizes.resize(from->U8());
  if (layout.sizes.size() > kMostDimensions) return Unreadable();
  for (int64_t& size : layout.sizes) size = from->I64();
  if ((flags & 2) != 0) {
    for (const char dimension : from->Raw(layout.sizes.size())) {
      if (static_cast<uint8_t>(dimension) >= layout.sizes.size()) return Unreadable();
      layout.order.push_back(static_cast<uint8_t>(dimension));
    }
  }
  if ((flags & 4) != 0) layout.expanded = from->U64();
  std::vector<int64_t> travelled;
  for (size_t d = 0; d < layout.sizes.size(); ++d) travelled.push_back(layout.Travelled(d));
  if (!from->ok() || !ByteCount(layout.sizes, out->element, &out->whole) ||
      !ByteCount(travelled, out->element, &out->sent)) {
    return Unreadable();
  }
  return {};
}

Status WriteTensor(WireReader* from, InTensors* tensors, ThriftWriter* to) {
  Description tensor;
  std::string_view data;
  if (Status status = ReadDescription(from, &tensor); !status.ok() || !tensor.defined) return status;
  if (!tensors->Take(tensor.sent, &data)) return Unreadable();
  if (tensor.whole > kMaxMessage) return {GF_UNSUPPORTED, "a tensor is too large for a Thrift message"};
  to->Field(ThriftType::kStruct, 6);
  to->Field(ThriftType::kI32, 1);
  to->I32(tensor.dtype);
  to->Field(ThriftType::kList, 2);
  to->List(ThriftType::kI64, static_cast<uint32_t>(tensor.layout.sizes.size()));
  for (const int64_t size : tensor.layout.sizes) to->I64(size);
  to->Field(ThriftType::kString, 3);
  to->I32(static_cast<int32_t>(tensor.whole));
  if (tensor.layout.IsRowMajor()) {
    to->out()->append(data);
  } else if (tensor.whole != 0) {
    Gather(tensor.layout, tensor.element, data, to->out());
  }
  to->Stop();
  return {};
}

// Whether there is a tensor for the inline segment.
bool HasSmallTensor(WireReader* from, int depth) {
  bool small = false;
  for (uint32_t left = from->U32(); left > 0 && from->ok() && depth <= kDeepest; --left) {
    switch (from->U8()) {
      case ValueKind::kNone:
        break;
      case ValueKind::kBool:
        from->Bool();
        break;
      case ValueKind::kInt:
      case ValueKind::kDouble:
        from->U64();
        break;
      case ValueKind::kString:
      case ValueKind::kBytes:
        from->String();
        break;
      case ValueKind::kTensor: {
        Description tensor;
        if (!ReadDescription(from, &tensor).ok()) return small;
        if (tensor.sent != 0 && tensor.sent <= kInlineBytes) small = true;
        break;
      }
      case ValueKind::kList:
        if (HasSmallTensor(from, depth + 1)) small = true;
        break;
      default:
        return small;
    }
  }
  return small;
}

Status WriteValues(WireReader* from, InTensors* tensors, ThriftWriter* to, int depth);

Status WriteValue(WireReader* from, InTensors* tensors, ThriftWriter* to, int depth) {
  Status status;
  switch (from->U8()) {
    case ValueKind::kNone:
      break;
    case ValueKind::kBool:
      to->Field(ThriftType::kBool, 1);
      to->Bool(from->Bool());
      break;
    case ValueKind::kInt:
      to->Field(ThriftType::kI64, 2);
      to->I64(from->I64());
      break;
    case ValueKind::kDouble:
      to->Field(ThriftType::kDouble, 3);
      to->Double(from->F64());
      break;
    case ValueKind::kString:
      to->Field(ThriftType::kString, 4);
      to->Binary(from->String());
      break;
    case ValueKind::kBytes:
      to->Field(ThriftType::kString, 5);
      to->Binary(from->String());
      break;
    case ValueKind::kTensor:
      status = WriteTensor(from, tensors, to);
      break;
    case ValueKind::kList:
      to->Field(ThriftType::kList, 7);
      status = WriteValues(from, tensors, to, depth + 1);
      break;
    default:
      return Unreadable();
  }
  to->Stop();
  return from->ok() ? status : Unreadable();
}

Status WriteValues(WireReader* from, InTensors* tensors, ThriftWriter* to, int depth) {
  const uint32_t count = from->U32();
  if (depth > kDeepest || count > from->left()) return Unreadable();
  to->List(ThriftType::kStruct, count);
  for (uint32_t i = 0; i < count; ++i) {
    if (Status status = WriteValue(from, tensors, to, depth); !status.ok()) return status;
  }
  return {};
}

}  // namespace

void InTensors::Place(bool has_inline) {
  has_inline_ = has_inline;
  next_ = has_inline ? 1 : 0;
}

bool InTensors::Take(uint64_t bytes, std::string_view* out) {
  *out = {};
  if (bytes == 0) return true;
  if (bytes > kInlineBytes) {
    if (next_ >= segments_.size() || segments_[next_].size() != bytes) return false;
    *out = segments_[next_++];
    return true;
  }
  inline_at_ = (inline_at_ + kAlignment - 1) / kAlignment * kAlignment;
  if (!has_inline_ || segments_.empty() || inline_at_ + bytes > segments_.front().size()) return false;
  *out = segments_.front().substr(inline_at_, bytes);
  inline_at_ += bytes;
  return true;
}

Status WriteResults(WireReader* from, InTensors* tensors, ThriftWriter* to) {
  WireReader ahead = *from;
  tensors->Place(HasSmallTensor(&ahead, 0));
  return WriteValues(from, tensors, to, 0);
}

}  // namespace gradferry::thrift
