// What is said of samples: medians, percentiles, and how sure a median of rounds is.
#pragma once

#include <cstdint>
#include <vector>

namespace gradferry::bench {

// The p-th percentile, 0 to 100, by linear interpolation; 0 of nothing.
double Percentile(std::vector<double> values, double p);
inline double Median(std::vector<double> values) { return Percentile(std::move(values), 50); }

struct Interval {
  double low = 0;
  double high = 0;
};

// The 95 % interval of the median, by drawing as many values as there are 2,000 times (bootstrap, always the same
// draws).
Interval MedianInterval(const std::vector<double>& values);

}  // namespace gradferry::bench
