// Thrift's binary protocol for the messages of stock clients: a reader that believes no length, and a writer.
//
// libthrift's own is not used here. Generated code resizes a list to the number that it is told before an element has
// come, of structs with no check at all, and puts every tensor into a std::string; here a call becomes a frame on the
// way, and a tensor's bytes stay where they arrived until the host says where it wants them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace gradferry::thrift {

enum class ThriftType : uint8_t {
  kStop = 0,
  kBool = 2,
  kByte = 3,
  kDouble = 4,
  kI16 = 6,
  kI32 = 8,
  kI64 = 10,
  kString = 11,
  kStruct = 12,
  kMap = 13,
  kSet = 14,
  kList = 15,
};

enum class ThriftMessage : uint8_t { kCall = 1, kReply = 2, kException = 3, kOneway = 4 };

// Reads what was received. After the first thing that is not there, or is wrong, ok() is false and all that follows is
// zero; so callers check where it matters.
class ThriftReader {
 public:
  explicit ThriftReader(std::string_view bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  void Fail() { ok_ = false; }
  size_t left() const { return rest_.size(); }

  uint8_t Byte();
  bool Bool() { return Byte() != 0; }
  int16_t I16() { return static_cast<int16_t>(Number(2)); }
  int32_t I32() { return static_cast<int32_t>(Number(4)); }
  int64_t I64() { return static_cast<int64_t>(Number(8)); }
  double Double();
  // A view into what was received.
  std::string_view Binary();

  // The next field of a struct; false at its end.
  bool Field(ThriftType* type, int16_t* id);
  // The length of a list of this type; each element has at least a byte, so there are no more than there are bytes.
  uint32_t List(ThriftType type);
  // Passes over a value of a field that is not known.
  void Skip(ThriftType type, int depth = 0);
  // As Skip, but fails when the type is another than wanted.
  bool Expect(ThriftType type, ThriftType wanted);

 private:
  uint64_t Number(size_t bytes);
  std::string_view Take(size_t bytes);

  std::string_view rest_;
  bool ok_ = true;
};

// Appends to a string.
class ThriftWriter {
 public:
  explicit ThriftWriter(std::string* out) : out_(out) {}

  // What was there is thrown away. The length of the framed transport in front is filled in by EndMessage; false when
  // the message is too long.
  void BeginMessage(ThriftMessage type, std::string_view name, int32_t sequence);
  bool EndMessage();
  std::string* out() const { return out_; }

  void Field(ThriftType type, int16_t id);
  void Stop() { out_->push_back(0); }
  void List(ThriftType type, uint32_t count);
  void Bool(bool value) { out_->push_back(value ? 1 : 0); }
  void I32(int32_t value);
  void I64(int64_t value);
  void Double(double value);
  void Binary(std::string_view bytes);

 private:
  std::string* const out_;
};

}  // namespace gradferry::thrift
