// Numbers that follow from a seed, the same on every machine and with every standard library. The generator of programs
// and the data of their tensors draw from it; nothing else may be random in a program.
#pragma once

#include <cstdint>

namespace gradferry::property {

// SplitMix64 (Steele, Lea, Flood 2014): every seed gives a good stream, so streams of neighbours are independent.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // A stream of its own for each purpose and index.
  Random(uint64_t seed, uint64_t purpose, uint64_t index)
      : state_(Random(Random(seed).Next() + purpose).Next() + index) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // 0 to n - 1; n is small, so the bias is none that matters.
  int64_t Below(int64_t n) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(n)); }
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  bool Chance(double probability) { return Unit() < probability; }

 private:
  uint64_t state_;
};

}  // namespace gradferry::property
