// See crc32c.h. The tables are the "slicing by 8" of Kounavis and Berry (2005): eight bytes a step.
#include "impl/base/crc32c.h"

#include <array>
#include <cstring>

namespace gradferry {
namespace {

constexpr uint32_t kReflectedPolynomial = 0x82F63B78;

// tables[k][b]: the checksum register after byte b and k zero bytes.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < tables.size(); ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t shorter = tables[k - 1][byte];
      tables[k][byte] = (shorter >> 8) ^ tables[0][shorter & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) uint32_t ExtendByInstruction(uint32_t before, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  uint64_t crc = ~before;
  for (; size >= 8; at += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    crc = __builtin_ia32_crc32di(crc, word);
  }
  for (; size > 0; ++at, --size) {
    crc = __builtin_ia32_crc32qi(static_cast<uint32_t>(crc), static_cast<unsigned char>(*at));
  }
  return ~static_cast<uint32_t>(crc);
}

bool HasInstruction() {
  static const bool has = __builtin_cpu_supports("sse4.2") != 0;
  return has;
}

#endif

}  // namespace

uint32_t ExtendCrc32cByTables(uint32_t before, const void* data, size_t size) {
  const auto* at = static_cast<const unsigned char*>(data);
  uint32_t crc = ~before;
  for (; size >= 8; at += 8, size -= 8) {
    crc = kTables[7][(crc ^ at[0]) & 0xff] ^ kTables[6][((crc >> 8) ^ at[1]) & 0xff] ^
          kTables[5][((crc >> 16) ^ at[2]) & 0xff] ^ kTables[4][(crc >> 24) ^ at[3]] ^ kTables[3][at[4]] ^
          kTables[2][at[5]] ^ kTables[1][at[6]] ^ kTables[0][at[7]];
  }
  for (; size > 0; ++at, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *at) & 0xff];
  return ~crc;
}

uint32_t ExtendCrc32c(uint32_t before, const void* data, size_t size) {
#if defined(__x86_64__)
  if (HasInstruction()) return ExtendByInstruction(before, data, size);
#endif
  return ExtendCrc32cByTables(before, data, size);
}

}  // namespace gradferry
