// Unit tests of impl/base/nearest.h.
#include "impl/base/nearest.h"

#include <gtest/gtest.h>

namespace gradferry {
namespace {

TEST(EditDistanceTest, CountsEachKindOfChangeOnce) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("abc", ""), 3u);
  EXPECT_EQ(EditDistance("threads", "thread"), 1u);
  EXPECT_EQ(EditDistance("threads", "threaads"), 1u);
  EXPECT_EQ(EditDistance("threads", "thraads"), 1u);
  EXPECT_EQ(EditDistance("threads", "theards"), 2u);
  EXPECT_EQ(EditDistance("ab", "ba"), 1u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
}

TEST(NearestTest, FindsTheNameThatWasMeant) {
  std::vector<std::string> keys = {"worker.name", "worker.threads", "group.name", "transport.plugin_path"};
  EXPECT_EQ(Nearest("worker.thread", keys), "worker.threads");
  EXPECT_EQ(Nearest("threads", keys), "worker.threads");
  EXPECT_EQ(Nearest("Worker.Threads", keys), "worker.threads");
  EXPECT_EQ(Nearest("grup.name", keys), "group.name");
  EXPECT_EQ(Nearest("plugin_pth", keys), "transport.plugin_path");
}

TEST(NearestTest, FindsNothingWhenNothingIsNear) {
  std::vector<std::string> keys = {"worker.name", "id", "rank"};
  EXPECT_EQ(Nearest("colour", keys), "");
  EXPECT_EQ(Nearest("", keys), "");
  EXPECT_EQ(Nearest("xy", keys), "");  // two changes make any two letters
  EXPECT_EQ(Nearest(std::string(100000, 'r'), keys), "");
  EXPECT_EQ(DidYouMean("colour", keys), "");
  EXPECT_EQ(DidYouMean("rnak", keys), " (did you mean rank?)");
}

}  // namespace
}  // namespace gradferry
