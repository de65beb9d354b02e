// The descriptions of tensors: the body of PropagateGradients from its list of gradients on.
#include "impl/wire/decoder.h"
#include "tests/fuzz/fuzz.h"

using namespace gradferry;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string* const prefix = [] {
    auto frame = EncodeFrame(PropagateGradients{}, {}, FuzzLimits());
    frame->header.resize(frame->header.size() - 4);  // the count of gradients
    return new std::string(frame->header);
  }();
  const std::string header = *prefix + std::string(AsText(data, size));
  const auto decoded = DecodeHeader(header, FuzzLimits());
  std::vector<uint64_t> lengths;
  if (decoded.ok()) {
    if (decoded->layout.inline_parts() > 0) lengths.push_back(decoded->layout.inline_bytes());
    for (const uint64_t length : decoded->layout.large()) lengths.push_back(length);
  }
  DecodeWhole(header, lengths, AsText(data, size));
  return 0;
}
