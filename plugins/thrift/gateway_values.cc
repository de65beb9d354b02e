#include "plugins/thrift/gateway_values.h"

#include <algorithm>
#include <numeric>

#include "plugins/thrift/wire.h"

namespace gradferry::thrift {
namespace {

constexpr int kDeepest = 64;
constexpr size_t kMostDimensions = 64;

enum WireKind : uint8_t {
  kNone = 0,
  kBool = 1,
  kInt = 2,
  kDouble = 3,
  kString = 4,
  kBytes = 5,
  kTensor = 6,
  kList = 7
};

// Bytes of an element; 0: there is no such dtype.
uint64_t ElementSize(int32_t dtype) {
  switch (dtype) {
    case 0:   // uint8
    case 1:   // int8
    case 11:  // bool
      return 1;
    case 2:   // int16
    case 5:   // float16
    case 15:  // bfloat16
      return 2;
    case 3:  // int32
    case 6:  // float32
      return 4;
    case 4:  // int64
    case 7:  // float64
    case 9:  // complex64
      return 8;
    case 10:  // complex128
      return 16;
    default:
      return 0;
  }
}

// Bytes of a dense tensor; false when they are too many to count.
bool ByteCount(const std::vector<int64_t>& sizes, uint64_t element, uint64_t* out) {
  uint64_t bytes = element;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) || bytes >> 62 != 0) return false;
  }
  *out = bytes;
  return true;
}

Status Invalid(const std::string& what) { return {GF_INVALID_ARGUMENT, what}; }

// ---- From the client ---------------------------------------------------------------------------------------------

Status ReadTensor(ThriftReader* from, WireWriter* to, OutTensors* tensors) {
  int32_t dtype = -1;
  std::vector<int64_t> sizes;
  std::string_view data;
  ThriftType type;
  for (int16_t id; from->Field(&type, &id);) {
    if (id == 1 && from->Expect(type, ThriftType::kI32)) {
      dtype = from->I32();
    } else if (id == 2 && from->Expect(type, ThriftType::kList)) {
      sizes.clear();
      for (uint32_t left = from->List(ThriftType::kI64); left > 0 && from->ok(); --left) sizes.push_back(from->I64());
    } else if (id == 3 && from->Expect(type, ThriftType::kString)) {
      data = from->Binary();
    } else {
      from->Skip(type);
    }
  }
  if (!from->ok()) return {};
  const uint64_t element = ElementSize(dtype);
  if (element == 0) return Invalid("a tensor's dtype is " + std::to_string(dtype) + ", which is none");
  if (sizes.size() > kMostDimensions) return Invalid("a tensor has more than 64 dimensions");
  if (std::any_of(sizes.begin(), sizes.end(), [](int64_t size) { return size < 0; })) {
    return Invalid("a tensor has a negative size");
  }
  uint64_t bytes = 0;
  if (!ByteCount(sizes, element, &bytes) || bytes != data.size()) {
    return Invalid("a tensor's data has " + std::to_string(data.size()) + " bytes, which is not what its sizes need");
  }
  to->U8(kTensor);
  to->U8(1);  // dense
  to->U8(0);  // row-major, without gradient
  to->U8(static_cast<uint8_t>(dtype));
  to->U8(static_cast<uint8_t>(sizes.size()));
  for (const int64_t size : sizes) to->I64(size);
  tensors->Add(data);
  return {};
}

Status ReadValues(ThriftReader* from, WireWriter* to, OutTensors* tensors, int depth);

Status ReadValue(ThriftReader* from, WireWriter* to, OutTensors* tensors, int depth) {
  bool some = false;
  ThriftType type;
  for (int16_t id; from->Field(&type, &id);) {
    if (id < 1 || id > 7) {
      from->Skip(type);
      continue;
    }
    if (some) return Invalid("a value has several fields set");
    some = true;
    Status status;
    if (id == 1 && from->Expect(type, ThriftType::kBool)) {
      to->U8(kBool);
      to->Bool(from->Bool());
    } else if (id == 2 && from->Expect(type, ThriftType::kI64)) {
      to->U8(kInt);
      to->I64(from->I64());
    } else if (id == 3 && from->Expect(type, ThriftType::kDouble)) {
      to->U8(kDouble);
      to->F64(from->Double());
    } else if (id == 4 && from->Expect(type, ThriftType::kString)) {
      to->U8(kString);
      to->String(from->Binary());
    } else if (id == 5 && from->Expect(type, ThriftType::kString)) {
      to->U8(kBytes);
      to->String(from->Binary());
    } else if (id == 6 && from->Expect(type, ThriftType::kStruct)) {
      status = ReadTensor(from, to, tensors);
    } else if (id == 7 && from->Expect(type, ThriftType::kList)) {
      to->U8(kList);
      status = ReadValues(from, to, tensors, depth + 1);
    }
    if (!status.ok()) return status;
  }
  if (!some) to->U8(kNone);
  return {};
}

Status ReadValues(ThriftReader* from, WireWriter* to, OutTensors* tensors, int depth) {
  if (depth > kDeepest) return Invalid("lists lie within each other more than 64 deep");
  const uint32_t count = from->List(ThriftType::kStruct);
  to->U32(count);
  for (uint32_t i = 0; i < count && from->ok(); ++i) {
    if (Status status = ReadValue(from, to, tensors, depth); !status.ok()) {
      if (depth == 0) status.text = "argument " + std::to_string(i) + ": " + status.text;
      return status;
    }
  }
  return {};
}

// ---- To the client -----------------------------------------------------------------------------------------------

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
      case kNone:
        break;
      case kBool:
        from->Bool();
        break;
      case kInt:
      case kDouble:
        from->U64();
        break;
      case kString:
      case kBytes:
        from->String();
        break;
      case kTensor: {
        Description tensor;
        if (!ReadDescription(from, &tensor).ok()) return small;
        if (tensor.sent != 0 && tensor.sent <= kInlineBytes) small = true;
        break;
      }
      case kList:
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
    case kNone:
      break;
    case kBool:
      to->Field(ThriftType::kBool, 1);
      to->Bool(from->Bool());
      break;
    case kInt:
      to->Field(ThriftType::kI64, 2);
      to->I64(from->I64());
      break;
    case kDouble:
      to->Field(ThriftType::kDouble, 3);
      to->Double(from->F64());
      break;
    case kString:
      to->Field(ThriftType::kString, 4);
      to->Binary(from->String());
      break;
    case kBytes:
      to->Field(ThriftType::kString, 5);
      to->Binary(from->String());
      break;
    case kTensor:
      status = WriteTensor(from, tensors, to);
      break;
    case kList:
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

void OutTensors::Add(std::string_view bytes) {
  if (bytes.empty()) return;
  if (bytes.size() > kInlineBytes) return large_.push_back(bytes);
  inline_.resize((inline_.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  inline_.append(bytes);
}

std::vector<std::string_view> OutTensors::Segments() const {
  std::vector<std::string_view> segments;
  if (!inline_.empty()) segments.push_back(inline_);
  segments.insert(segments.end(), large_.begin(), large_.end());
  return segments;
}

Status ReadArguments(ThriftReader* from, WireWriter* to, OutTensors* tensors) {
  return ReadValues(from, to, tensors, 0);
}

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
