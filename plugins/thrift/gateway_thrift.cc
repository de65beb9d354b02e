#include "plugins/thrift/gateway_thrift.h"

#include <cstring>

#include "plugins/thrift/wire.h"

namespace gradferry::thrift {
namespace {

constexpr int kDeepest = 64;

}  // namespace

// ---- Reading -----------------------------------------------------------------------------------------------------

std::string_view ThriftReader::Take(size_t bytes) {
  if (bytes > rest_.size()) ok_ = false;
  if (!ok_) return {};
  const std::string_view taken = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return taken;
}

uint64_t ThriftReader::Number(size_t bytes) {
  uint64_t value = 0;
  for (const char byte : Take(bytes)) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

uint8_t ThriftReader::Byte() { return static_cast<uint8_t>(Number(1)); }

double ThriftReader::Double() {
  const uint64_t bits = Number(8);
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::string_view ThriftReader::Binary() {
  const int32_t length = I32();
  if (length < 0) ok_ = false;
  return ok_ ? Take(static_cast<size_t>(length)) : std::string_view();
}

bool ThriftReader::Field(ThriftType* type, int16_t* id) {
  *type = static_cast<ThriftType>(Byte());
  if (!ok_ || *type == ThriftType::kStop) return false;
  *id = I16();
  return ok_;
}

uint32_t ThriftReader::List(ThriftType type) {
  const auto actual = static_cast<ThriftType>(Byte());
  const int32_t count = I32();
  if (count < 0 || static_cast<size_t>(count) > rest_.size() || (count > 0 && actual != type)) ok_ = false;
  return ok_ ? static_cast<uint32_t>(count) : 0;
}

void ThriftReader::Skip(ThriftType type, int depth) {
  if (depth > kDeepest) ok_ = false;
  if (!ok_) return;
  switch (type) {
    case ThriftType::kBool:
    case ThriftType::kByte:
      Take(1);
      return;
    case ThriftType::kI16:
      Take(2);
      return;
    case ThriftType::kI32:
      Take(4);
      return;
    case ThriftType::kDouble:
    case ThriftType::kI64:
      Take(8);
      return;
    case ThriftType::kString:
      Binary();
      return;
    case ThriftType::kStruct: {
      ThriftType field;
      int16_t id;
      while (Field(&field, &id)) Skip(field, depth + 1);
      return;
    }
    case ThriftType::kMap:
    case ThriftType::kSet:
    case ThriftType::kList: {
      const auto key = static_cast<ThriftType>(Byte());
      const auto value = type == ThriftType::kMap ? static_cast<ThriftType>(Byte()) : ThriftType::kStop;
      const int32_t count = I32();
      if (count < 0) ok_ = false;
      for (int32_t i = 0; i < count && ok_; ++i) {
        Skip(key, depth + 1);
        if (type == ThriftType::kMap) Skip(value, depth + 1);
      }
      return;
    }
    case ThriftType::kStop:
      break;
  }
  ok_ = false;
}

bool ThriftReader::Expect(ThriftType type, ThriftType wanted) {
  if (type != wanted) ok_ = false;
  return ok_;
}

// ---- Writing -----------------------------------------------------------------------------------------------------

void ThriftWriter::BeginMessage(ThriftMessage type, std::string_view name, int32_t sequence) {
  out_->assign(kLengthSize, '\0');
  I32(static_cast<int32_t>(0x80010000u | static_cast<uint32_t>(type)));
  Binary(name);
  I32(sequence);
}

bool ThriftWriter::EndMessage() {
  const size_t length = out_->size() - kLengthSize;
  if (length > kMaxMessage) return false;
  Store32(out_->data(), static_cast<uint32_t>(length));
  return true;
}

void ThriftWriter::Field(ThriftType type, int16_t id) {
  out_->push_back(static_cast<char>(type));
  out_->push_back(static_cast<char>(id >> 8));
  out_->push_back(static_cast<char>(id));
}

void ThriftWriter::List(ThriftType type, uint32_t count) {
  out_->push_back(static_cast<char>(type));
  I32(static_cast<int32_t>(count));
}

void ThriftWriter::I32(int32_t value) {
  char bytes[4];
  Store32(bytes, static_cast<uint32_t>(value));
  out_->append(bytes, sizeof(bytes));
}

void ThriftWriter::I64(int64_t value) {
  char bytes[8];
  Store64(bytes, static_cast<uint64_t>(value));
  out_->append(bytes, sizeof(bytes));
}

void ThriftWriter::Double(double value) {
  int64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  I64(bits);
}

void ThriftWriter::Binary(std::string_view bytes) {
  I32(static_cast<int32_t>(bytes.size()));
  out_->append(bytes);
}

}  // namespace gradferry::thrift
