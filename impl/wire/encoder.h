// A message as header bytes and the parts of its tensors. Called by frame.cc, which lays the parts out in segments.
// Works within the limits: it stops at the first thing that exceeds one, before it is written.
#pragma once

#include <string>
#include <vector>

#include "impl/base/status.h"
#include "impl/tensor/packing.h"
#include "impl/wire/frame.h"
#include "impl/wire/messages.h"

namespace gradferry {

struct EncodedHeader {
  std::string bytes;
  std::vector<TensorPart> parts;  // those with bytes, in the order of the tensors
};

// record_grad is EncodeFrame's. May throw what libtorch or an allocation throws.
Result<EncodedHeader> EncodeHeader(const Message& message, const std::vector<bool>& record_grad,
                                   const WireLimits& limits);

}  // namespace gradferry
