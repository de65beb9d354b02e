#include "plugins/thrift/gateway_wire.h"

#include <array>
#include <cstring>

namespace gradferry::thrift {
namespace {

// CRC-32C (RFC 3720): headers only, so a table does.
uint32_t Crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78u : 0);
      made[i] = value;
    }
    return made;
  }();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
  return ~crc;
}

}  // namespace

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

bool IsUtf8(std::string_view text) {
  constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};  // with so many further bytes
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const size_t more = lead < 0xC0 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF8 ? 3 : 0;
    if (more == 0 || text.size() - i < more) return false;
    uint32_t character = lead & (0x3Fu >> more);
    for (size_t k = 0; k < more; ++k, ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if ((byte & 0xC0) != 0x80) return false;
      character = character << 6 | (byte & 0x3Fu);
    }
    const bool surrogate = character >= 0xD800 && character <= 0xDFFF;
    if (character < kLeast[more] || character > 0x10FFFF || surrogate) return false;
  }
  return true;
}

WireWriter::WireWriter(Kind kind) : bytes_("GF") {
  U16(kProtocol);
  U8(static_cast<uint8_t>(kind));
}

void WireWriter::Number(uint64_t value, size_t bytes) {
  for (; bytes > 0; --bytes, value >>= 8) bytes_.push_back(static_cast<char>(value & 0xFF));
}

void WireWriter::F64(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  U64(bits);
}

void WireWriter::String(std::string_view text) {
  U32(static_cast<uint32_t>(text.size()));
  bytes_.append(text);
}

std::string WireWriter::Sealed(uint64_t sequence) && {
  U64(sequence);
  U8(0);
  U32(0);
  U32(Crc32c(bytes_));
  return std::move(bytes_);
}

WireReader::WireReader(std::string_view header) {
  if (header.size() < 5 + kSealSize || header.substr(0, 2) != "GF") {
    ok_ = false;
    return;
  }
  whole_ = rest_ = header.substr(0, header.size() - kSealSize);
  Raw(4);
  kind_ = static_cast<Kind>(U8());
}

std::string_view WireReader::Raw(size_t bytes) {
  if (bytes > rest_.size()) ok_ = false;
  if (!ok_) return {};
  const std::string_view taken = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return taken;
}

uint64_t WireReader::Number(size_t bytes) {
  uint64_t value = 0;
  const std::string_view taken = Raw(bytes);
  for (size_t i = taken.size(); i > 0; --i) value = value << 8 | static_cast<unsigned char>(taken[i - 1]);
  return value;
}

double WireReader::F64() {
  const uint64_t bits = U64();
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::string_view WireReader::String() { return Raw(U32()); }

}  // namespace gradferry::thrift
