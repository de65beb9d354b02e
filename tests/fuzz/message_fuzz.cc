// Every message with the segments that its tensors ask for: u8 for the kind, u8 for the version, the body.
#include <utility>

#include "impl/wire/decoder.h"
#include "tests/fuzz/fuzz.h"

using namespace gradferry;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string header = "GF";
  header += static_cast<char>(data[1] % 4);
  header += '\0';
  header += static_cast<char>(data[0]);
  header += AsText(data + 2, size - 2);
  const auto decoded = DecodeHeader(header, FuzzLimits());
  std::vector<uint64_t> lengths;
  if (decoded.ok()) {
    if (decoded->layout.inline_parts() > 0) lengths.push_back(decoded->layout.inline_bytes());
    for (const uint64_t length : decoded->layout.large()) lengths.push_back(length);
  }
  DecodeWhole(header, lengths, AsText(data, size));
  return 0;
}
