// How long things took, counted without locks: one counter for each power of two of nanoseconds. Any thread.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gradferry {

class DurationHistogram {
 public:
  // Bounds from 2^13 ns (8 µs) to 2^35 ns (34 s), and one counter for all that took longer.
  static constexpr int kFirst = 13;
  static constexpr int kLast = 35;
  static constexpr size_t kCounters = kLast - kFirst + 2;

  void Record(int64_t ns) {
    counts_[CounterOf(ns)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(std::max<int64_t>(ns, 0), std::memory_order_relaxed);
  }

  // The counter whose bound is the least that is not below ns.
  static size_t CounterOf(int64_t ns) {
    if (ns <= int64_t{1} << kFirst) return 0;
    const int bits = 64 - __builtin_clzll(static_cast<unsigned long long>(ns - 1));
    return static_cast<size_t>(std::min(bits, kLast + 1) - kFirst);
  }

  static std::vector<double> BoundsInSeconds() {
    std::vector<double> bounds;
    for (int bits = kFirst; bits <= kLast; ++bits) bounds.push_back(static_cast<double>(int64_t{1} << bits) / 1e9);
    return bounds;
  }
  std::vector<uint64_t> Counts() const {
    std::vector<uint64_t> counts;
    for (const auto& count : counts_) counts.push_back(count.load(std::memory_order_relaxed));
    return counts;
  }
  double SumInSeconds() const { return static_cast<double>(sum_.load(std::memory_order_relaxed)) / 1e9; }

 private:
  std::array<std::atomic<uint64_t>, kCounters> counts_{};
  std::atomic<int64_t> sum_{0};
};

}  // namespace gradferry
