// One step of groups of up to 100 workers: exact gradients, nothing left behind, and as many messages for each worker
// in a large group as in a small one. `./dev soak scale` measures larger groups.
#include <gtest/gtest.h>

#include "impl/base/live.h"
#include "tests/property/group.h"
#include "tests/scale/step.h"

namespace gradferry::scale {
namespace {

class ScaleTest : public ::testing::TestWithParam<Shape> {
 protected:
  // Open workers, connections and what else is counted.
  void TearDown() override {
    for (uint32_t kind = 0; kind < kLiveKinds; ++kind) {
      const auto& count = LiveCount(static_cast<LiveKind>(kind));
      EXPECT_NO_THROW(property::AwaitCondition([&] { return count == 0; }, "the end of all objects"))
          << "kind " << kind;
    }
  }
};

TEST_P(ScaleTest, GradientsAreExactInRealTime) {
  for (const int workers : {10, 100}) EXPECT_NO_THROW(RunStep({GetParam(), workers, /*virtual_time=*/false}));
}

// In virtual time no heartbeat comes between.
TEST_P(ScaleTest, MessagesForEachWorkerDoNotGrowWithTheGroup) {
  const Report small = RunStep({GetParam(), 10, /*virtual_time=*/true});
  const Report large = RunStep({GetParam(), 100, /*virtual_time=*/true});
  EXPECT_GT(small.forward.worker_frames, 0);
  for (const auto part : {&Report::forward, &Report::pass, &Report::release}) {
    EXPECT_LE((large.*part).most_frames, (small.*part).most_frames + 1);
    EXPECT_LE((large.*part).driver_frames, (small.*part).driver_frames + 1);
    EXPECT_LE((large.*part).worker_bytes, 1.1 * (small.*part).worker_bytes + 100);
  }
  EXPECT_LE(large.threads - small.threads, 90 + 8);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ScaleTest, ::testing::Values(Shape::kChain, Shape::kStar),
                         [](const auto& shape) { return shape.param == Shape::kChain ? "Chain" : "Star"; });

}  // namespace
}  // namespace gradferry::scale
