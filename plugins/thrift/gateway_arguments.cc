#include "plugins/thrift/gateway_arguments.h"

#include <algorithm>
#include <cstdint>

#include "plugins/thrift/wire.h"

namespace gradferry::thrift {
namespace {

// What workers take unless they are told otherwise ("limits" in docs/configuration.md). One that takes less refuses the
// frame, and the connection ends.
constexpr int kDeepest = 16;
constexpr uint32_t kMostTensors = 100000;
constexpr uint32_t kMostValues = 1000000;
constexpr size_t kLongestName = 255;

Status Invalid(const std::string& what) { return {GF_INVALID_ARGUMENT, what}; }
Status TooMuch(const std::string& what, uint64_t most) {
  return {GF_RESOURCE_EXHAUSTED, what + " than the " + std::to_string(most) + " that a worker takes"};
}
Status Unreadable(const std::string& what) { return {GF_DATA_LOSS, what + " cannot be read"}; }

// Bytes of a dense tensor; false when they are too many to count. A size of 0 counts as 1 towards that, since libtorch
// multiplies the strides of empty tensors as well.
bool ByteCount(const std::vector<int64_t>& sizes, uint64_t element, uint64_t* out) {
  auto bytes = static_cast<int64_t>(element);
  bool empty = false;
  for (const int64_t size : sizes) {
    empty = empty || size == 0;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) return false;
  }
  *out = empty ? 0 : static_cast<uint64_t>(bytes);
  return true;
}

class ArgumentReader {
 public:
  ArgumentReader(ThriftReader* from, WireWriter* to, OutTensors* tensors) : from_(from), to_(to), tensors_(tensors) {}

  // A list of Value.
  Status Values(int depth) {
    if (depth > kDeepest) return TooMuch("lists lie deeper within each other", kDeepest);
    const uint32_t count = from_->List(ThriftType::kStruct);
    if (!from_->ok()) return Unreadable("a list of values");
    values_ += count;
    if (values_ > kMostValues) return TooMuch("there are more values", kMostValues);
    to_->U32(count);
    for (uint32_t i = 0; i < count; ++i) {
      if (Status status = One(depth); !status.ok()) {
        status.text = (depth == 0 ? "argument " : "item ") + std::to_string(i) + ": " + status.text;
        return status;
      }
    }
    return {};
  }

 private:
  Status One(int depth) {
    bool some = false;
    ThriftType type;
    for (int16_t id; from_->Field(&type, &id);) {
      if (id < 1 || id > 7) {
        from_->Skip(type);
        continue;
      }
      if (some) return Invalid("a value has several fields set");
      some = true;
      if (Status status = Field(id, type, depth); !status.ok()) return status;
      if (!from_->ok()) return Unreadable("field " + std::to_string(id) + " of a value");
    }
    if (!from_->ok()) return Unreadable("a value");
    if (!some) to_->U8(ValueKind::kNone);
    return {};
  }

  Status Field(int16_t id, ThriftType type, int depth) {
    if (id == 1 && from_->Expect(type, ThriftType::kBool)) {
      to_->U8(ValueKind::kBool);
      to_->Bool(from_->Bool());
    } else if (id == 2 && from_->Expect(type, ThriftType::kI64)) {
      to_->U8(ValueKind::kInt);
      to_->I64(from_->I64());
    } else if (id == 3 && from_->Expect(type, ThriftType::kDouble)) {
      to_->U8(ValueKind::kDouble);
      to_->F64(from_->Double());
    } else if (id == 4 && from_->Expect(type, ThriftType::kString)) {
      const std::string_view text = from_->Binary();
      if (!IsUtf8(text)) return Invalid("a text is not UTF-8");
      to_->U8(ValueKind::kString);
      to_->String(text);
    } else if (id == 5 && from_->Expect(type, ThriftType::kString)) {
      to_->U8(ValueKind::kBytes);
      to_->String(from_->Binary());
    } else if (id == 6 && from_->Expect(type, ThriftType::kStruct)) {
      return ReadTensor();
    } else if (id == 7 && from_->Expect(type, ThriftType::kList)) {
      to_->U8(ValueKind::kList);
      return Values(depth + 1);
    }
    return {};
  }

  Status ReadTensor() {
    if (++tensor_count_ > kMostTensors) return TooMuch("there are more tensors", kMostTensors);
    int32_t dtype = -1;
    std::vector<int64_t> sizes;
    std::string_view data;
    ThriftType type;
    for (int16_t id; from_->Field(&type, &id);) {
      if (id == 1 && from_->Expect(type, ThriftType::kI32)) {
        dtype = from_->I32();
      } else if (id == 2 && from_->Expect(type, ThriftType::kList)) {
        const uint32_t dimensions = from_->List(ThriftType::kI64);
        if (dimensions > kMostDimensions) {
          return TooMuch("a tensor has " + std::to_string(dimensions) + " dimensions, more", kMostDimensions);
        }
        sizes.resize(dimensions);
        for (int64_t& size : sizes) size = from_->I64();
      } else if (id == 3 && from_->Expect(type, ThriftType::kString)) {
        data = from_->Binary();
      } else {
        from_->Skip(type);
      }
    }
    if (!from_->ok()) return Unreadable("a tensor");
    return WriteTensor(dtype, sizes, data);
  }

  Status WriteTensor(int32_t dtype, const std::vector<int64_t>& sizes, std::string_view data) {
    const uint64_t element = ElementSize(dtype);
    if (element == 0) return Invalid("a tensor's dtype is " + std::to_string(dtype) + ", which is none");
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] >= 0) continue;
      return Invalid("dimension " + std::to_string(i) + " of a tensor has the negative size " +
                     std::to_string(sizes[i]));
    }
    uint64_t bytes = 0;
    if (!ByteCount(sizes, element, &bytes)) return Invalid("a tensor's sizes multiply to more than 2^63 bytes");
    if (bytes != data.size()) {
      return Invalid("a tensor's data has " + std::to_string(data.size()) + " bytes, its sizes and dtype make " +
                     std::to_string(bytes));
    }
    to_->U8(ValueKind::kTensor);
    to_->U8(1);  // dense
    to_->U8(0);  // row-major, without gradient
    to_->U8(static_cast<uint8_t>(dtype));
    to_->U8(static_cast<uint8_t>(sizes.size()));
    for (const int64_t size : sizes) to_->I64(size);
    tensors_->Add(data);
    return {};
  }

  ThriftReader* const from_;
  WireWriter* const to_;
  OutTensors* const tensors_;
  uint64_t values_ = 0;
  uint32_t tensor_count_ = 0;
};

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
  return ArgumentReader(from, to, tensors).Values(0);
}

Status CheckName(const std::string& what, std::string_view name) {
  if (name.size() > kLongestName) {
    return TooMuch(what + " has " + std::to_string(name.size()) + " bytes, more", kLongestName);
  }
  return IsUtf8(name) ? Status() : Invalid(what + " is not UTF-8");
}

}  // namespace gradferry::thrift
