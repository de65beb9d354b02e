// Which bytes of a message's tensors go where: the rule that sender and receiver share, so that no offset travels.
// Parts of at most kInlineBytes lie in the first segment, in order, each at a multiple of kInlineAlignment, zeros
// between them; every larger part is a segment of its own, in order. Parts without bytes are nowhere.
#pragma once

#include <cstdint>
#include <vector>

#include "impl/wire/frame.h"

namespace gradferry {

inline constexpr uint64_t kInlineAlignment = 64;

class SegmentLayout {
 public:
  static bool IsInline(uint64_t length) { return length <= kInlineBytes; }

  // Takes the next part; returns its offset in the inline segment, which says something only when it IsInline. The
  // caller bounds the number of parts, so that a sum of inline lengths cannot overflow.
  uint64_t Add(uint64_t length) {
    if (length == 0) return 0;
    if (!IsInline(length)) {
      large_.push_back(length);
      return 0;
    }
    const uint64_t offset = (inline_bytes_ + kInlineAlignment - 1) / kInlineAlignment * kInlineAlignment;
    inline_bytes_ = offset + length;
    ++inline_parts_;
    return offset;
  }

  uint64_t inline_bytes() const { return inline_bytes_; }
  uint64_t inline_parts() const { return inline_parts_; }
  // Lengths of the segments that follow the inline one.
  const std::vector<uint64_t>& large() const { return large_; }

 private:
  uint64_t inline_bytes_ = 0;
  uint64_t inline_parts_ = 0;
  std::vector<uint64_t> large_;
};

}  // namespace gradferry
