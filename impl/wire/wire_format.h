// Constants of the wire format that the encoder and the decoder share; docs/protocol.md explains them. Used within
// impl/wire only.
#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "impl/tensor/packing.h"
#include "impl/wire/frame.h"
#include "impl/wire/messages.h"

namespace gradferry {

// "GF", then the protocol version as uint16.
inline constexpr std::string_view kFrameMagic = "GF";
inline constexpr size_t kPrefixBytes = 5;  // magic, version, kind

// Messages whose layout is that of their frame's version, which they say themselves.
template <class M>
inline constexpr bool kHasLayout = std::is_same_v<M, Hello> || std::is_same_v<M, HelloReply>;

// Error texts and reasons; longer ones are cut when sent.
inline constexpr uint64_t kTextBytes = 64 * 1024;

// Recursion over nested lists (here, in CollectTensors, in destructors) stays this shallow whatever the configuration.
inline constexpr uint32_t kMaxNesting = 64;
inline uint32_t NestingLimit(const WireLimits& limits) { return std::min(limits.nesting, kMaxNesting); }

// Links of an error chain are counted in one byte, and an error has at least one.
inline uint32_t ErrorChainLimit(const WireLimits& limits) {
  return std::min(std::max(limits.error_chain, uint32_t{1}), uint32_t{255});
}

// Flags of a tensor.
inline constexpr uint8_t kTensorRequiresGrad = 1;
inline constexpr uint8_t kTensorOrdered = 2;    // dense only: an order follows
inline constexpr uint8_t kTensorExpanded = 4;   // dense only: a mask of expanded dimensions follows
inline constexpr uint8_t kTensorCoalesced = 8;  // sparse only
inline constexpr uint8_t kDenseFlags = kTensorRequiresGrad | kTensorOrdered | kTensorExpanded;
inline constexpr uint8_t kSparseFlags = kTensorRequiresGrad | kTensorCoalesced;

inline uint8_t TensorFlags(const TensorDescription& tensor) {
  return static_cast<uint8_t>((tensor.requires_grad ? kTensorRequiresGrad : 0) |
                              (tensor.order.empty() ? 0 : kTensorOrdered) |
                              (tensor.expanded == 0 ? 0 : kTensorExpanded) | (tensor.coalesced ? kTensorCoalesced : 0));
}

inline bool MayRequireGrad(const TensorDescription& tensor) {
  return tensor.form != TensorForm::kUndefined &&
         (c10::isFloatingType(tensor.dtype) || c10::isComplexType(tensor.dtype));
}

}  // namespace gradferry
