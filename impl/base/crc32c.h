// CRC-32C (Castagnoli; polynomial 0x1EDC6F41, reflected, as in RFC 3720 appendix B.4): the checksum of frames. Uses the
// instruction of SSE4.2 where the processor has it, found out when the program runs, and tables elsewhere. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gradferry {

// The checksum of `size` bytes that follow those of which `before` is the checksum; 0 is that of no bytes. data may be
// null when size is 0.
uint32_t ExtendCrc32c(uint32_t before, const void* data, size_t size);

inline uint32_t Crc32c(std::string_view bytes) { return ExtendCrc32c(0, bytes.data(), bytes.size()); }

// The same by tables alone, whatever the processor can; for tests.
uint32_t ExtendCrc32cByTables(uint32_t before, const void* data, size_t size);

}  // namespace gradferry
