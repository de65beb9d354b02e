// That the bench works: everything is measured once or twice, and what it writes can be read. What came out is of no
// interest here, and nothing is said of how fast anything is.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/bench/statistics.h"

namespace gradferry::bench {
namespace {

TEST(StatisticsTest, PercentilesLieBetweenValues) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({1, 2, 3, 4}), 2.5);
  EXPECT_EQ(Percentile({5, 1}, 0), 1);
  EXPECT_EQ(Percentile({5, 1}, 100), 5);
  EXPECT_EQ(Median({}), 0);
}

TEST(StatisticsTest, AnIntervalHoldsTheMedianAndIsNarrowWhereValuesAgree) {
  const Interval narrow = MedianInterval({7, 7, 7, 7});
  EXPECT_EQ(narrow.low, 7);
  EXPECT_EQ(narrow.high, 7);
  const Interval wide = MedianInterval({1, 2, 3, 4, 100});
  EXPECT_LE(wide.low, 3);
  EXPECT_GE(wide.high, 3);
}

TEST(BenchTest, MeasuresEverySubjectAndWritesWhatCameOut) {
  const std::string file = ::testing::TempDir() + "/bench.json";
  ASSERT_EQ(std::system(("tests/bench/bench_main tiny --json " + file).c_str()), 0);
  const nlohmann::json written = nlohmann::json::parse(std::ifstream(file));
  const nlohmann::json failures = written.value("failures", nlohmann::json());
  const auto median = [&](const std::string& what, const std::string& subject) {
    return written.value(nlohmann::json::json_pointer("/measurements/" + what + "/" + subject + "/median_ns"), 0.0);
  };
  for (const char* transport : {"tensorpipe", "thrift_unix", "thrift_tcp", "thrift_tls"}) {
    for (const char* what : {"empty", "add", "add_context", "step", "chain", "in_flight", "send_64mib"}) {
      EXPECT_GT(median(what, transport), 0) << what << " over " << transport << failures;
    }
  }
  for (const char* raw : {"raw_unix", "raw_tcp", "raw_tls_unix", "raw_tls_tcp", "pipe_uv"}) {
    EXPECT_GT(median("echo", raw), 0) << raw << failures;
  }
  EXPECT_GT(median("chain", "stock"), 0) << failures;
  EXPECT_GE(written.at("goals").size(), 15u);
}

}  // namespace
}  // namespace gradferry::bench
