#include "tools/plugin_check/frames.h"

#include <algorithm>
#include <cstring>

namespace gradferry::check {
namespace {

// A prime, so that no power of two is a period.
constexpr size_t kPeriod = 65521;

const std::string& Noise() {
  static const std::string* const noise = [] {
    auto* bytes = new std::string(kPeriod, '\0');
    uint32_t state = 1;
    for (char& byte : *bytes) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<char>(state >> 24);
    }
    return bytes;
  }();
  return *noise;
}

uint64_t LengthOf(const Shape& shape, size_t part) { return part == 0 ? shape.header : shape.segments[part - 1]; }

// Calls visit(offset, noise, length) for run after run until it returns false.
template <class Visit>
bool EachRun(const Shape& shape, size_t part, Visit visit) {
  const uint64_t length = LengthOf(shape, part);
  size_t from = (shape.seed * 977 + part * 131) % kPeriod;
  for (uint64_t at = 0; at < length;) {
    const size_t run = static_cast<size_t>(std::min<uint64_t>(kPeriod - from, length - at));
    if (!visit(at, Noise().data() + from, run)) return false;
    at += run;
    from = 0;
  }
  return true;
}

}  // namespace

void FillBytes(const Shape& shape, size_t part, char* out) {
  EachRun(shape, part, [&](uint64_t at, const char* noise, size_t run) {
    std::memcpy(out + at, noise, run);
    return true;
  });
}

bool SameBytes(const Shape& shape, size_t part, const char* bytes) {
  return EachRun(shape, part,
                 [&](uint64_t at, const char* noise, size_t run) { return std::memcmp(bytes + at, noise, run) == 0; });
}

std::vector<Shape> ManyShapes(uint64_t max_header) {
  std::vector<std::pair<uint64_t, std::vector<uint64_t>>> kinds = {
      {1, {}},
      {1, {0}},
      {2, {0, 0, 0}},
      {7, {1}},
      {32, {0, 1, 0}},
      {33, {4095, 4096, 4097}},
      {100, {65535, 65536, 65537, 0, 3}},
      {64, std::vector<uint64_t>(300, 5)},
      {64, std::vector<uint64_t>(100, 0)},
      {max_header, {}},
      {max_header, {10, 0}},
      {40, {262143, 262144, 1}},
      {40, {1 << 20, 7, (1 << 20) + 1}},
      {40, {20 * 1000 * 1000 + 3, 0, 11}},
  };
  // Each kind of neighbour: mixed sizes in one frame.
  for (uint64_t size = 1; size <= (1 << 18); size *= 8)
    kinds.push_back({std::min<uint64_t>(200, max_header), {size, 0, size * 3, 1}});
  std::vector<Shape> shapes;
  for (auto& kind : kinds) shapes.push_back({std::min(kind.first, max_header), std::move(kind.second), shapes.size()});
  return shapes;
}

}  // namespace gradferry::check
