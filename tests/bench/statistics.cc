// See statistics.h.
#include "tests/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

namespace gradferry::bench {

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = p / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - std::floor(place)) * (values[above] - values[below]);
}

Interval MedianInterval(const std::vector<double>& values) {
  constexpr int kDraws = 2000;
  if (values.empty()) return {};
  std::mt19937 random(1);
  std::uniform_int_distribution<size_t> any(0, values.size() - 1);
  std::vector<double> medians;
  medians.reserve(kDraws);
  std::vector<double> drawn(values.size());
  for (int i = 0; i < kDraws; ++i) {
    for (double& value : drawn) value = values[any(random)];
    medians.push_back(Median(drawn));
  }
  return {Percentile(medians, 2.5), Percentile(medians, 97.5)};
}

}  // namespace gradferry::bench
