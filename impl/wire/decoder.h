// Header bytes from a peer as a message whose tensors are still to come. Called by frame_decoder.cc. Trusts nothing:
// counts are covered by bytes that are there before memory is reserved for them, and no tensor memory is allocated.
#pragma once

#include <string_view>
#include <vector>

#include "impl/base/status.h"
#include "impl/tensor/packing.h"
#include "impl/wire/frame.h"
#include "impl/wire/layout.h"
#include "impl/wire/messages.h"

namespace gradferry {

struct DecodedHeader {
  Message message;                         // its tensors are undefined
  std::vector<TensorDescription> tensors;  // one per tensor of the message, in order; valid by PartLengths
  SegmentLayout layout;                    // of their parts
};

Result<DecodedHeader> DecodeHeader(std::string_view header, const WireLimits& limits);

}  // namespace gradferry
