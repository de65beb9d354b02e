// The frames that are sent to and fro. A frame is known by its shape: its bytes follow from that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gradferry::check {

struct Shape {
  uint64_t header = 32;
  std::vector<uint64_t> segments;
  uint64_t seed = 0;
};

// Bytes number `part` of a frame (0: the header, then the segments).
void FillBytes(const Shape& shape, size_t part, char* out);
bool SameBytes(const Shape& shape, size_t part, const char* bytes);

// Many kinds: empty segments, one byte, around pages and powers of two, many small ones, the longest header, large
// ones.
std::vector<Shape> ManyShapes(uint64_t max_header);

}  // namespace gradferry::check
