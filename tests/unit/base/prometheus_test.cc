// The text format of metrics and the histogram, by the letter.
#include "impl/base/prometheus.h"

#include <gtest/gtest.h>

#include <cmath>

#include "impl/base/histogram.h"

namespace gradferry {
namespace {

TEST(PrometheusTextTest, EscapesLabelsAndHelp) {
  PrometheusText text("worker", "a\"b");
  text.Family("x_total", "counter", "One\nline \\ \"quoted\".");
  text.Sample({{"peer", "c:\\d\n"}}, 3);
  EXPECT_EQ(text.Take(),
            "# HELP x_total One\\nline \\\\ \"quoted\".\n# TYPE x_total counter\n"
            "x_total{worker=\"a\\\"b\",peer=\"c:\\\\d\\n\"} 3\n");
}

TEST(PrometheusTextTest, LeavesOutFamiliesWithoutSamples) {
  PrometheusText text("worker", "w");
  text.Family("empty", "gauge", "Nothing.");
  text.Family("x", "gauge", "Something.");
  text.Sample({}, NAN);
  text.Sample({{"a", "b"}}, 1e30);
  EXPECT_EQ(text.Take(), "# HELP x Something.\n# TYPE x gauge\nx{worker=\"w\"} NaN\nx{worker=\"w\",a=\"b\"} 1e+30\n");
}

TEST(PrometheusTextTest, AddsBucketsUp) {
  PrometheusText text("worker", "w");
  text.Family("x_seconds", "histogram", "Times.");
  text.Histogram({}, {0.5, 1}, {2, 0, 1}, 4.5);
  EXPECT_EQ(text.Take(),
            "# HELP x_seconds Times.\n# TYPE x_seconds histogram\nx_seconds_bucket{worker=\"w\",le=\"0.5\"} 2\n"
            "x_seconds_bucket{worker=\"w\",le=\"1\"} 2\nx_seconds_bucket{worker=\"w\",le=\"+Inf\"} 3\n"
            "x_seconds_sum{worker=\"w\"} 4.5\nx_seconds_count{worker=\"w\"} 3\n");
}

TEST(DurationHistogramTest, ABoundIncludesItself) {
  const auto bounds = DurationHistogram::BoundsInSeconds();
  ASSERT_EQ(bounds.size() + 1, DurationHistogram::kCounters);
  for (size_t i = 0; i < bounds.size(); ++i) {
    const int64_t bound = int64_t{1} << (DurationHistogram::kFirst + static_cast<int>(i));
    EXPECT_EQ(DurationHistogram::CounterOf(bound), i);
    EXPECT_EQ(DurationHistogram::CounterOf(bound + 1), i + 1);
  }
  EXPECT_EQ(DurationHistogram::CounterOf(-5), 0u);
  EXPECT_EQ(DurationHistogram::CounterOf(INT64_MAX), DurationHistogram::kCounters - 1);
}

}  // namespace
}  // namespace gradferry
