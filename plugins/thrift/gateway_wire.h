// Gradferry's own messages (docs/protocol.md) as far as a stock client needs them: numbers in little endian, strings,
// the seal. Only the gateway uses it; between workers the plugin looks at no header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace gradferry::thrift {

enum class Kind : uint8_t {
  kHello = 1,
  kHelloReply = 2,
  kGoodbye = 3,
  kCall = 4,
  kReply = 5,
  kHeartbeat = 18,
  kHelloProof = 21
};

constexpr uint16_t kProtocol = 2;  // the version that the gateway speaks for its clients
constexpr size_t kSealSize = 17;
constexpr size_t kNonceSize = 32;
constexpr size_t kInlineBytes = 16384;  // a tensor of at most so many lies with others in the first segment
constexpr size_t kAlignment = 64;       // of each there

constexpr size_t kMostDimensions = 64;  // of a tensor

// What stands before a value.
namespace ValueKind {
enum : uint8_t { kNone = 0, kBool = 1, kInt = 2, kDouble = 3, kString = 4, kBytes = 5, kTensor = 6, kList = 7 };
}

// Bytes of an element; 0: there is no such dtype.
uint64_t ElementSize(int32_t dtype);

// Texts and names are.
bool IsUtf8(std::string_view text);

class WireWriter {
 public:
  explicit WireWriter(Kind kind);

  void U8(uint8_t value) { bytes_.push_back(static_cast<char>(value)); }
  void Bool(bool value) { U8(value ? 1 : 0); }
  void U16(uint16_t value) { Number(value, 2); }
  void U32(uint32_t value) { Number(value, 4); }
  void U64(uint64_t value) { Number(value, 8); }
  void I64(int64_t value) { Number(static_cast<uint64_t>(value), 8); }
  void F64(double value);
  void String(std::string_view text);
  void Raw(std::string_view bytes) { bytes_.append(bytes); }

  size_t size() const { return bytes_.size(); }
  std::string_view bytes() const { return bytes_; }
  // With the seal of the frame with this number.
  std::string Sealed(uint64_t sequence) &&;

 private:
  void Number(uint64_t value, size_t bytes);

  std::string bytes_;
};

// As ThriftReader: after the first thing that is not there ok() is false. What it reads is the host's, so this is about
// versions that do not fit, not about trust.
class WireReader {
 public:
  // A whole header with its seal; the seal is not looked at.
  explicit WireReader(std::string_view header);

  bool ok() const { return ok_; }
  void Fail() { ok_ = false; }
  Kind kind() const { return kind_; }
  // The header without its seal.
  std::string_view body() const { return whole_; }

  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  bool Bool() { return U8() != 0; }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  int64_t I64() { return static_cast<int64_t>(Number(8)); }
  double F64();
  std::string_view String();
  std::string_view Raw(size_t bytes);
  size_t left() const { return rest_.size(); }

 private:
  uint64_t Number(size_t bytes);

  std::string_view whole_;
  std::string_view rest_;
  Kind kind_{};
  bool ok_ = true;
};

}  // namespace gradferry::thrift
