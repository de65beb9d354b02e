// Very many contexts, one after the other: each is made, used and released, and memory does not grow with their number.
//
// GF_CONTEXTS (20000) says how many. Prints what they cost once caches and allocators are warm; `./dev soak contexts`
// runs a million.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/integration/modes.h"

namespace gf {
namespace {

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t FromEnvironment(const char* variable, int64_t fallback) {
  const char* text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? fallback : std::atoll(text);
}

// Bytes for each context, by least squares over (contexts so far, resident bytes).
double Slope(const std::vector<std::pair<double, double>>& points) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const auto& [contexts, bytes] : points) {
    n += 1, x += contexts, y += bytes, xx += contexts * contexts, xy += contexts * bytes;
  }
  return (n * xy - x * y) / (n * xx - x * x);
}

class ContextsTest : public TransportTest {};

TEST_P(ContextsTest, MemoryDoesNotGrowWithTheirNumber) {
  const int64_t contexts = FromEnvironment("GF_CONTEXTS", 20000);
  // Tombstones of released contexts are kept up to a number, so the first half is for warming up.
  const int64_t warm = contexts / 2, step = std::max<int64_t>(contexts / 40, 1);
  std::vector<std::pair<double, double>> points;
  {
    Group group(transport(), {"worker0", "worker1"});
    const Tensor x = WithGrad(Floats({2}, {2, 3})), factor = Floats({2}, {5, 7});
    for (int64_t i = 0; i < contexts; ++i) {
      const Context context = NewContext(group[0]);
      const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", x, factor);
      if (i % 4 == 0) {
        Backward(context, {Sum(product)});
        if (i % 1000 == 0) {
          EXPECT_EQ(ReadFloats(Gradient(context, x)), std::vector<float>({5, 7}));
        }
      }
      Release(context);
      if (i >= warm && i % step == 0) points.emplace_back(static_cast<double>(i), static_cast<double>(ResidentBytes()));
    }
    EXPECT_TRUE(Eventually(NothingUnderWay));
  }
  const double slope = Slope(points), growth = points.back().second - points.front().second;
  std::printf(
      "%lld contexts over %s: %.2f bytes of resident memory for each, %.0f KiB over the second half, %.1f MiB in all\n",
      static_cast<long long>(contexts), transport().c_str(), slope, growth / 1024, points.back().second / (1 << 20));
  RecordProperty("bytes_for_each", std::to_string(slope));
  // What a leak of the smallest object would exceed in a long run; pages and arenas come in steps.
  EXPECT_LT(growth, 8 * (1 << 20) + 1.0 * static_cast<double>(contexts));
}

GF_OVER_ALL_WAYS(ContextsTest);

}  // namespace
}  // namespace gf
