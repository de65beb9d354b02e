// Whole frames as a transport hands them over: u8, the number of segments, a u16 for the length of each, a u16 for that
// of the header, the header with its seal, and what the segments are filled from.
#include "impl/wire/seal.h"
#include "tests/fuzz/fuzz.h"

using namespace gradferry;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto u16 = [&](uint64_t* value) {
    if (size < 2) return false;
    *value = data[0] | data[1] << 8;
    data += 2;
    size -= 2;
    return true;
  };
  if (size == 0) return 0;
  std::vector<uint64_t> lengths(data[0] % 16);
  ++data;
  --size;
  for (uint64_t& length : lengths) {
    if (!u16(&length)) return 0;
  }
  uint64_t header_size = 0;
  if (!u16(&header_size) || header_size > size) return 0;
  std::string_view header = AsText(data, header_size);
  const std::string_view rest = AsText(data + header_size, size - header_size);
  // A fuzzer does not find checksums: a frame with a wrong one is looked at all the same, as if it had none.
  const auto seal = ReadSeal(header);
  if (seal.ok()) header.remove_suffix(kSealBytes);
  DecodeWhole(header, lengths, rest);
  return 0;
}
